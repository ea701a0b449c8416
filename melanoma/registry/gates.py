"""The gates of a promotion. Each is a function of what a run recorded; `melanoma.registry.evidence` applies them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from melanoma.config.command_schema import ChampionGateConfig, SubgroupGateConfig
from melanoma.evaluation.metrics import needs_both
from melanoma.evaluation.paired import Comparison
from melanoma.evaluation.subgroups import UNKNOWN, stored_metric
from melanoma.evaluation.texts import stored_text, with_bounds
from melanoma.lineage.protocol import Protocol
from melanoma.tracking.names import metrics_named

__all__ = [
    "Gate",
    "attempt_gate",
    "binary_task_gate",
    "champion_gate",
    "interval_gate",
    "limit_gates",
    "protocol_gate",
    "subgroup_gate",
]


@dataclass(frozen=True)
class Gate:
    """The result of one requirement of a promotion.

    Attributes:
        name: Name of the metric or of the requirement.
        passed: Whether the requirement is met.
        text: The measured and the required values.
    """

    name: str
    passed: bool
    text: str


def protocol_gate(protocol: Protocol, leaks: str | None) -> Gate:
    """Require a clean protocol, and that no test image is known to be a training image too."""
    text = str(protocol) + (f"; test images that training has seen: {leaks}" if leaks else "")
    return Gate("protocol", protocol.is_clean and not leaks, f"{text}; wanted clean")


def interval_gate(params: Mapping[str, str]) -> Gate:
    """Require intervals with at least 95% confidence and 200 resamples, and a subgroup minimum of at most 30 images.

    Args:
        params: Parameters of the run.
    """
    least = {"evaluation.confidence": 0.95, "evaluation.bootstrap": 200}
    found = {name: float(params.get(name, 0)) for name in (*least, "evaluation.subgroup_minimum")}
    passed = all(found[name] >= bound for name, bound in least.items()) and found["evaluation.subgroup_minimum"] <= 30
    text = f"{found['evaluation.confidence']:.1%} of {found['evaluation.bootstrap']:.0f} resamples, subgroups of at "
    text += f"least {found['evaluation.subgroup_minimum']:.0f} images; wanted at least 95%, 200 and at most 30"
    return Gate("intervals", passed, text)


def binary_task_gate(defined: Mapping[str, Sequence[str]], wanted: Mapping[str, Sequence[str]] | None) -> Gate | None:
    """Require the definitions of the run's binary tasks, on which floors of their metrics depend.

    Args:
        defined: The positive classes of each binary task of the run (`data.binary_tasks`).
        wanted: The required positive classes of each binary task; None for no requirement.

    Returns:
        The gate; None if `wanted` is None.
    """
    if wanted is None:
        return None
    differ = [name for name, labels in wanted.items() if set(defined.get(name) or ()) != set(labels)]
    shown = [f"{name}: {', '.join(defined.get(name) or ['not defined'])}" for name in differ or wanted]
    shown += [f"wanted {name}: {', '.join(wanted[name])}" for name in differ]
    return Gate("binary tasks", not differ, "; ".join(shown))


def attempt_gate(attempt: int, level: float) -> Gate | None:
    """Tell at which confidence level the other gates judge, from the second attempt on a test set; it always passes."""
    if attempt < 2:
        return None
    text = f"promotion attempt {attempt} on these test images, so that intervals are of {level:.2%} instead of 95%"
    return Gate("test set", True, f"{text}; a new test set begins at 95%")


def limit_gates(
    metrics: Mapping[str, float],
    floors: Mapping[str, float | None],
    ceilings: Mapping[str, float | None],
    scarce: Mapping[str, str],
) -> list[Gate]:
    """Compare the lower bound of each metric's interval with its floor, and the upper bound with its ceiling.

    A metric of the validation or test images fails without an interval, or with one of too few images, which runs of
    older versions have.

    Args:
        metrics: Metrics of the run, under the names of the tracking store.
        floors: Minimum of each metric; None for no requirement.
        ceilings: Maximum of each metric; None for no requirement.
        scarce: Metrics for which there are too few images, with the reason; see `scarcity`.
    """
    least = [_limit(metrics, name, bound, "low", scarce) for name, bound in floors.items() if bound is not None]
    most = [_limit(metrics, name, bound, "high", scarce) for name, bound in ceilings.items() if bound is not None]
    return least + most


def _limit(metrics: Mapping[str, float], name: str, bound: float, end: str, scarce: Mapping[str, str]) -> Gate:
    own = metrics_named(metrics, [name])
    side, sign = ("lower", ">=") if end == "low" else ("upper", "<=")
    of_interval = f"{side} end of its interval {sign} {bound:g}"
    if not math.isfinite(own.get(name, math.nan)):
        return Gate(name, False, f"not measured; wanted: {of_interval}")
    held, wanted = own.get(f"{name}_ci_{end}"), of_interval
    if name in scarce:
        return Gate(name, False, f"{own[name]:.3f} of {scarce[name]}; wanted: {wanted}")
    if held is None and name.startswith(("validation/", "test/")):
        return Gate(name, False, f"{own[name]:.3f} without an interval (too few images); wanted: {wanted}")
    if held is None:
        held, wanted = own[name], f"{sign} {bound:g}"
    # The interval may not contain the value itself; the stricter of the two decides.
    passed = min(held, own[name]) >= bound if end == "low" else max(held, own[name]) <= bound
    more = "" if passed else _more_images(own[name], held, bound, metrics.get("data/images/test"), name)
    return Gate(name, bool(passed), f"{stored_text(own, name)}; wanted: {wanted}{more}")


def _more_images(value: float, held: float, bound: float, images: float | None, name: str) -> str:
    """Return how many test images would narrow the interval enough; empty if the value itself is not good enough."""
    reached = value > bound if held < value else value < bound
    if not reached or images is None or not name.startswith("test/"):
        return ""
    # The width of an interval decreases with the square root of the number of images.
    needed = math.ceil(images * ((value - held) / (value - bound)) ** 2)
    return f"; {images:.0f} test images give {held - value:+.3f}, about {needed:,} would do if the value stays"


def subgroup_gate(table: pd.DataFrame, looked_at: Sequence[str], settings: SubgroupGateConfig) -> Gate | None:
    """Compare the lowest subgroup that is large enough to be assessed with a floor.

    A column that the data has, but that made no subgroups, fails.

    Args:
        table: `evaluation/subgroups.csv` of the run, with text values; empty without metadata.
        looked_at: The columns by which the run assessed subgroups (`evaluation.subgroups`).
        settings: The columns that the run must have assessed, the metric, and the floor of the lower bound of its
            interval.

    Returns:
        The gate; None if there is no floor.
    """
    if settings.floor is None:
        return None
    name = f"subgroups, {settings.metric}"
    left_out = [column for column in settings.columns if column not in looked_at]
    if left_out:
        return Gate(name, False, f"the run did not assess {', '.join(left_out)} (evaluation.subgroups)")
    if not len(table):
        return Gate(name, True, "no subgroup was assessed: no metadata")
    skipped = table[table.value == ""]
    if len(skipped):
        texts = [f"{column}: {why.removeprefix('no: ')}" for column, why in skipped[["column", "assessed"]].values]
        return Gate(name, False, f"subgroups were not assessed by {'; '.join(texts)}")
    assessed = table[(table.assessed == "yes") & (table.value != UNKNOWN)]
    metric = stored_metric(table, settings.metric)
    if len(assessed) and f"{metric}_ci_low" not in table and not needs_both(metric):
        return Gate(name, False, "not measured; wanted: a metric of evaluation/subgroups.csv, such as auc")
    lower = pd.to_numeric(assessed.get(f"{metric}_ci_low", pd.Series(dtype=float)), errors="coerce").dropna()
    if not len(lower):
        return Gate(name, True, "no subgroup was assessed: too few positive or negative images of each")
    worst = assessed.loc[lower.idxmin()]
    text = with_bounds(float(worst[metric]), lower.min(), float(worst[f"{metric}_ci_high"]))
    where = f"lowest of {len(lower)}: {worst['column']} {worst['value']}, {worst['images']} images"
    wanted = f"wanted: lower end of its interval >= {settings.floor:g}"
    return Gate(name, bool(lower.min() >= settings.floor), f"{text} ({where}); {wanted}")


def champion_gate(
    found: Iterable[Comparison], champion: str, settings: ChampionGateConfig, reason: str = "not measured on both"
) -> Gate | None:
    """Require non-inferiority to the champion within a margin, or superiority.

    The interval of the paired difference decides, not its p-value.

    Args:
        found: Paired comparisons of the candidate with the champion on the same test images.
        champion: Title of the champion, for the name of the gate.
        settings: The rule, the metric and the margin.
        reason: Why the metric was not compared, if it was not.

    Returns:
        The gate; None if the rule is `none`.
    """
    if settings.rule == "none":
        return None
    least = 0.0 if settings.rule == "superiority" else -settings.margin
    name = f"against {champion}, {settings.metric}"
    compared = next((one for one in found if one.metric == settings.metric), None)
    if compared is None:
        return Gate(name, False, f"not compared: {reason}")
    passed = compared.low > least if settings.rule == "superiority" else compared.low >= least
    sign = ">" if settings.rule == "superiority" else ">="
    size = f"{compared.difference:+.3f} [{compared.low:+.3f}, {compared.high:+.3f}], p = {compared.p_value:.3g}"
    test = f"({compared.test}); wanted for {settings.rule}: lower end of the difference {sign} {least:g}"
    return Gate(name, bool(passed), f"{size} {test}")
