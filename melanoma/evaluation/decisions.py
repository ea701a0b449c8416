"""How probabilities become decisions: all of it is fitted on validation, and kept with the model."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from melanoma.config.schema import EvaluationConfig
from melanoma.evaluation.evaluate import Evaluation
from melanoma.evaluation.operating_point import OperatingPoint, chosen_points
from melanoma.evaluation.uncertain import Abstention, PredictionSets, fitted_abstention, fitted_sets

__all__ = ["Decisions", "fitted_decisions", "stored_decisions"]


@dataclass(frozen=True)
class Decisions:
    """What was fitted.

    Attributes:
        points: the operating point of each question with two answers.
        sets: prediction sets; None for a model that was saved without.
        abstention: which images are left to a reader; None as above.
    """

    points: list[OperatingPoint]
    sets: PredictionSets | None
    abstention: Abstention | None

    def metadata(self) -> dict[str, Any]:
        """As kept with the model; see `stored_decisions`."""
        return {
            "operating_points": {point.question: point.threshold for point in self.points},
            "prediction_sets": None if self.sets is None else asdict(self.sets),
            "abstention": None if self.abstention is None else asdict(self.abstention),
        }


def fitted_decisions(validation: Evaluation, settings: EvaluationConfig) -> Decisions:
    """Choose on the validation images."""
    targets, probabilities = validation.rows.target.to_numpy(), validation.probabilities
    return Decisions(
        chosen_points(targets, probabilities, validation.classes, validation.views, settings.operating_point),
        fitted_sets(targets, probabilities, settings.coverage),
        fitted_abstention(probabilities, settings.abstain),
    )


def stored_decisions(metadata: Mapping[str, Any]) -> Decisions:
    """Those kept with a saved model."""
    points = metadata.get("operating_points") or {}
    sets, abstention = metadata.get("prediction_sets"), metadata.get("abstention")
    return Decisions(
        [
            OperatingPoint(str(question), float(threshold), "chosen when the model was trained")
            for question, threshold in points.items()
        ],
        None if sets is None else PredictionSets(float(sets["coverage"]), float(sets["threshold"])),
        None if abstention is None else Abstention(float(abstention["share"]), float(abstention["threshold"])),
    )
