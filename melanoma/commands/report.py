"""`melanoma report`."""

import argparse

from melanoma.commands.options import add_tracking_uri

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Parse the arguments, then write a report from the tracking store."""
    parser = argparse.ArgumentParser(
        prog="melanoma report",
        description="Write a page about the runs of an experiment: ranking, tests, curves, confusion matrices and "
        "mistakes. `experiments` writes the table and the figure of the reference experiments instead.",
        epilog="melanoma report my_experiment --html report.html",
    )
    parser.add_argument("experiment", help="name of an experiment in the tracking store, or `experiments`")
    parser.add_argument("--html", metavar="FILE", help="file of the page, which is self-contained")
    parser.add_argument(
        "--output", metavar="FOLDER", help="with `experiments`: folder of its README; default: experiments/"
    )
    add_tracking_uri(parser)
    options = parser.parse_args(arguments)
    if options.html is None and options.experiment != "experiments":
        parser.error(f"give the file of the page, as in --html report.html. Received: {options.experiment}")
    from melanoma.paths import project_root, user_path
    from melanoma.terminal import out, quiet_native_imports
    from melanoma.tracking.store import open_store

    open_store(options.tracking_uri)
    with quiet_native_imports():
        from melanoma.report.experiment_page import write_experiment_page
        from melanoma.report.tables import write_report

    if options.html is not None:
        page = user_path(options.html)
        write_experiment_page(options.experiment, page)
        out().print(f"Page     {page.absolute()}", soft_wrap=True, markup=False)
        return
    folder = user_path(options.output) if options.output else project_root() / "experiments"
    write_report(folder)
    out().print(f"Written to {folder / 'README.md'}", soft_wrap=True, markup=False)
