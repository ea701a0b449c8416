"""Figures of probabilities: ROC, precision-recall, reliability, distributions of scores, and abstention."""

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma.evaluation.curves import Curve, curve
from melanoma.evaluation.evaluate import Evaluation, groups_of
from melanoma.evaluation.intervals import draws
from melanoma.evaluation.metrics import CALIBRATION_BINS, problems
from melanoma.evaluation.plots import BLUE, GREEN, GREY, ORANGE, plain
from melanoma.evaluation.uncertain import Abstention, abstention_curve

__all__ = [
    "abstention_figure",
    "precision_recall_figure",
    "reliability_figure",
    "roc_figure",
    "score_figure",
]

_BAND_RESAMPLES = 200
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000", GREY)
Points = Callable[[Curve], tuple[NDArray, NDArray]]


def roc_figure(evaluation: Evaluation, seed: int, thresholds: Mapping[str, float] | None = None) -> Figure | None:
    """ROC curves: of each question with two answers with its 95% band, and of each class against the rest.

    None where a single class occurs.

    Args:
        evaluation: of a part.
        seed: of the band's resamples.
        thresholds: operating point of each question, drawn on its curve.
    """

    def dress(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")

    figure = _curves(evaluation, seed, lambda c: (c.fpr, c.tpr), "auc", "AUC", dress)
    for axes, (prefix, (positive, scores)) in zip(
        figure.axes if figure else (), _asked(evaluation).items(), strict=False
    ):
        threshold = (thresholds or {}).get(_question(evaluation, prefix))
        if threshold is not None:
            tpr, fpr = (scores[positive] >= threshold).mean(), (scores[~positive] >= threshold).mean()
            axes.plot(fpr, tpr, "o", color=ORANGE, markersize=8, label=f"operating point ({tpr:.2f} at {1 - fpr:.2f})")
            axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def precision_recall_figure(evaluation: Evaluation, seed: int) -> Figure | None:
    """Precision-recall curves, laid out as the ROC curves."""

    def points(found: Curve) -> tuple[NDArray, NDArray]:
        tp, fp = found.true_positives[:, 1:], found.false_positives[:, 1:]
        return found.tpr[:, 1:], np.divide(tp, tp + fp, out=np.ones_like(tp), where=tp + fp > 0)

    def dress(axes: Axes) -> None:
        axes.set_xlabel("sensitivity (recall)")
        axes.set_ylabel("precision")

    return _curves(evaluation, seed, points, "average_precision", "AP", dress)


def reliability_figure(evaluation: Evaluation) -> Figure:
    """How often the predicted class is right, by the probability it was given (DeGroot & Fienberg 1983)."""
    confidence = evaluation.probabilities.max(axis=1)
    hit = evaluation.probabilities.argmax(axis=1) == evaluation.rows.target.to_numpy()
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = counts > 0
    said, right = (np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[used] for values in (confidence, hit))
    figure = Figure(figsize=(5.6, 6.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="calibrated")
    above.plot(said / counts[used], right / counts[used], color=BLUE, marker="o", label="model")
    above.set_ylabel("share that is right")
    above.set_xlim(0, 1)
    above.set_ylim(0, 1.02)
    above.legend(frameon=False, fontsize=9)
    above.set_title(f"{_named(evaluation)}: expected calibration error {evaluation.text_of('ece')}", fontsize=11)
    below.bar(edges[:-1], counts, width=1 / CALIBRATION_BINS, align="edge", color=BLUE, alpha=0.6)
    below.set_xlabel("probability of the predicted class")
    below.set_ylabel("images")
    _bare(above, below)
    return figure


def score_figure(evaluation: Evaluation) -> Figure:
    """Distribution of the score of positives and negatives, for each question with two answers."""
    asked = _asked(evaluation) or {
        "predicted class/": (_hits(evaluation), evaluation.probabilities.max(axis=1)),
    }
    figure = Figure(figsize=(5.6 * len(asked), 3.8), layout="constrained")
    for axes, (name, (positive, scores)) in zip(
        figure.subplots(1, len(asked), squeeze=False)[0], asked.items(), strict=True
    ):
        right, wrong = ("right", "wrong") if name == "predicted class/" else (_question(evaluation, name), "the rest")
        for chosen, label, colour in ((positive, right, ORANGE), (~positive, wrong, BLUE)):
            shown = f"{plain([label])[0]} (n={int(chosen.sum())})"
            dense = bool(chosen.any())  # no images have no density
            axes.hist(scores[chosen], np.linspace(0, 1, 26), density=dense, alpha=0.6, color=colour, label=shown)
        axes.set_xlabel("probability")
        axes.set_ylabel("density")
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(_named(evaluation), fontsize=11)
        _bare(axes)
    return figure


def abstention_figure(evaluation: Evaluation, chosen: Abstention) -> Figure:
    """Accuracy on the images that are kept, by the share that is left to a reader, with the share chosen."""
    targets = evaluation.rows.target.to_numpy()
    share, accuracy = abstention_curve(targets, evaluation.probabilities)
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(share, accuracy, color=BLUE, drawstyle="steps-post")
    found = chosen.measured(targets, evaluation.probabilities)
    if "accuracy" in found:
        text = (
            f"the least sure {chosen.share:.0%} of validation: {found['share']:.0%} here, {found['accuracy']:.3f} right"
        )
        axes.plot(found["share"], found["accuracy"], "o", color=ORANGE, markersize=8, label=text)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0.5, float(accuracy[share < 0.9].min()) - 0.05), 1.02)
    axes.set_xlabel("share of images left to a reader")
    axes.set_ylabel("accuracy on the others")
    axes.set_title(f"{_named(evaluation)}: abstention", fontsize=11)
    axes.grid(alpha=0.25)
    _bare(axes)
    return figure


