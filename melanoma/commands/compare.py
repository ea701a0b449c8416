"""`melanoma compare`."""

import argparse

from melanoma.commands.options import add_tracking_uri

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Parse the arguments, then compare runs on the same images."""
    parser = argparse.ArgumentParser(
        prog="melanoma compare",
        description="Metrics of runs side by side with their intervals, and paired tests of each against the first.",
        epilog="melanoma compare RUN_A RUN_B --html compare.html",
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="ids of runs; the first is the reference")
    parser.add_argument("--experiment", help="all finished runs of an experiment that have predictions, oldest first")
    parser.add_argument("--tag", metavar="KEY=VALUE", help="with --experiment: only runs with this tag")
    parser.add_argument("--part", default="test", choices=["test", "validation"], help="default: test")
    parser.add_argument("--common", action="store_true", help="compare on the images that all runs have in common")
    parser.add_argument("--html", metavar="FILE", help="write a page with tables and figures too")
    add_tracking_uri(parser)
    options = parser.parse_args(arguments)
    from melanoma.paths import user_path
    from melanoma.workflows.compare import CompareOptions, compare_runs

    compare_runs(
        CompareOptions(
            options.runs,
            experiment=options.experiment,
            tag=options.tag,
            part=options.part,
            common=options.common,
            html=None if options.html is None else user_path(options.html),
            uri=options.tracking_uri,
        )
    )
