"""`melanoma runs`."""

import argparse

from melanoma.commands.options import add_tracking_uri

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """List the runs that are not over, or end those whose process died."""
    parser = argparse.ArgumentParser(
        prog="melanoma runs",
        description="List the runs that are running, dead or interrupted, with the commands that resume them; or end "
        "the dead ones as KILLED, with their unfinished models, and remove their checkpoints and what killed processes "
        "left in the cache.",
        epilog="A run is dead if its process is gone, or, on another machine, without a sign of life for 10 minutes.",
    )
    parser.add_argument("action", choices=("list", "clean"), nargs="?", default="list")
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="clean: only these, also interrupted ones and of older versions"
    )
    parser.add_argument("--dry-run", action="store_true", help="clean: only say what would be ended")
    add_tracking_uri(parser)
    options = parser.parse_args(arguments)
    if options.action == "list" and (options.runs or options.dry_run):
        parser.error("only `clean` takes runs and --dry-run")
    from melanoma.workflows.runs import clean_runs, show_runs

    if options.action == "list":
        show_runs(options.tracking_uri)
    else:
        clean_runs(options.tracking_uri, options.runs, dry_run=options.dry_run)
