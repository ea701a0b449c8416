"""The code version and the packages of a run."""

import subprocess
from functools import cache
from importlib.metadata import distributions

from melanoma.paths import project_root
from melanoma.tracking.names import Tag

__all__ = ["git_commit", "git_diff", "installed_packages"]

_MAX_DIFF = 5_000_000


def git_commit() -> dict[str, str]:
    """Return the commit of the project's checkout as tags; empty for an installed package."""
    commit = _git("rev-parse", "HEAD")
    return {Tag.COMMIT: commit.strip()} if commit else {}


def git_diff() -> str:
    """Return the diff to the commit and the names of untracked files.

    The text is empty for a clean working tree or an installed package.
    """
    untracked = _git("ls-files", "--others", "--exclude-standard")
    diff = _git("diff", "--binary", "--no-ext-diff", "HEAD")
    listed = "".join(f"# untracked: {line}\n" for line in untracked.splitlines())
    if len(diff) > _MAX_DIFF:
        listed += f"# cut after {_MAX_DIFF} of {len(diff)} characters\n"
    return listed + diff[:_MAX_DIFF]


@cache
def installed_packages() -> str:
    """Return all installed distributions, as lines `name==version`."""
    found = {d.name: d.version for d in distributions() if d.name}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items(), key=lambda item: item[0].lower()))


def _git(*arguments: str) -> str:
    root = project_root()
    if not (root / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=root,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
