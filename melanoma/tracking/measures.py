"""All metrics of a run in one file, and the few of them that MLflow shows."""

import csv
import io
import json
from collections.abc import Mapping

from melanoma.evaluation.metrics import HEADLINES, LOGGED
from melanoma.tracking.names import stored_name

__all__ = ["BOUNDS", "SPREAD", "is_shown", "measures_csv", "measures_json", "read_measures", "with_bounds"]

BOUNDS = ("_ci_low", "_ci_high")
SPREAD = ("_mean", "_std")


def is_shown(name: str, primary: str) -> bool:
    """Return whether MLflow shows a metric by default.

    These are the overall metrics of each held-out part; the AUC, sensitivity and specificity of each binary task on the
    test images; the intervals of the primary metric, the accuracy and the AUC on these images; and, in a parent run,
    the spread over its folds and the inflation by the published protocol.

    Args:
        name: Name of the metric, with its part.
        primary: Name of the primary metric, without a part.
    """
    base = _without(name, BOUNDS)
    if base != name:
        return base in {f"test/{primary}", "test/accuracy", "test/auc"}
    part, _, rest = name.partition("/")
    if part in ("inflation", "internal"):
        return rest.removeprefix("test/") in {*HEADLINES, primary}
    if part not in ("validation", "test"):
        return False
    spread_of = _without(rest, SPREAD)
    if spread_of != rest:
        return spread_of == primary or (part == "test" and spread_of in HEADLINES)
    words = rest.split("/")
    if len(words) == 1:
        return rest in {*LOGGED, primary}
    decided = words[0] == "operating_point" and words[-1] in ("sensitivity", "specificity")
    return rest == primary or (part == "test" and (decided or (len(words) == 2 and words[1] == "auc")))


def measures_json(metrics: Mapping[str, float]) -> str:
    """Format metrics as JSON: for each name its `value`, and `ci_low` and `ci_high` if it has an interval."""
    return json.dumps(with_bounds(metrics), indent=1)


def measures_csv(metrics: Mapping[str, float]) -> str:
    """Format metrics as a table with the columns `metric`, `value`, `ci_low` and `ci_high`."""
    text = io.StringIO()
    table = csv.DictWriter(text, ["metric", "value", "ci_low", "ci_high"], lineterminator="\n")
    table.writeheader()
    table.writerows({"metric": name, **values} for name, values in with_bounds(metrics).items())
    return text.getvalue()


def read_measures(text: str) -> dict[str, float]:
    """Return the metrics and bounds of a text of `measures_json`, under the names of the tracking store."""
    found = {}
    for name, values in json.loads(text).items():
        found[stored_name(name)] = float(values["value"])
        for bound in BOUNDS:
            if bound[1:] in values:
                found[stored_name(f"{name}{bound}")] = float(values[bound[1:]])
    return found


def with_bounds(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return for each metric its `value`, and `ci_low` and `ci_high` if it has an interval."""
    found: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        base = _without(name, BOUNDS)
        key = name.removeprefix(base)[1:] if base != name and base in metrics else "value"
        found.setdefault(name if key == "value" else base, {})[key] = float(value)
    return found


def _without(name: str, ends: tuple[str, ...]) -> str:
    return next((name.removesuffix(end) for end in ends if name.endswith(end)), name)
