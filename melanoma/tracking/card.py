"""The model card of a run, from what the run has recorded."""

import json
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import mlflow
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException

from melanoma.audit.names import FINDINGS
from melanoma.card.card import model_card, model_card_page
from melanoma.data.split import PARTS
from melanoma.evaluation.evaluate import stored_text
from melanoma.evaluation.skin_tone import ESTIMATED_TONE
from melanoma.tracking.run import Run, by_own_names, stored_name
from melanoma.tracking.store import recorded, recorded_table

__all__ = ["log_card"]

log = logging.getLogger("melanoma")

_OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auc", "average_precision", "log_loss", "brier", "ece")
_OF_QUESTIONS = ("auc", "partial_auc", "sensitivity_at_specificity_95", "specificity_at_sensitivity_95")
_METADATA = ("lesion", "patient", "age", "sex", "site", "skin_tone")
_FEW = 30  # test images of a class


def log_card(run: Run, *, trained_by: str | None = None) -> None:
    """Write `model_card.md` and `model_card.html` from what a run has logged so far.

    Args:
        run: that is under way, with its evaluation logged.
        trained_by: id of the run that trained the model, where `run` evaluates it on other images.
    """
    evaluated = mlflow.get_run(run.id)
    try:
        trained = mlflow.get_run(trained_by or run.id)
        config = yaml.safe_load(recorded(trained.info.run_id, "config/resolved.yaml"))
        split = recorded_table(trained.info.run_id, "data/split.csv")
    except MlflowException:
        config = None
    if config is None or split.empty:
        log.warning("No model card: the run that trained the model, or what it recorded, is not there. %s", trained_by)
        return
    facts = _facts(trained, evaluated, config, split)
    card = model_card(facts, (config.get("card") or {}).get("answers") or {})
    run.log_evidence(card, "model_card.md")
    run.log_text(model_card_page(card, f"Model card: {facts['model']} on {facts['task']}"), "model_card.html")


