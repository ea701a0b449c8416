"""`melanoma report`."""

import argparse

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Parse the arguments, then write a report from the tracking store."""
    parser = argparse.ArgumentParser(
        prog="melanoma report",
        description="Write the table and the figure of the reference experiments from the tracking store.",
        epilog="melanoma report experiments",
    )
    parser.add_argument("what", choices=["experiments"])
    parser.add_argument("--output", metavar="FOLDER", help="folder with the README.md to update; default: experiments/")
    parser.add_argument(
        "--tracking-uri", metavar="URI", help="default: MLFLOW_TRACKING_URI, else mlflow.db in the project's folder"
    )
    options = parser.parse_args(arguments)
    from melanoma.paths import project_root, user_path
    from melanoma.terminal import out, quiet_native_imports
    from melanoma.tracking.store import open_store

    open_store(options.tracking_uri)
    with quiet_native_imports():
        from melanoma.report.tables import write_report

    folder = user_path(options.output) if options.output else project_root() / "experiments"
    write_report(folder)
    out().print(f"Written to {folder / 'README.md'}", soft_wrap=True, markup=False)
