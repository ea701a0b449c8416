"""`melanoma readers`."""

import argparse

from melanoma.commands.options import add_tracking_uri

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Parse the arguments, then compare a run with human readers of the same images."""
    parser = argparse.ArgumentParser(
        prog="melanoma readers",
        description="Compare a model with human readers of its test images, for other readers and other images.",
        epilog="melanoma readers RUN readers.csv --task malignant --html readers.html",
    )
    parser.add_argument("run", metavar="RUN", help="id of a run")
    parser.add_argument("table", metavar="TABLE", help="CSV file with the columns reader, image and rating")
    parser.add_argument("--task", help="binary task that the ratings are of; not needed if there is only one")
    parser.add_argument("--threshold", type=float, help="ratings of at least this are calls; not needed for 0 and 1")
    parser.add_argument("--html", metavar="FILE", help="write a page with the figure too")
    add_tracking_uri(parser)
    options = parser.parse_args(arguments)
    from melanoma.paths import user_path
    from melanoma.workflows.readers import compare_readers

    compare_readers(
        options.run,
        user_path(options.table),
        task=options.task,
        threshold=options.threshold,
        html=None if options.html is None else user_path(options.html),
        uri=options.tracking_uri,
    )
