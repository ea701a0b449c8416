"""Options that several commands have."""

import argparse

__all__ = ["add_tracking_uri"]


def add_tracking_uri(parser: argparse.ArgumentParser) -> None:
    """Add `--tracking-uri`."""
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db in the project's folder"
    )
