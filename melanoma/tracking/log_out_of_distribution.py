"""Logging of out-of-distribution scores: the share of flagged images, a warning, and a figure."""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.ood_plot import ood_figure
from melanoma.evaluation.predictions import Bootstrap
from melanoma.evaluation.proportions import rate_interval
from melanoma.evaluation.texts import named_bounds
from melanoma.tracking.run import Run

__all__ = ["log_out_of_distribution"]

log = logging.getLogger("melanoma")

_MORE = 2.0  # times the expected share, from which the share of flagged images is remarked on


def log_out_of_distribution(
    run: Run,
    evaluations: Sequence[Evaluation],
    expected: float,
    bootstrap: Bootstrap,
    pixels: Callable[[pd.DataFrame], NDArray[np.uint8]] | None = None,
) -> None:
    """Log `<part>/out_of_distribution/share`, the share of flagged images, and warn if more are flagged than expected.

    Args:
        run: Run to log to.
        evaluations: Evaluation of each part.
        expected: Share of the images that are flagged if they are like the training images.
        bootstrap: Confidence level of the intervals.
        pixels: Function that returns the pixels of some rows, for a figure of the test images; None for no figure.
    """
    for evaluation in evaluations:
        if evaluation.ood_scores is None:
            continue
        flagged = evaluation.ood_scores > 1
        name, share = f"{evaluation.part}/out_of_distribution/share", float(flagged.mean())
        ends = None
        if bootstrap.resamples > 0:
            groups = evaluation.predictions.group_numbers
            ends = rate_interval(flagged, np.ones(len(flagged), bool), groups, bootstrap.confidence)
        run.log_measures({name: share} | ({} if ends is None else named_bounds(name, *ends)))
        if evaluation.part != "test":
            continue
        if ends is not None and ends[0] > _MORE * expected:
            text = (
                f"{share:.1%} [{ends[0]:.1%}, {ends[1]:.1%}] of the test images are unlike the training images, where "
                f"{expected:.1%} are expected: the model may not be made for such images (see "
                f"{'figures/out_of_distribution.png' if pixels is not None else 'ood_score in the predictions'})"
            )
            log.warning("%s", text)
            run.add_note(f"{text}.")
        if pixels is not None and run.figures:
            run.log_figure(ood_figure(evaluation.rows, evaluation.ood_scores, pixels), "out_of_distribution")
