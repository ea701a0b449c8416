"""How often the labels of a test set were looked at: by runs that were tested on it, comparisons and promotions."""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import mlflow
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException

from melanoma.tracking.names import Tag
from melanoma.tracking.run import with_retries

__all__ = ["Looks", "attempt_level", "looks_at", "note_attempt", "note_comparison"]


@dataclass(frozen=True)
class Looks:
    """Looks at one test set.

    Attributes:
        runs: Number of runs that were tested on it, with deleted ones.
        comparisons: Number of comparisons on it.
        candidates: IDs of the runs whose promotion was tried, in a dry run too, in the order of their first attempts.
    """

    runs: int
    comparisons: int
    candidates: tuple[str, ...]

    @property
    def total(self) -> int:
        """Number of looks."""
        return self.runs + self.comparisons + len(self.candidates)

    def __str__(self) -> str:
        counts = {"run": self.runs, "comparison": self.comparisons, "promotion attempt": len(self.candidates)}
        return ", ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items())


def looks_at(digest: str) -> Looks:
    """Count the looks at a test set in all experiments of the tracking store.

    Args:
        digest: Digest of the test images and their labels; see `RunRecord.digest`.
    """
    found: list[Run] = mlflow.search_runs(
        search_all_experiments=True,
        filter_string=f"dataset.digest = '{digest}'",
        run_view_type=ViewType.ALL,
        output_format="list",
        max_results=50_000,
    )
    tested = [run for run in found if "test/accuracy" in run.data.metrics]
    comparisons = sum(tag.startswith(Tag.COMPARED) for run in tested for tag in run.data.tags)
    # Runs of older versions have only the decision.
    tried = [run for run in tested if {Tag.TRIED, Tag.PROMOTION} & run.data.tags.keys()]
    tried.sort(key=lambda run: run.data.tags.get(Tag.TRIED, run.data.tags.get(f"{Tag.PROMOTION}.when", "")))
    return Looks(len(tested), comparisons, tuple(run.info.run_id for run in tried))


def attempt_level(attempt: int) -> float:
    """Return the confidence level at which a promotion attempt on a test set is judged.

    The first is judged by 95% intervals, of which 2.5% are above the truth. The errors of all attempts together are at
    most 5%: attempt k may use 5% / (k (k + 1)).

    Args:
        attempt: Number of the attempt, from 1.
    """
    return 1 - 0.1 / (attempt * (attempt + 1))


def note_comparison(run_id: str) -> None:
    """Note on a run that its test images were used for a comparison."""
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    with suppress(MlflowException):  # a deleted run, or a store that may only be read
        with_retries(mlflow.MlflowClient().set_tag, run_id, f"{Tag.COMPARED}{now}-{os.getpid()}", "compare")


def note_attempt(run_id: str, digest: str) -> int:
    """Note on a run that its promotion was tried, and return which run it is of those tried on its test images.

    Further attempts with the same run tell nothing new, and have the number of the first.

    Args:
        run_id: ID of the run.
        digest: Digest of its test images.
    """
    tried = looks_at(digest).candidates
    if run_id not in tried:
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        with_retries(mlflow.MlflowClient().set_tag, run_id, Tag.TRIED, now)
        return len(tried) + 1
    return tried.index(run_id) + 1
