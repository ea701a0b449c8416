"""Faults that show only when several keys are read together."""

from collections.abc import Callable, Sized
from math import inf
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma.audit.names import FINDINGS, named_findings

__all__ = [
    "audit_faults",
    "evaluate_faults",
    "promote_faults",
    "range_faults",
    "sweep_faults",
    "train_faults",
]

_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": (lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    "data.image_size": (lambda v: 8 <= v <= 2048, "from 8 to 2048 pixels"),
    "data.max_megapixels": (lambda v: 0 < v <= 178, "above 0 and at most 178, where Pillow refuses"),
    "data.max_quarantined": (lambda v: 0 <= v <= 1, "a share from 0 to 1"),
    "data.archive.max_files": (lambda v: v > 0, "at least 1"),
    "data.archive.max_gigabytes": (lambda v: v > 0, "above 0"),
    "audit.similarity": (lambda v: 0.5 <= v <= 1, "from 0.5 to 1"),
    "audit.odd.shorter_side": (lambda v: v >= 0, "at least 0"),
    "audit.odd.aspect": (lambda v: v >= 1, "at least 1"),
    "audit.odd.size_ratio": (lambda v: v >= 1, "at least 1"),
    "audit.odd.contrast": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "audit.odd.sharpness": (lambda v: v >= 0, "at least 0"),
    "audit.odd.dark": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "audit.odd.bright": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "split.fold": (lambda v: v >= 1, "at least 1, or null for all"),
    "split.folds": (lambda v: v >= 2, "at least 2"),
    "split.validation": (lambda v: 0 < v < 1, "a share between 0 and 1"),
    "split.test": (lambda v: 0 < v < 1, "a share between 0 and 1"),
    "model.epochs": (lambda v: v >= 1, "at least 1"),
    "model.warmup_epochs": (lambda v: v >= 0, "at least 0"),
    "model.finetune_factor": (lambda v: v > 0, "above 0"),
    "model.dropout": (lambda v: 0 <= v < 1, "a share from 0 to below 1"),
    "balance.images_per_class": (lambda v: v >= 1, "at least 1"),
    "balance.gamma": (lambda v: v >= 0, "at least 0"),
    "optimizer.learning_rate": (lambda v: 0 < v < inf, "above 0, and finite"),
    "optimizer.weight_decay": (lambda v: v >= 0, "at least 0"),
    "optimizer.clipnorm": (lambda v: v > 0, "above 0, or null"),
    "schedule.warmup_epochs": (lambda v: v >= 0, "at least 0"),
    "training.epochs": (lambda v: v >= 1, "at least 1"),
    "training.batch_size": (lambda v: v >= 1, "at least 1"),
    "training.early_stopping.patience": (lambda v: v >= 1, "at least 1, or null"),
    "training.early_stopping.min_delta": (lambda v: v >= 0, "at least 0"),
    "training.label_smoothing": (lambda v: 0 <= v < 1, "a share from 0 to below 1"),
    "training.ema": (lambda v: 0 < v < 1, "between 0 and 1, or null"),
    "augmentation.mix.mixup": (lambda v: v >= 0, "at least 0"),
    "augmentation.mix.cutmix": (lambda v: v >= 0, "at least 0"),
    "evaluation.bootstrap": (lambda v: v >= 0, "at least 0"),
    "evaluation.confidence": (lambda v: 0 < v < 1, "between 0 and 1"),
    "evaluation.batch_size": (lambda v: v >= 1, "at least 1"),
    "evaluation.operating_point.sensitivity": (lambda v: 0 < v <= 1, "above 0 and at most 1"),
    "evaluation.operating_point.cost_ratio": (lambda v: v > 0, "above 0"),
    "evaluation.operating_point.threshold": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "evaluation.coverage": (lambda v: 0 < v < 1, "a share between 0 and 1"),
    "evaluation.abstain": (lambda v: 0 <= v < 1, "a share from 0 to below 1"),
    "evaluation.subgroup_minimum": (lambda v: v >= 2, "at least 2"),
    "debug.train_batches": (lambda v: v >= 1, "at least 1, or null"),
    "batch_size": (lambda v: v >= 1, "at least 1"),
    "sweep.n_trials": (lambda v: v >= 1, "at least 1"),
    "sweep.seed": (lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    "sweep.startup_trials": (lambda v: v >= 0, "at least 0"),
    "sweep.max_failures": (lambda v: v >= 1, "at least 1, or null"),
    "registry.champion.margin": (lambda v: 0 <= v <= 1, "from 0 to 1"),
    "registry.subgroups.floor": (lambda v: 0 <= v <= 1, "from 0 to 1, or null"),
    "port": (lambda v: 0 <= v <= 65535, "from 0, for a free one, to 65535"),
    "launcher.workers": (lambda v: v >= 1, "at least 1"),
    "launcher.cpus": (lambda v: v >= 1, "at least 1"),
    "launcher.gpus": (lambda v: v >= 0, "at least 0"),
    "launcher.memory_gb": (lambda v: v >= 0, "at least 0"),
    "launcher.minutes": (lambda v: v >= 1, "at least 1"),
}

