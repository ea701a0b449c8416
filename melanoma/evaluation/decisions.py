"""Decision rules on probabilities, which are fitted on the validation images and saved with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.operating_point import OperatingPoint, choose_operating_points
from melanoma.evaluation.predictions import Bootstrap, Predictions
from melanoma.evaluation.proportions import rate_interval
from melanoma.evaluation.uncertain import Abstention, PredictionSets, fit_abstention, fit_prediction_sets

__all__ = ["Decisions", "abstention_intervals", "decisions_from_metadata", "fit_decisions", "set_intervals"]


@dataclass(frozen=True)
class Decisions:
    """Fitted decision rules.

    Attributes:
        points: Operating point of each binary task.
        sets: Prediction sets; None for a model that was saved without them.
        abstention: Rule for abstention; None for a model that was saved without it.
    """

    points: list[OperatingPoint]
    sets: PredictionSets | None
    abstention: Abstention | None

    def metadata(self) -> dict[str, Any]:
        """Return the metadata to save with the model; see `decisions_from_metadata`."""
        return {
            "operating_points": {point.binary_task: point.threshold for point in self.points},
            "prediction_sets": None if self.sets is None else asdict(self.sets),
            "abstention": None if self.abstention is None else asdict(self.abstention),
        }


def fit_decisions(validation: Predictions, settings: EvaluationConfig) -> Decisions:
    """Fit the decision rules on the validation images."""
    return Decisions(
        choose_operating_points(validation, settings.operating_point),
        fit_prediction_sets(
            validation.targets, validation.probabilities, settings.coverage, per_class=settings.coverage_per_class
        ),
        fit_abstention(validation.probabilities, settings.abstain),
    )


def decisions_from_metadata(metadata: Mapping[str, Any]) -> Decisions:
    """Read the decision rules from the metadata of a saved model."""
    points = metadata.get("operating_points") or {}
    sets, abstention = metadata.get("prediction_sets"), metadata.get("abstention")
    return Decisions(
        [
            OperatingPoint(str(name), float(threshold), "chosen when the model was trained")
            for name, threshold in points.items()
        ],
        None if sets is None else PredictionSets(float(sets["coverage"]), _threshold_in(sets)),
        None if abstention is None else Abstention(float(abstention["share"]), float(abstention["threshold"])),
    )


def _threshold_in(sets: Mapping[str, Any]) -> float | list[float]:
    """Return the threshold of all classes together, or that of each class."""
    threshold = sets["threshold"]
    return [float(value) for value in threshold] if isinstance(threshold, list) else float(threshold)


def set_intervals(
    sets: PredictionSets, predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    """Compute intervals of the shares that `PredictionSets.measured` returns; see `rate_interval`."""
    members = sets.members(predictions.probabilities)
    covered = members[np.arange(len(predictions)), predictions.targets]
    everything = np.ones(len(predictions), bool)
    rates = {"coverage": (covered, everything), "single": (members.sum(axis=1) == 1, everything)}
    for c in predictions.present:
        rates[f"coverage/{predictions.classes[c]}"] = (covered, predictions.targets == c)
    return _intervals(rates, predictions, bootstrap)


def abstention_intervals(
    abstention: Abstention, predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    """Compute intervals of the shares that `Abstention.measured` returns; see `rate_interval`."""
    left = abstention.abstained(predictions.probabilities)
    right = predictions.predicted == predictions.targets
    rates = {"share": (left, np.ones(len(predictions), bool)), "accuracy": (right, ~left)}
    return _intervals(rates, predictions, bootstrap)


def _intervals(
    rates: Mapping[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]], predictions: Predictions, bootstrap: Bootstrap
) -> dict[str, tuple[float, float]]:
    if bootstrap.resamples < 1:
        return {}
    found = {
        name: rate_interval(*rate, predictions.group_numbers, bootstrap.confidence) for name, rate in rates.items()
    }
    return {name: ends for name, ends in found.items() if ends is not None}
