"""Figures of probabilities: ROC, precision-recall and decision curves, reliability, scores, and abstention."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from melanoma.evaluation.calibration_line import smooth_calibration
from melanoma.evaluation.curves import Curve, curve
from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.intervals import bootstrap_weights
from melanoma.evaluation.metrics import CALIBRATION_BINS
from melanoma.evaluation.plots import BLUE, GREEN, GREY, ORANGE, escape_math
from melanoma.evaluation.predictions import BinaryTask
from melanoma.evaluation.proportions import mean_influence
from melanoma.evaluation.readers import Reader
from melanoma.evaluation.uncertain import Abstention, abstention_curve

__all__ = [
    "abstention_figure",
    "decision_figure",
    "line_style",
    "net_benefit",
    "precision_recall_figure",
    "readers_figure",
    "reliability_figure",
    "roc_figure",
    "score_figure",
]

_BAND_RESAMPLES = 200
_NAMED_READERS = 12
_COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000", GREY)
Points = Callable[[Curve], tuple[NDArray, NDArray]]


def roc_figure(evaluation: Evaluation, thresholds: Mapping[str, float] | None = None) -> Figure | None:
    """Plot ROC curves of each binary task, with a 95% confidence band, and of each class against the rest.

    Args:
        evaluation: Evaluation of a part.
        thresholds: Operating point of each binary task, drawn on its curve.

    Returns:
        The figure, or None if only one class occurs.
    """

    def dress(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")

    figure = _curves(evaluation, lambda c: (c.fpr, c.tpr), "auc", "AUC", dress)
    for axes, task in zip(figure.axes if figure else (), _drawn_tasks(evaluation), strict=False):
        threshold = (thresholds or {}).get(task.name)
        if threshold is not None:
            referred = task.scores >= threshold
            tpr, fpr = referred[task.positive].mean(), referred[~task.positive].mean()
            point = f"operating point: sensitivity {tpr:.2f}, specificity {1 - fpr:.2f}"
            axes.plot(fpr, tpr, "o", color=ORANGE, markersize=8, label=point)
            axes.legend(frameon=False, fontsize=9, loc="best")
    return figure


def readers_figure(task: BinaryTask, threshold: float, readers: Sequence[Reader]) -> Figure:
    """Plot the ROC curve of a model, with the sensitivity and specificity of readers, and their mean.

    Args:
        task: Scores of the model.
        threshold: Threshold of the model.
        readers: Calls of the readers.
    """
    figure = Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.subplots()
    found = curve(task.positive, task.scores)
    axes.plot(found.fpr[0], found.tpr[0], color=BLUE, linewidth=2, label=f"model, AUC {float(found.auc()[0]):.3f}")
    referred = task.scores >= threshold
    axes.plot(referred[~task.positive].mean(), referred[task.positive].mean(), "o", color=BLUE, markersize=9)
    points = np.array([(1 - one.specificity[0], one.sensitivity[0]) for one in readers])
    axes.plot(points[:, 0], points[:, 1], "o", color=ORANGE, markersize=5, label=f"{len(readers)} readers")
    mean, spread = points.mean(axis=0), points.std(axis=0, ddof=1) if len(readers) > 1 else np.zeros(2)
    x, y = (float(value) for value in mean)
    bars = "their mean, and one standard deviation"
    axes.errorbar(x, y, yerr=float(spread[1]), xerr=float(spread[0]), color="black", capsize=3, label=bars)
    if len(readers) <= _NAMED_READERS:
        for reader, point in zip(readers, points, strict=True):
            axes.annotate(escape_math([reader.name])[0], point, (4, 4), textcoords="offset points", fontsize=8)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.set_title(f"{escape_math([task.name])[0]}: the model and its operating point, and readers", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def precision_recall_figure(evaluation: Evaluation) -> Figure | None:
    """Plot precision-recall curves, with the same layout as `roc_figure`."""

    def points(found: Curve) -> tuple[NDArray, NDArray]:
        tp, fp = found.true_positives[:, 1:], found.false_positives[:, 1:]
        return found.tpr[:, 1:], np.divide(tp, tp + fp, out=np.ones_like(tp), where=tp + fp > 0)

    def dress(axes: Axes) -> None:
        axes.set_xlabel("sensitivity (recall)")
        axes.set_ylabel("precision")

    return _curves(evaluation, points, "average_precision", "AP", dress)


def reliability_figure(evaluation: Evaluation) -> Figure:
    """Plot the accuracy against the probability of the predicted class, and the share of positives of each task.

    The first panel has bins (DeGroot & Fienberg 1983). The others are smooth, with a pointwise 95% band over groups.
    """
    confidence = evaluation.probabilities.max(axis=1)
    hit = _hits(evaluation)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = counts > 0
    said, right = (np.bincount(bins, weights=values, minlength=CALIBRATION_BINS)[used] for values in (confidence, hit))
    tasks = [task for task in _drawn_tasks(evaluation) if task.has_both and np.ptp(task.scores) > 0]
    figure = Figure(figsize=(5.6 * (1 + len(tasks)), 6.4), layout="constrained")
    panels = figure.subplots(2, 1 + len(tasks), sharex=True, height_ratios=[3, 1], squeeze=False)
    above, below = panels[:, 0]
    above.plot(said / counts[used], right / counts[used], color=BLUE, marker="o", label="model")
    above.set_ylabel("accuracy")
    above.set_title(f"{_named(evaluation)}: expected calibration error {evaluation.text_of('ece')}", fontsize=11)
    below.bar(edges[:-1], counts, width=1 / CALIBRATION_BINS, align="edge", color=BLUE, alpha=0.6)
    below.set_xlabel("probability of the predicted class")
    for (smooth, histogram), task in zip(panels[:, 1:].T, tasks, strict=True):
        at, share, error = smooth_calibration(task.positive, task.scores, evaluation.predictions.group_numbers)
        smooth.plot(at, share, color=BLUE, label="model")
        smooth.fill_between(at, share - 1.96 * error, share + 1.96 * error, color=BLUE, alpha=0.2, linewidth=0)
        smooth.set_ylabel("share of positives")
        line = [f"{name} {evaluation.text_of(f'{task.prefix}calibration_{name}')}" for name in ("intercept", "slope")]
        smooth.set_title(f"{escape_math([task.name])[0]}\n{', '.join(line)}", fontsize=10)
        histogram.hist(task.scores, edges, color=BLUE, alpha=0.6)
        histogram.set_xlabel(f"probability of {escape_math([task.name])[0]}")
    for axes in panels[0]:
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="calibrated")
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.legend(frameon=False, fontsize=9)
    for axes in panels[1]:
        axes.set_ylabel("images")
    _bare(*panels.ravel())
    return figure


def decision_figure(evaluation: Evaluation) -> Figure | None:
    """Plot decision curves (Vickers & Elkin 2006): the net benefit of the model, and of referring all or none.

    At a threshold t, a false referral counts as t / (1 - t) of a positive that is found. The band is pointwise, over
    groups.

    Returns:
        The figure, or None if no binary task has both positives and negatives.
    """
    tasks = [task for task in _drawn_tasks(evaluation) if task.has_both]
    if not tasks:
        return None
    figure = Figure(figsize=(5.6 * len(tasks), 4.4), layout="constrained")
    thresholds = np.linspace(0.01, 0.6, 60)
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        share = float(task.positive.mean())
        curves = [net_benefit(task, evaluation.predictions.group_numbers, t) for t in thresholds]
        benefit, error = np.array(curves).T
        axes.plot(thresholds, benefit, color=BLUE, label="model")
        axes.fill_between(
            thresholds, benefit - 1.96 * error, benefit + 1.96 * error, color=BLUE, alpha=0.2, linewidth=0
        )
        axes.plot(thresholds, share - (1 - share) * thresholds / (1 - thresholds), color=GREY, label="refer all")
        axes.axhline(0, color=GREY, linestyle=":", label="refer none")
        axes.set_ylim(min(-0.05, -0.1 * share), share * 1.1 + 0.02)
        axes.set_xlim(0, 0.6)
        axes.set_xlabel("threshold of the probability")
        axes.set_ylabel("net benefit")
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(f"{_named(evaluation)}: {escape_math([task.name])[0]}, prevalence {share:.0%}", fontsize=11)
        _bare(axes)
    return figure


def net_benefit(task: BinaryTask, groups: NDArray[np.integer], threshold: float) -> tuple[float, float]:
    """Compute the net benefit of referring images with at least a probability, and its standard error over groups."""
    referred, weight = task.scores >= threshold, threshold / (1 - threshold)
    value, influence = mean_influence(referred * np.where(task.positive, 1.0, -weight), groups)
    return value, float(np.sqrt((influence**2).sum()))


def score_figure(evaluation: Evaluation) -> Figure:
    """Plot the score distributions of positives and negatives for each binary task."""
    tasks, named = _drawn_tasks(evaluation), True
    if not tasks:
        tasks, named = [BinaryTask("", "", _hits(evaluation), evaluation.probabilities.max(axis=1))], False
    figure = Figure(figsize=(5.6 * len(tasks), 3.8), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        labels = (task.name, "the rest") if named else ("right", "wrong")
        for chosen, label, colour in zip((task.positive, ~task.positive), labels, (ORANGE, BLUE), strict=True):
            shown = f"{escape_math([label])[0]} (n={int(chosen.sum())})"
            dense = bool(chosen.any())  # the density of zero images is not defined
            axes.hist(task.scores[chosen], np.linspace(0, 1, 26), density=dense, alpha=0.6, color=colour, label=shown)
        axes.set_xlabel("probability")
        axes.set_ylabel("density")
        axes.legend(frameon=False, fontsize=9)
        axes.set_title(_named(evaluation), fontsize=11)
        _bare(axes)
    return figure


def abstention_figure(evaluation: Evaluation, chosen: Abstention) -> Figure:
    """Plot the accuracy on the kept images against the share of abstentions, and mark the chosen share."""
    targets = evaluation.predictions.targets
    share, accuracy = abstention_curve(targets, evaluation.probabilities)
    figure = Figure(figsize=(6.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.plot(share, accuracy, color=BLUE, drawstyle="steps-post")
    found = chosen.measured(targets, evaluation.probabilities)
    if "accuracy" in found:
        text = f"{chosen.share:.0%} of validation: abstains on {found['share']:.0%}, accuracy {found['accuracy']:.3f}"
        axes.plot(found["share"], found["accuracy"], "o", color=ORANGE, markersize=8, label=text)
        axes.legend(frameon=False, fontsize=9, loc="lower right")
    axes.set_xlim(0, 1)
    axes.set_ylim(min(0.5, float(accuracy[share < 0.9].min()) - 0.05), 1.02)
    axes.set_xlabel("share of images on which the model abstains")
    axes.set_ylabel("accuracy on the other images")
    axes.set_title(f"{_named(evaluation)}: abstention", fontsize=11)
    axes.grid(alpha=0.25)
    _bare(axes)
    return figure


def _curves(
    evaluation: Evaluation, points: Points, metric: str, short: str, dress: Callable[[Axes], None]
) -> Figure | None:
    tasks, targets = _drawn_tasks(evaluation), evaluation.predictions.targets
    if len(np.unique(targets)) < 2:
        return None
    per_class = len(evaluation.classes) > 2
    panels = len(tasks) + per_class
    figure = Figure(figsize=(5.4 * panels + 2.2 * per_class, 5.2), layout="constrained")
    all_axes = list(figure.subplots(1, panels, squeeze=False)[0])
    rng = np.random.default_rng(0)
    weights = bootstrap_weights(targets, evaluation.predictions.groups, _BAND_RESAMPLES, rng)
    grid = np.linspace(0, 1, 201)
    for axes, task in zip(all_axes, tasks, strict=False):
        across, up = points(curve(task.positive, task.scores, weights))
        band = np.stack([np.interp(grid, a, u) for a, u in zip(across, up, strict=True)])
        low, high = np.nanquantile(band, [0.025, 0.975], axis=0)
        axes.fill_between(grid, low, high, color=BLUE, alpha=0.18, linewidth=0)
        across, up = points(curve(task.positive, task.scores))
        value = evaluation.text_of(f"{task.prefix}{metric}")
        axes.plot(across[0], up[0], color=BLUE, label=f"{short} {value}")
        axes.set_title(f"{_named(evaluation)}: {escape_math([task.name])[0]} (n={task.positive.sum()})", fontsize=11)
    if per_class:
        axes = all_axes[-1]
        for number, label in enumerate(evaluation.classes):
            if f"{metric}/{label}" in evaluation.metrics:
                across, up = points(curve(targets == number, evaluation.probabilities[:, number]))
                text = f"{escape_math([label])[0]}, {evaluation.metrics[f'{metric}/{label}']:.2f}"
                axes.plot(across[0], up[0], linewidth=1.3, label=text, **line_style(number))
        axes.set_title(f"{_named(evaluation)}: each class against the rest, {short}", fontsize=11)
    for axes in all_axes:
        dress(axes)
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.02)
        axes.legend(frameon=False, fontsize=9, loc="best")
        _bare(axes)
    if per_class:  # the legend is too large to fit inside the axes
        all_axes[-1].legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def line_style(number: int) -> dict[str, Any]:
    """Return the colour and the style of one of several curves; once all colours are used, the lines are dashed."""
    return {"color": _COLOURS[number % len(_COLOURS)], "linestyle": "-" if number < len(_COLOURS) else "--"}


def _drawn_tasks(evaluation: Evaluation) -> Sequence[BinaryTask]:
    """Return the binary tasks that have positives and negatives among the images."""
    return [task for task in evaluation.predictions.binary if task.has_both]


def _hits(evaluation: Evaluation) -> NDArray[np.bool_]:
    return evaluation.predictions.predicted == evaluation.predictions.targets


def _named(evaluation: Evaluation) -> str:
    return evaluation.part.capitalize()


def _bare(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