_TEXTS = (
    "data.path", "data.source.table", "data.metadata.path", "split.file", "split.column", "model.weights",
    "audit.output", "tracking.uri", "tracking.experiment", "run", "saved_model", "input", "output",
    "task", "host", "sweep.name", "sweep.resume", "sweep.storage", "launcher.address",
)  # fmt: skip
# Null in the YAML file that defines them, so that no type is known from there.
_UNTYPED = {"optimizer.clipnorm", "optimizer.weight_decay"}


def train_faults(config: DictConfig) -> list[str]:
    """Contradictions in a `melanoma train` configuration."""
    get = _reader(config)
    faults = [*range_faults(config), *_split_faults(get)]
    wanted, given = get("model.classes"), class_count(get("data.classes"))
    left_out = get("data.leave_out")
    if given is not None and isinstance(left_out, ListConfig):
        given -= len(left_out)
    if isinstance(wanted, int) and given is not None and wanted != given:
        faults.append(
            f"Model '{get('model.name')}' is for {wanted} classes and data '{get('data.name')}' has {given}: choose "
            f"another model, or other data. Received: model.classes={wanted}, data.classes of length {given}"
        )
    epochs, warmup = get("training.epochs"), get("model.warmup_epochs")
    if (
        _numbers(epochs, warmup)
        and epochs >= 1
        and warmup
        and warmup >= epochs
        and get("model.weights") not in (None, "none")
    ):
        faults.append(
            "model.warmup_epochs must leave epochs for the unfrozen network: fewer than training.epochs. "
            f"Received: model.warmup_epochs={warmup} training.epochs={epochs}"
        )
    if get("augmentation.mix.mixup") and get("augmentation.mix.cutmix"):
        faults.append(
            "Only one of mixup and cutmix can be on; set the other to 0. Received: augmentation.mix.mixup="
            f"{get('augmentation.mix.mixup')} augmentation.mix.cutmix={get('augmentation.mix.cutmix')}"
        )
    classes = get("data.classes")
    if isinstance(classes, ListConfig) and len(set(classes)) != len(classes):
        faults.append(f"data.classes must name each class once. Received: data.classes={list(classes)}")
    if get("training.strategy") == "multi_worker":
        faults.append(
            "Keras 3 does not train one model over several machines (keras issue 20585); spread trials or folds over "
            "them by launcher=ray or launcher=slurm, or use the GPUs of one machine by training.strategy=mirrored. "
            "Received: training.strategy=multi_worker"
        )
    answers = get("card.answers")
    if isinstance(answers, DictConfig):
        from melanoma.card.card import checklist_items

        unknown = [str(name) for name in answers if name not in checklist_items()]
        if unknown:
            faults.append(
                "card.answers names items of the model card's checklists: clear_derm_1 to clear_derm_25 and "
                f"tripod_ai_1 to tripod_ai_27. Received: {', '.join(unknown)}"
            )
    if given is not None and given < 2:
        faults.append(f"data.classes must be at least 2, or null for what the data holds. Received: {classes}")
    return faults


