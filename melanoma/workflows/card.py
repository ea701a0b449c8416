"""Logging of the model card of an active run."""

import logging

from melanoma.card.card import model_card, model_card_page
from melanoma.card.gather import facts_of
from melanoma.terminal import stage
from melanoma.tracking.names import Artifact
from melanoma.tracking.records import NotRecorded, RunRecord
from melanoma.tracking.run import Run

__all__ = ["log_card"]

log = logging.getLogger("melanoma")

_FIGURES = {
    "confusion_matrix_normalized": "Confusion matrix of the test images",
    "roc": "ROC curves of the test images",
    "reliability": "Calibration on the test images",
}


@stage("Writing the model card")
def log_card(run: Run, *, trained_by: str | None = None) -> None:
    """Log `model_card.md` and `model_card.html` from the records of a run so far.

    Args:
        run: Run that has logged its evaluation.
        trained_by: ID of the run that trained the model, if `run` evaluates it on other images.
    """
    run.save_measures()  # the card reads them from the record
    evaluated = RunRecord.read(run.id)
    try:
        trained = evaluated if trained_by is None else RunRecord.read(trained_by)
        facts = facts_of(trained, evaluated)
    except NotRecorded as error:
        log.warning("No model card: %s", error)
        return
    answers = (trained.config.get("card") or {}).get("answers") or {}
    card = model_card(facts, answers)
    run.log_evidence(card, Artifact.MODEL_CARD)
    figures = {caption: url for name, caption in _FIGURES.items() if (url := evaluated.figure(name))}
    page = model_card_page(card, f"Model card: {facts.model} on {facts.task}", figures)
    run.log_text(page, Artifact.MODEL_CARD_PAGE)