def _facts(trained: Any, evaluated: Any, config: Mapping[str, Any], split: pd.DataFrame) -> dict[str, Any]:
    run_id, tags, metrics = trained.info.run_id, trained.data.tags, trained.data.metrics
    external = evaluated.info.run_id != run_id
    classes = sorted(set(split.label[split.part == "train"]))
    delivered = split[split.parent == ""]
    counts = pd.crosstab(delivered.label, delivered.part).reindex(index=classes, columns=list(PARTS), fill_value=0)
    totals = {part: int(counts[part].sum()) for part in PARTS}
    subgroups, subgroup_metric = _subgroups(evaluated)
    names = _metric_names(metrics, classes, config["data"].get("views") or {})
    shown = {part: (by_own_names(metrics, [f"{part}/{name}" for name in names]), part) for part in PARTS[1:]}
    if external:
        others = by_own_names(evaluated.data.metrics, [f"test/{name}" for name in names])
        shown["other"] = (others, "test")
    columns = [
        {"title": "validation", "images": totals["validation"]},
        {"title": "test", "images": totals["test"]},
    ]
    if external:
        columns.append({"title": "other images", "images": int(evaluated.data.metrics.get("data/images/test", 0))})
    protocol = tags.get("melanoma.protocol", "unknown")
    other_protocol = evaluated.data.tags.get("melanoma.protocol", "unknown")
    leaks = tags.get("melanoma.known_leaks")
    grouped = bool((delivered[delivered.part == "test"].groupby("group").size() > 1).any())
    metadata = [column for column in _METADATA if column in _known_columns(split, evaluated)]
    data, evaluation, training = config["data"], config["evaluation"], config["training"]
    return {
        "run_id": run_id,
        "run_name": trained.info.run_name,
        "date": datetime.fromtimestamp(trained.info.start_time / 1000, UTC).date().isoformat(),
        "task": tags.get("melanoma.task", data["name"]),
        "protocol": protocol,
        "model": config["model"]["name"],
        "parameters": f"{int(trained.data.params.get('fit.parameters', 0)):,}",
        "image_size": data["image_size"],
        "resize": data["resize"],
        "classes": classes,
        "commit": f"commit `{tags['mlflow.source.git.commit']}`" if "mlflow.source.git.commit" in tags else "not known",
        "versions": _versions(run_id),
        "intended_use": (config.get("card") or {}).get("intended_use"),
        "data_name": data["name"],
        "data_path": data.get("path"),
        "synthetic": str(data["source"]["_target_"]).endswith("synthetic"),
        "fingerprint": tags.get("melanoma.data.fingerprint", "not known"),
        "images": {label: {part: int(counts.loc[label, part]) for part in PARTS} for label in classes},
        "totals": totals,
        "augmented": int(metrics.get("data/augmented", 0)),
        "removed": int(metrics.get("data/removed", 0)),
        "quarantined": int(metrics.get("data/quarantined", 0)),
        "audit": _audit(run_id),
        "split": config["split"],
        "split_hash": tags.get("melanoma.split.hash", "not known"),
        "leaks": f"Test images that stand in training or validation too: {leaks}."
        if leaks
        else "No test image, nor a copy or relation of one that is known, stands in training or validation.",
        "seed": config["seed"],
        "monitor": training["monitor"],
        "epochs": training["epochs"],
        "optimizer": str(config["optimizer"]["_target_"]).rsplit(".", 1)[-1],
        "balance": config["balance"]["name"],
        "pretrained": config["model"].get("weights") if config["model"].get("weights") not in (None, "none") else None,
        "confidence": f"{evaluation['confidence']:.0%}",
        "resamples": evaluation["bootstrap"],
        "calibration": evaluation.get("calibration", "none"),
        "views": _VIEWS.get(evaluation.get("test_time_augmentation", "none")),
        "grouped": grouped,
        "columns": columns,
        "results": [(name, [stored_text(m, f"{part}/{name}") for m, part in shown.values()]) for name in names],
        "remarks": evaluated.data.tags.get("melanoma.remarks", ""),
        "points": _points(evaluated),
        "sets": _numbers(evaluated.data.metrics, "test/prediction_set/", {"coverage": "{:.1%}", "size": "{:.2f}"})
        | {"wanted": _text(evaluation.get("coverage"), "{:.0%}")},
        "abstention": _numbers(evaluated.data.metrics, "test/abstention/", {"share": "{:.1%}", "accuracy": "{:.1%}"})
        | _numbers(metrics, "abstention/", {"threshold": "{:.3f}"})
        | {"wanted": _text(evaluation.get("abstain"), "{:.0%}")},
        "subgroups": subgroups,
        "subgroup_metric": subgroup_metric,
        "assessed": sum(one["assessed"] for one in subgroups),
        "worst": evaluated.data.tags.get("melanoma.worst_subgroup"),
        "metadata_columns": metadata,
        "tone_estimated": any(one["name"].startswith(ESTIMATED_TONE) for one in subgroups),
        "external": external,
        "seen": external and "seen_images" in other_protocol.split(","),
        "seen_unknown": external and other_protocol != "clean",
        "test_unused": "selected_on_test" not in protocol,
        "external_data": (evaluated.data.params.get("data.name"), evaluated.data.params.get("data.path")),
        "limits": _limits(protocol, leaks, counts, external, metadata),
        "fit_time": _fit_time(metrics, trained.data.params, tags),
    }


_VIEWS = {"flips": "4 mirrored views", "dihedral": "8 mirrored and turned views"}


def _limits(
    protocol: str, leaks: str | None, counts: pd.DataFrame, external: bool, metadata: Iterable[str]
) -> list[str]:
    few = [f"{label} ({count})" for label, count in counts.test.items() if count < _FEW]
    scarce = [f"{label} ({count})" for label, count in counts.train.items() if count < _FEW]
    found = {
        "The protocol was not clean; see above.": protocol != "clean",
        f"Known leaks into the test set: {leaks}.": bool(leaks),
        f"Few test images of: {', '.join(few)}. Their metrics hardly say anything.": bool(few),
        f"Few training images of: {', '.join(scarce)}.": bool(scarce),
        "Tested on a part of the data set it was trained on only; expect less elsewhere.": not external,
        "Lesions and patients are not known, so that several pictures of one may stand in more than one part.": not (
            {"lesion", "patient"} & set(metadata)
        ),
        "One seed: how much the result depends on it was not measured.": True,
    }
    return [text for text, applies in found.items() if applies]