def audit_faults(config: DictConfig) -> list[str]:
    """Contradictions in a `melanoma audit` configuration."""
    faults = range_faults(config)
    unknown = [name for name in named_findings(config.audit.fail_on) if name not in FINDINGS]
    if unknown:
        faults.append(f"audit.fail_on names findings: any, {', '.join(FINDINGS)}. Received: {', '.join(unknown)}")
    return faults


def evaluate_faults(config: DictConfig) -> list[str]:
    """Contradictions in a `melanoma evaluate` configuration."""
    faults = range_faults(config)
    if (config.run is None) == (config.saved_model is None):
        faults.append(
            "One of run=RUN_ID and model=ADDRESS must be given, not both. "
            f"Received: run={config.run} model={config.saved_model}"
        )
    elif config.saved_model is not None and config.get("data") is None:
        faults.append("With model=ADDRESS the images must be named too, as in data=folder data.path=FOLDER")
    for key in ("test_time_augmentation", "calibration"):
        if config.evaluation[key] != "none":
            faults.append(
                f"evaluation.{key} is a part of the saved model, chosen when it is trained. "
                f"Received: evaluation.{key}={config.evaluation[key]}"
            )
    return faults


def promote_faults(config: DictConfig) -> list[str]:
    """Contradictions in a `melanoma promote` configuration."""
    faults, registry = range_faults(config), config.registry
    metric, errors = str(registry.metric), ("log_loss", "brier", "ece", "referrals_per_found", "missed_per_1000")
    if not metric.startswith("validation/"):
        faults.append(
            "registry.metric must be of the validation images: what the test set chooses, it no longer tests. "
            f"Received: registry.metric={metric}"
        )
    if metric.endswith(("_ci_low", "_ci_high")):
        faults.append(f"registry.metric is the metric itself, not an end of its interval. Received: {metric}")
    elif (metric.rsplit("/", 1)[-1] in errors) != (registry.direction == "minimize"):
        faults.append(
            f"registry.direction must be minimize for {', '.join(errors)}, and maximize for the others. "
            f"Received: registry.metric={metric} registry.direction={registry.direction}"
        )
    for key in ("champion", "subgroups"):
        if str(registry[key].metric).rsplit("/", 1)[-1] in errors:
            faults.append(
                f"registry.{key}.metric must be one of which more is better, such as auc. "
                f"Received: registry.{key}.metric={registry[key].metric}"
            )
    compared = str(registry.champion.metric)
    if compared.rsplit("/", 1)[-1] != "auc" and compared not in ("accuracy", "balanced_accuracy", "macro_f1", *errors):
        faults.append(
            "registry.champion.metric must be auc, QUESTION/auc, accuracy, balanced_accuracy or macro_f1. "
            f"Received: registry.champion.metric={compared}"
        )
    for kind in ("floors", "ceilings"):
        bounds = registry[kind] if isinstance(registry[kind], DictConfig) else {}  # the schema says so then
        for name, bound in bounds.items():
            if bound is not None and not _numbers(bound):
                faults.append(f"registry.{kind} are numbers, or null. Received: registry.{kind}={{{name}: {bound}}}")
    return faults


