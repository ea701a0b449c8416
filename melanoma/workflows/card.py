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
    run.log_text(model_card_page(card, f"Model card: {facts.model} on {facts.task}"), Artifact.MODEL_CARD_PAGE)