def _metric_names(metrics: Mapping[str, float], classes: Iterable[str], views: Iterable[str]) -> list[str]:
    ours = [
        *_OVERALL,
        *(_OF_QUESTIONS[1:] if f"test/{_OF_QUESTIONS[1]}" in metrics else ()),
        *(f"{question}/{name}" for question in sorted(views) for name in _OF_QUESTIONS),
        *(f"sensitivity/{label}" for label in classes),
        *(f"specificity/{label}" for label in classes),
    ]
    return [name for name in ours if any(stored_name(f"{part}/{name}") in metrics for part in PARTS[1:])]


def _points(run: Any) -> list[dict[str, str]]:
    found = []
    for point in _json(run.info.run_id, "evaluation/operating_points.json").get("points", []):
        test = point.get("test", {})
        found.append(
            {
                "question": point["question"],
                "rule": point["rule"],
                "threshold": f"{point['threshold']:.4f}",
                "sensitivity": _text(test.get("sensitivity"), "{:.3f}"),
                "specificity": _text(test.get("specificity"), "{:.3f}"),
                "referrals": _text(test.get("referrals_per_found"), "{:.1f}"),
                "missed": _text(test.get("missed_per_1000"), "{:.0f}"),
            }
        )
    return found


def _subgroups(run: Any) -> tuple[list[dict[str, Any]], str]:
    table = recorded_table(run.info.run_id, "evaluation/subgroups.csv")
    if not len(table):
        return [], ""
    metric = next(
        (name for name in table if name.endswith("/auc") and f"{name}_ci_low" in table),
        "auc" if "auc" in table else "accuracy",
    )
    found = []
    for row in table.to_dict("records"):
        values = {name: float(value) for name, value in row.items() if name.startswith(metric) and value != ""}
        assessed = row["assessed"] == "yes" and metric in values
        text = stored_text(values, metric) if assessed else "not assessed: too few images"
        found.append(
            {"name": f"{row['column']}: {row['value']}", "images": row["images"], "text": text, "assessed": assessed}
        )
    return found, metric


def _audit(run_id: str) -> dict[str, Any]:
    counts = _json(run_id, "data/audit.json").get("counts", {})
    found = [f"{counts[name]} {what}" for name, what in FINDINGS.items() if counts.get(name)]
    return {"images": counts.get("images", 0), "found": found}


def _known_columns(split: pd.DataFrame, evaluated: Any) -> set[str]:
    subgroups = {name.split("/")[2] for name in evaluated.data.metrics if name.startswith("test/subgroup/")}
    return set(split.columns) | subgroups


def _fit_time(metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str]) -> str:
    if "fit/seconds" not in metrics:
        return "Time: not known."
    where = f"{params.get('fit.device', 'not known')}, host {tags.get('melanoma.host', 'not known')}"
    return f"Training took {metrics['fit/seconds'] / 60:.1f} minutes ({where})."


def _versions(run_id: str) -> str:
    lines = recorded(run_id, "environment/requirements.txt").splitlines()
    wanted = ("melanoma", "tensorflow", "keras")
    python = lines[0].removeprefix("# ") if lines else "not known"
    return ", ".join([python, *(line for line in lines if line.split("==")[0] in wanted)])


def _numbers(metrics: Mapping[str, float], prefix: str, formats: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(metrics.get(f"{prefix}{name}"), how) for name, how in formats.items()}


def _text(value: float | None, how: str) -> str:
    return "not known" if value is None else how.format(value)


def _json(run_id: str, path: str) -> dict[str, Any]:
    text = recorded(run_id, path)
    return dict(json.loads(text)) if text else {}
