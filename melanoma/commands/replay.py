"""`melanoma replay`."""

import argparse
import sys
from datetime import datetime

from melanoma.commands.options import add_tracking_uri

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Make a run again from its record, and exit with 0 if its numbers are the same, otherwise with 1."""
    parser = argparse.ArgumentParser(
        prog="melanoma replay",
        description="Make a run again from its record (configuration, seed, values that it found), and compare all "
        "numbers of its epochs and its final metrics: identical, within tolerance or different.",
        epilog="Exit codes: 0 identical or within the nondeterminism of this machine, 1 different, 2 not possible. "
        "Example: melanoma replay models:/melanoma-isic9@champion",
    )
    parser.add_argument("run", metavar="RUN", help="ID of a run, or address of a model; also as run=... or model=...")
    add_tracking_uri(parser)
    options = parser.parse_args(arguments)
    from melanoma.paths import outputs_dir
    from melanoma.terminal import quiet_native_imports

    with quiet_native_imports():
        from melanoma.workflows.replay import DIFFERENT, replay
    address = options.run.removeprefix("run=").removeprefix("model=")
    folder = outputs_dir() / "replay" / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
    if replay(address, options.tracking_uri, folder) == DIFFERENT:
        sys.exit(1)
