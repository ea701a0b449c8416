"""Collection of the facts of a model card from the records of runs."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import Any

import pandas as pd

from melanoma.auditing.names import FINDINGS
from melanoma.card.facts import CardFacts, Column, Point, SubgroupRow
from melanoma.data.split import PARTS
from melanoma.evaluation.calibration_line import CALIBRATION_MEASURES
from melanoma.evaluation.metrics import REPORTED
from melanoma.evaluation.skin_tone import ESTIMATED_TONE
from melanoma.evaluation.subgroups import stored_metric
from melanoma.evaluation.texts import stored_text, with_bounds
from melanoma.lineage.protocol import Shortcut
from melanoma.tracking.looks import looks_at
from melanoma.tracking.names import Artifact, Tag, stored_name
from melanoma.tracking.records import RunRecord, class_names_in

__all__ = ["facts_of"]

_OF_BINARY_TASKS = (
    "auc",
    "partial_auc",
    "sensitivity_at_specificity_95",
    "specificity_at_sensitivity_95",
    *CALIBRATION_MEASURES,
)
_METADATA = ("lesion", "patient", "age", "sex", "site", "skin_tone")
_FEW = 30  # images per class
_AVERAGES = {"flips": "4 mirrored copies", "dihedral": "8 mirrored and turned copies"}
_UNKNOWN = "not known"


def facts_of(trained: RunRecord, evaluated: RunRecord) -> CardFacts:
    """Collect the facts of a model card.

    Args:
        trained: The run that trained the model, with its configuration and split.
        evaluated: The same run, or a run that evaluated the model on other images.

    Raises:
        ModelError: If the trained run has no configuration or no split, or if these files were changed after logging.
    """
    external = evaluated.id != trained.id
    delivered = trained.split[trained.split.parent == ""]
    metadata = [column for column in _METADATA if column in _known_columns(trained.split, evaluated)]
    counts = _counts(trained.split)
    return CardFacts(
        **_model_facts(trained),
        **_data_facts(trained, counts),
        **_training_facts(trained),
        **_result_facts(trained, evaluated, counts),
        **_decision_facts(trained, evaluated),
        **_subgroup_facts(evaluated),
        **_external_facts(evaluated, external),
        grouped=bool((delivered[delivered.part == "test"].groupby("group").size() > 1).any()),
        metadata_columns=metadata,
        limits=_limits(trained, counts, external, metadata) + _looks(evaluated),
    )


def _model_facts(trained: RunRecord) -> dict[str, Any]:
    config, tags = trained.config, trained.tags
    return {
        "run_id": trained.id,
        "run_name": trained.name,
        "date": datetime.fromtimestamp(trained.run.info.start_time / 1000, UTC).date().isoformat(),
        "task": tags.get(Tag.TASK, config["data"]["name"]),
        "protocol": str(trained.protocol),
        "model": config["model"]["name"],
        "parameters": f"{int(trained.params.get('fit.parameters', 0)):,}",
        "image_size": config["data"]["image_size"],
        "resize": config["data"]["resize"],
        "classes": _classes(trained.split),
        "commit": f"commit `{tags[Tag.COMMIT]}`" if Tag.COMMIT in tags else _UNKNOWN,
        "versions": _versions(trained),
        "intended_use": (config.get("card") or {}).get("intended_use"),
    }


def _data_facts(trained: RunRecord, counts: pd.DataFrame) -> dict[str, Any]:
    data, metrics = trained.config["data"], trained.metrics
    audit = trained.json(Artifact.AUDIT).get("counts", {})
    leaks = trained.tags.get(Tag.KNOWN_LEAKS)
    return {
        "data_name": data["name"],
        "data_path": data.get("path"),
        "synthetic": str(data["source"]["_target_"]).endswith("synthetic"),
        "fingerprint": trained.tags.get(Tag.FINGERPRINT, _UNKNOWN),
        "images": {label: {part: int(counts.loc[label, part]) for part in PARTS} for label in counts.index},
        "totals": {part: int(counts[part].sum()) for part in PARTS},
        "augmented": int(metrics.get("data/augmented", 0)),
        "removed": int(metrics.get("data/removed", 0)),
        "quarantined": int(metrics.get("data/quarantined", 0)),
        "audit_images": audit.get("images", 0),
        "audit_found": [f"{audit[name]} {what}" for name, what in FINDINGS.items() if audit.get(name)],
        "split": trained.config["split"],
        "split_hash": trained.tags.get(Tag.SPLIT_HASH, _UNKNOWN),
        "leaks": f"Test images that are also in training or validation: {leaks}."
        if leaks
        else "No test image, and no known copy or other image of its lesion or patient, is in training or validation.",
        "test_unused": Shortcut.SELECTED_ON_TEST not in trained.protocol,
    }


def _training_facts(trained: RunRecord) -> dict[str, Any]:
    config, weights = trained.config, trained.config["model"].get("weights")
    return {
        "seed": config["seed"],
        "monitor": config["training"]["monitor"],
        "primary_metric": trained.tags.get(Tag.PRIMARY_METRIC, "auc"),
        "positive": _positive(trained),
        "epochs": int(trained.metrics.get("fit/epochs", config["training"]["epochs"])),
        "optimizer": str(config["optimizer"]["_target_"]).rsplit(".", 1)[-1],
        "balance": config["balance"]["name"],
        "pretrained": None if weights in (None, "none") else weights,
        "fit_time": _fit_time(trained),
    }


def _result_facts(trained: RunRecord, evaluated: RunRecord, counts: pd.DataFrame) -> dict[str, Any]:
    evaluation, external = trained.config["evaluation"], evaluated.id != trained.id
    names = _metric_names(trained, list(counts.index))
    columns = [Column(part, int(counts[part].sum())) for part in PARTS[1:]]
    shown = [(trained.metrics_named(*(f"{part}/{name}" for name in names)), part) for part in PARTS[1:]]
    if external:
        columns.append(Column("other images", int(evaluated.metrics.get("data/images/test", 0))))
        shown.append((evaluated.metrics_named(*(f"test/{name}" for name in names)), "test"))
    measured, of_level = evaluated.metrics, "other images" if external else "test"
    for level in ("lesion", "patient"):
        part = f"test/per_{level}"
        if f"{part}/{level}s" in measured:
            columns.append(Column(f"{of_level} per {level}", int(measured[f"{part}/{level}s"]), f"{level}s"))
            shown.append((evaluated.metrics_named(*(f"{part}/{name}" for name in names)), part))
    return {
        "confidence": f"{evaluation['confidence']:.0%}",
        "resamples": evaluation["bootstrap"],
        "calibration": evaluation.get("calibration", "none"),
        "averaged_over": _AVERAGES.get(evaluation.get("test_time_augmentation", "none")),
        "columns": columns,
        "results": [(name, [stored_text(metrics, f"{part}/{name}") for metrics, part in shown]) for name in names],
        "remarks": evaluated.tags.get(Tag.REMARKS, ""),
        "findings": trained.tags.get(Tag.FINDINGS, "").splitlines(),
    }


def _decision_facts(trained: RunRecord, evaluated: RunRecord) -> dict[str, Any]:
    evaluation, metrics = trained.config["evaluation"], evaluated.metrics
    each = " for each class" if evaluation.get("coverage_per_class") else ""
    flagged = metrics.get("test/out_of_distribution/share")
    return {
        "points": _points(evaluated),
        "sets": _texts(metrics, "test/prediction_set/", {"coverage": "{:.1%}", "size": "{:.2f}"})
        | {"wanted": _text(evaluation.get("coverage"), "{:.0%}" + each)},
        "abstention": _texts(metrics, "test/abstention/", {"share": "{:.1%}", "accuracy": "{:.1%}"})
        | _texts(trained.metrics, "abstention/", {"threshold": "{:.3f}"})
        | {"wanted": _text(evaluation.get("abstain"), "{:.0%}")},
        "ood": None
        if flagged is None
        else {"share": f"{flagged:.1%}", "wanted": _text(evaluation.get("out_of_distribution"), "{:.1%}")},
    }


def _subgroup_facts(evaluated: RunRecord) -> dict[str, Any]:
    subgroups, metric = _subgroups(evaluated.subgroups)
    return {
        "subgroups": subgroups,
        "subgroup_metric": metric,
        "worst": evaluated.tags.get(Tag.WORST_SUBGROUP),
        "tone_estimated": any(one.name.startswith(ESTIMATED_TONE) for one in subgroups),
    }


def _external_facts(evaluated: RunRecord, external: bool) -> dict[str, Any]:
    return {
        "external": external,
        "seen": external and Shortcut.SEEN_IMAGES in evaluated.protocol,
        "seen_unknown": external and not evaluated.protocol.is_clean,
        "external_name": evaluated.params.get("data.name"),
        "external_path": evaluated.params.get("data.path"),
        "recalibrated": _recalibrated_on(evaluated),
    }


def _recalibrated_on(evaluated: RunRecord) -> int:
    return int(evaluated.metrics["data/images/validation"]) if "recalibration/slope" in evaluated.metrics else 0


def _positive(trained: RunRecord) -> dict[str, list[str]]:
    """Return the positive classes of each binary task. With two classes, the second is positive."""
    classes = class_names_in(trained.predictions())
    return {classes[1]: [classes[1]]} if len(classes) == 2 else trained.binary_tasks


def _classes(split: pd.DataFrame) -> list[str]:
    return sorted(set(split.label[split.part == "train"]))


def _counts(split: pd.DataFrame) -> pd.DataFrame:
    """Count the delivered images by class (rows) and part (columns)."""
    delivered = split[split.parent == ""]
    counts = pd.crosstab(delivered.label, delivered.part)
    return counts.reindex(index=_classes(split), columns=list(PARTS), fill_value=0)


def _limits(trained: RunRecord, counts: pd.DataFrame, external: bool, metadata: Iterable[str]) -> list[str]:
    leaks, corrections = trained.tags.get(Tag.KNOWN_LEAKS), trained.config["data"].get("corrections")
    few = [f"{label} ({count})" for label, count in counts.test.items() if count < _FEW]
    scarce = [f"{label} ({count})" for label, count in counts.train.items() if count < _FEW]
    found = {
        "The protocol was not clean; see above.": not trained.protocol.is_clean,
        f"Known leaks into the test set: {leaks}.": bool(leaks),
        f"Few test images of: {', '.join(few)}. Their metrics are very uncertain.": bool(few),
        f"Few training images of: {', '.join(scarce)}.": bool(scarce),
        "Tested only on the training images' own data set; results on others are usually worse.": not external,
        "Lesions and patients are not known, so that images of one may be in more than one part.": not (
            {"lesion", "patient"} & set(metadata)
        ),
        f"Labels were changed or images excluded by {corrections} (`data.corrections`), also in the test set. If a "
        "model suggested them, the test result is optimistic.": corrections is not None,
        "One seed: how much the result depends on it is not known from this run (`seeds=5` measures it).": True,
    }
    return [text for text, applies in found.items() if applies]


def _looks(evaluated: RunRecord) -> list[str]:
    """Return how often the test images were looked at, with this run, if it is not the first look."""
    digest = evaluated.digest("test")
    looks = None if digest is None else looks_at(digest)
    if looks is None or looks.total < 2:
        return []
    return [
        f"Look {looks.total} at these test images in this tracking store: {looks}. What earlier looks led to is fitted "
        "to these images."
    ]


def _metric_names(trained: RunRecord, classes: Iterable[str]) -> list[str]:
    metrics = trained.metrics
    names = [
        *REPORTED,
        *(_OF_BINARY_TASKS[1:] if f"test/{_OF_BINARY_TASKS[1]}" in metrics else ()),
        *(f"{task}/{name}" for task in sorted(trained.binary_tasks) for name in _OF_BINARY_TASKS),
        *(f"sensitivity/{label}" for label in classes),
        *(f"specificity/{label}" for label in classes),
    ]
    return [name for name in names if any(stored_name(f"{part}/{name}") in metrics for part in PARTS[1:])]


def _points(evaluated: RunRecord) -> list[Point]:
    found = []
    for point in evaluated.json(Artifact.OPERATING_POINTS).get("points", []):
        test = point.get("test", {})
        found.append(
            Point(
                # Runs of older versions use the key `question`.
                binary_task=point["binary_task"] if "binary_task" in point else point["question"],
                rule=point["rule"],
                threshold=f"{point['threshold']:.4f}",
                sensitivity=_text(test.get("sensitivity"), "{:.3f}"),
                specificity=_text(test.get("specificity"), "{:.3f}"),
                referrals=_text(test.get("referrals_per_found"), "{:.1f}"),
                missed=_text(test.get("missed_per_1000"), "{:.0f}"),
            )
        )
    return found


def _subgroups(table: pd.DataFrame) -> tuple[list[SubgroupRow], str]:
    """Return a row for each subgroup, and the metric of the rows."""
    if not len(table):
        return [], ""
    metric = stored_metric(table)
    found = []
    for row in table.to_dict("records"):
        values = {name: float(value) for name, value in row.items() if name.startswith(metric) and value != ""}
        assessed = row["assessed"] == "yes" and metric in values
        text = stored_text(values, metric) if assessed else f"not assessed: {row['assessed'].removeprefix('no: ')}"
        value, low, high = (float(row.get(f"difference/{metric}{end}") or "nan") for end in ("", "_ci_low", "_ci_high"))
        difference = with_bounds(value, low, high, sign="+") if isfinite(value) else ""
        name = f"{row['column']}: {row['value']}" if row["value"] else row["column"]
        found.append(SubgroupRow(name, row["images"], text, difference, assessed))
    return found, metric


def _known_columns(split: pd.DataFrame, evaluated: RunRecord) -> set[str]:
    subgroups = {name.split("/")[2] for name in evaluated.metrics if name.startswith("test/subgroup/")}
    return set(split.columns) | subgroups


def _fit_time(trained: RunRecord) -> str:
    if "fit/seconds" not in trained.metrics:
        return "Time: not known."
    where = f"{trained.params.get('fit.device', _UNKNOWN)}, host {trained.tags.get(Tag.HOST, _UNKNOWN)}"
    return f"Training took {trained.metrics['fit/seconds'] / 60:.1f} minutes ({where})."


def _versions(trained: RunRecord) -> str:
    lines = trained.optional_text(Artifact.REQUIREMENTS).splitlines()
    wanted = ("melanoma", "tensorflow", "keras")
    python = lines[0].removeprefix("# ") if lines else _UNKNOWN
    return ", ".join([python, *(line for line in lines if line.split("==")[0] in wanted)])


def _texts(metrics: Mapping[str, float], prefix: str, formats: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(metrics.get(f"{prefix}{name}"), how) for name, how in formats.items()}


def _text(value: float | None, how: str) -> str:
    return _UNKNOWN if value is None else how.format(value)