def sweep_faults(config: DictConfig) -> list[str]:
    """Contradictions in what `melanoma sweep` adds to the configuration."""
    faults, sweep = range_faults(config), config.sweep
    metrics, directions = as_list(sweep.metric), as_list(sweep.direction)
    if not 0 < len(metrics) <= 2 or len(set(metrics)) < len(metrics) or not all(isinstance(m, str) for m in metrics):
        faults.append(f"sweep.metric is the name of a metric, or a list of two. Received: sweep.metric={sweep.metric}")
    if len(directions) != len(metrics) or not set(directions) <= {"maximize", "minimize"}:
        faults.append(
            "sweep.direction must be maximize or minimize, one for each metric. "
            f"Received: sweep.direction={sweep.direction} sweep.metric={sweep.metric}"
        )
    if len(metrics) == 2 and sweep.sampler in ("tpe", "cmaes"):
        faults.append(f"Two metrics need sweep.sampler=nsga2, random or grid. Received: {sweep.sampler}")
    if len(metrics) == 2 and sweep.pruner != "none":
        faults.append(f"With two metrics no trial can be pruned. Received: sweep.pruner={sweep.pruner}")
    if sweep.sampler != "grid" and sweep.n_trials is None:
        faults.append("sweep.n_trials must be given: how many trials a search has. Received: null")
    if sweep.name is not None and sweep.resume is not None:
        faults.append(
            "Either sweep.name, of a new study, or sweep.resume, of one to go on with. "
            f"Received: sweep.name={sweep.name} sweep.resume={sweep.resume}"
        )
    return faults


def as_list(value: Any) -> list[Any]:
    """What is given as one or as a list."""
    return list(value) if isinstance(value, list | tuple | ListConfig) else [value]


def class_count(classes: Any) -> int | None:
    """The number of classes that `data.classes` fixes: a number, a list's length, or None."""
    if isinstance(classes, int) and not isinstance(classes, bool):
        return classes
    return len(classes) if isinstance(classes, Sized) and not isinstance(classes, str) else None


def _split_faults(get: Callable[[str], Any]) -> list[str]:
    faults = []
    validation, test = get("split.validation"), get("split.test")
    if _numbers(validation, test) and 0 < validation < 1 and 0 < test < 1 and validation + test >= 1:
        faults.append(
            "split.validation and split.test leave nothing to train on: they must add up to less than 1. "
            f"Received: split.validation={validation} split.test={test}"
        )
    method, protocol, file = get("split.method"), get("protocol"), get("split.file")
    if method in ("kfold", "leave_one_out_by"):
        if protocol in ("published", "both"):
            faults.append(
                "The published protocol divides the images once: use split=auto, official or holdout with it. "
                f"Received: protocol={protocol} split={method}"
            )
        if file is not None:
            faults.append(f"A split.file is one split, not folds. Received: split.file={file} split={method}")
    if file is not None and protocol in ("published", "both"):
        faults.append(
            "The published protocol divides the images after files were added, so that it takes no split.file. "
            f"Received: protocol={protocol} split.file={file}"
        )
    if file is not None and get("audit.exclude"):
        faults.append(
            "A split.file says which images are used, so that none can be excluded. "
            f"Received: split.file={file} audit.exclude={list(get('audit.exclude'))}"
        )
    if method == "leave_one_out_by" and get("split.column") is None:
        faults.append(
            "split=leave_one_out_by needs a metadata column, as in split.column=site. Received: split.column=null"
        )
    return faults


def range_faults(config: DictConfig) -> list[str]:
    """Values out of range and empty texts, whatever the command."""
    get = _reader(config)
    faults = [
        f"{key} must not be empty; is a shell variable unset? Received: {key}=" for key in _TEXTS if get(key) == ""
    ]
    for key, (fits, wanted) in _RANGES.items():
        value = get(key)
        untyped = key in _UNTYPED and value is not None and not _numbers(value)
        if untyped or (_numbers(value) and not fits(value)):
            faults.append(f"{key} must be {wanted}. Received: {key}={value}")
    return faults


def _numbers(*values: Any) -> bool:
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def _reader(config: DictConfig) -> Callable[[str], Any]:
    def get(key: str) -> Any:
        try:
            return OmegaConf.select(config, key)
        except OmegaConfBaseException:
            return None

    return get