def _curves(
    evaluation: Evaluation, seed: int, points: Points, metric: str, short: str, dress: Callable[[Axes], None]
) -> Figure | None:
    asked, targets = _asked(evaluation), evaluation.rows.target.to_numpy()
    if len(np.unique(targets)) < 2:
        return None
    per_class = len(evaluation.classes) > 2
    panels = len(asked) + per_class
    figure = Figure(figsize=(5.4 * panels + 2.2 * per_class, 5.2), layout="constrained")
    all_axes = list(figure.subplots(1, panels, squeeze=False)[0])
    rng = np.random.default_rng(seed)
    weights = draws(targets, groups_of(evaluation.rows), _BAND_RESAMPLES, rng)
    grid = np.linspace(0, 1, 201)
    for axes, (prefix, (positive, scores)) in zip(all_axes, asked.items(), strict=False):
        across, up = points(curve(positive, scores, weights))
        band = np.stack([np.interp(grid, a, u) for a, u in zip(across, up, strict=True)])
        low, high = np.nanquantile(band, [0.025, 0.975], axis=0)
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.18, linewidth=0)
        across, up = points(curve(positive, scores))
        value = evaluation.text_of(f"{prefix}{metric}")
        axes.plot(across[0], up[0], color=BLUE, label=f"{short} {value}")
        axes.set_title(
            f"{_named(evaluation)}: {plain([_question(evaluation, prefix)])[0]} (n={positive.sum()})", fontsize=11
        )
    if per_class:
        axes = all_axes[-1]
        for number, label in enumerate(evaluation.classes):
            if f"{metric}/{label}" in evaluation.metrics:
                across, up = points(curve(targets == number, evaluation.probabilities[:, number]))
                text = f"{plain([label])[0]}, {evaluation.metrics[f'{metric}/{label}']:.2f}"
                style = "-" if number < len(_COLOURS) else "--"
                colour = _COLOURS[number % len(_COLOURS)]
                axes.plot(across[0], up[0], style, color=colour, linewidth=1.3, label=text)
        axes.set_title(f"{_named(evaluation)}: each class against the rest, {short}", fontsize=11)
    for axes in all_axes:
        dress(axes)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
        axes.legend(frameon=False, fontsize=9, loc="best")
        _bare(axes)
    if per_class:  # too many lines to leave room inside
        all_axes[-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def _asked(evaluation: Evaluation) -> dict[str, tuple[NDArray[np.bool_], NDArray]]:
    """The questions that have both answers among the images."""
    targets = evaluation.rows.target.to_numpy()
    asked = problems(targets, evaluation.probabilities, evaluation.classes, evaluation.views)
    return {prefix: one for prefix, one in asked.items() if 0 < one[0].sum() < len(targets)}


def _question(evaluation: Evaluation, prefix: str) -> str:
    return prefix.rstrip("/") or evaluation.classes[1]


def _hits(evaluation: Evaluation) -> NDArray[np.bool_]:
    return evaluation.probabilities.argmax(axis=1) == evaluation.rows.target.to_numpy()


def _named(evaluation: Evaluation) -> str:
    return evaluation.part.capitalize()


def _bare(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
