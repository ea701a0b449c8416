"""Logging of several seeds to their parent run."""

from collections.abc import Mapping

import pandas as pd

from melanoma.evaluation.metrics import headlines
from melanoma.evaluation.plots import seeds_figure
from melanoma.evaluation.seeds import OverSeeds
from melanoma.evaluation.texts import named_bounds
from melanoma.tracking.measures import BOUNDS, SPREAD
from melanoma.tracking.names import Artifact, Tag
from melanoma.tracking.run import Run

__all__ = ["log_seeds"]


def log_seeds(
    run: Run,
    measures: Mapping[int, Mapping[str, float]],
    by_part: Mapping[str, Mapping[str, OverSeeds]],
    images: Mapping[str, int],
) -> None:
    """Log the mean and the standard deviation over the seeds, the intervals, a table, a figure and a description.

    Args:
        run: Parent run.
        measures: All measures of each seed, by seed.
        by_part: Metrics over the seeds, by part.
        images: Number of images of each part.
    """
    table = pd.DataFrame.from_dict({seed: dict(own) for seed, own in measures.items()}, orient="index")
    table = table[[name for name in table if not name.endswith(BOUNDS)]].dropna(axis="columns")
    run.log_text(table.to_csv(index_label="seed"), Artifact.SEED_METRICS)
    # Those of the folds of one seed have no spread of their own.
    spread = table[[name for name in table if not name.endswith(SPREAD)]].std(ddof=1)
    named = {**table.mean(), **{f"{name}_std": value for name, value in spread.items()}}
    for part, metrics in by_part.items():
        for name, one in metrics.items():
            if one.both is not None and one.sampling is not None:
                named |= named_bounds(f"{part}/{name}", *one.both)
                named |= named_bounds(f"same_seeds/{part}/{name}", *one.sampling)
    run.log_measures({str(name): float(value) for name, value in named.items()} | {"seeds": len(measures)})
    test = by_part["test"]
    shown = [name for name in headlines(run.primary) if name in test]
    run.log_figure(seeds_figure({name: test[name] for name in shown}, list(measures), images["test"]), "seeds")
    lines = [f"{len(measures)} seeds on the same {images['test']} test images.", ""]
    lines += ["| metric | mean [interval] | for these seeds only | standard deviation |", "|---|---|---|---|"]
    for name in shown:
        cells = [*test[name].texts(), f"{test[name].std:.3f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    run.set_tags({Tag.NOTE: "\n".join(lines)})
