"""Checks for contradictions between keys of a command's configuration."""

from collections.abc import Callable, Sized
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from melanoma.auditing.names import FINDINGS, named_findings
from melanoma.config.fields import is_number

__all__ = [
    "audit_faults",
    "epoch_metric_faults",
    "evaluate_faults",
    "plan_faults",
    "promote_faults",
    "sweep_faults",
    "train_faults",
]


def train_faults(config: DictConfig) -> list[str]:
    """Return the contradictions in a `melanoma train` configuration."""
    get = _getter(config)
    faults = _split_faults(get)
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
        is_number(epochs, warmup)
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
    faults += epoch_metric_faults("training.monitor", get("training.monitor"), get("primary_metric"))
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
    """Return the contradictions in a `melanoma audit` configuration."""
    faults = []
    unknown = [name for name in named_findings(config.audit.fail_on) if name not in FINDINGS]
    if unknown:
        faults.append(f"audit.fail_on names findings: any, {', '.join(FINDINGS)}. Received: {', '.join(unknown)}")
    return faults


def plan_faults(config: DictConfig) -> list[str]:
    """Return the contradictions in a `melanoma plan` configuration."""
    return _split_faults(_getter(config))


def evaluate_faults(config: DictConfig) -> list[str]:
    """Return the contradictions in a `melanoma evaluate` configuration."""
    faults = []
    if (config.run is None) == (config.saved_model is None):
        faults.append(f"Give either run=RUN_ID or model=ADDRESS. Received: run={config.run} model={config.saved_model}")
    elif config.saved_model is not None and config.get("data") is None:
        faults.append("With model=ADDRESS the images must be named too, as in data=folder data.path=FOLDER")
    if config.recalibrate is not None and config.get("data") is None:
        faults.append(
            "recalibrate fits the model to images of another site, which must be named, as in data=folder "
            f"data.path=FOLDER. Received: recalibrate={config.recalibrate}"
        )
    for key in ("test_time_augmentation", "calibration"):
        if config.evaluation[key] != "none":
            faults.append(
                f"evaluation.{key} is a part of the saved model, chosen when it is trained. "
                f"Received: evaluation.{key}={config.evaluation[key]}"
            )
    return faults


def promote_faults(config: DictConfig) -> list[str]:
    """Return the contradictions in a `melanoma promote` configuration."""
    faults: list[str] = []
    registry = config.registry
    from melanoma.evaluation.metrics import PAIRED, is_error

    metric = None if registry.metric is None else str(registry.metric)
    if metric is not None and not metric.startswith("validation/"):
        name = metric.removeprefix("val/").removeprefix("test/")
        faults.append(
            "registry.metric must be of the validation images: selected on the test set, a model has an optimistic "
            f"test result. Did you mean 'validation/{name}'? Received: registry.metric={metric}"
        )
    if metric is not None and metric.endswith(("_ci_low", "_ci_high")):
        faults.append(f"registry.metric must be a metric, not a bound of its interval. Received: {metric}")
    elif metric is not None and registry.direction not in (None, "minimize" if is_error(metric) else "maximize"):
        faults.append(
            f"registry.direction must be {'minimize' if is_error(metric) else 'maximize'} for this metric. "
            f"Received: registry.metric={metric} registry.direction={registry.direction}"
        )
    for key in ("champion", "subgroups"):
        if is_error(str(registry[key].metric)):
            faults.append(
                f"registry.{key}.metric must be one of which more is better, such as auc. "
                f"Received: registry.{key}.metric={registry[key].metric}"
            )
    compared = str(registry.champion.metric)
    if compared.rsplit("/", 1)[-1] != "auc" and compared not in PAIRED and not is_error(compared):
        listed = ", ".join(name for name in PAIRED if not is_error(name))
        faults.append(
            f"registry.champion.metric must be {listed} or BINARY_TASK/auc. "
            f"Received: registry.champion.metric={compared}"
        )
    for kind in ("floors", "ceilings"):
        bounds = registry[kind] if isinstance(registry[kind], DictConfig) else {}  # the schema reports other types
        for name, bound in bounds.items():
            if bound is not None and not is_number(bound):
                faults.append(f"registry.{kind} are numbers, or null. Received: registry.{kind}={{{name}: {bound}}}")
    return faults


def sweep_faults(config: DictConfig) -> list[str]:
    """Return the contradictions in the keys that `melanoma sweep` adds to the configuration."""
    faults: list[str] = []
    sweep = config.sweep
    metrics = ["the primary metric"] if sweep.metric is None else as_list(sweep.metric)
    directions = as_list(sweep.direction)
    if not 0 < len(metrics) <= 2 or len(set(metrics)) < len(metrics) or not all(isinstance(m, str) for m in metrics):
        faults.append(f"sweep.metric is the name of a metric, or a list of two. Received: sweep.metric={sweep.metric}")
    fits = len(directions) == len(metrics) and set(directions) <= {"maximize", "minimize"}
    if sweep.direction is not None and not fits:
        faults.append(
            "sweep.direction must be maximize or minimize, one for each metric. "
            f"Received: sweep.direction={sweep.direction} sweep.metric={sweep.metric}"
        )
    if len(metrics) == 2 and sweep.sampler in ("tpe", "cmaes"):
        faults.append(f"Two metrics need sweep.sampler=nsga2, random or grid. Received: {sweep.sampler}")
    if len(metrics) == 2 and sweep.pruner != "none":
        faults.append(f"With two metrics no trial can be pruned. Received: sweep.pruner={sweep.pruner}")
    if sweep.pruning_metric is not None and not str(sweep.pruning_metric).startswith("val/"):
        faults += epoch_metric_faults("sweep.pruning_metric", sweep.pruning_metric, None)
    if sweep.sampler != "grid" and sweep.n_trials is None:
        faults.append("sweep.n_trials must be given for a search: the number of trials. Received: null")
    if sweep.name is not None and sweep.resume is not None:
        faults.append(
            "Give sweep.name for a new sweep or sweep.resume to continue one, not both. "
            f"Received: sweep.name={sweep.name} sweep.resume={sweep.resume}"
        )
    return faults


def epoch_metric_faults(key: str, value: Any, primary: Any) -> list[str]:
    """Return a fault if a key names a metric that is not measured after each epoch."""
    from melanoma.evaluation.metrics import EPOCH_METRICS

    known = [f"val/{name}" for name in dict.fromkeys([*EPOCH_METRICS, *([primary] if primary else [])])]
    if value is None or value in known:
        return []
    # Metrics after each epoch are named val/..., metrics of the final weights validation/...
    of_epoch = f"val/{str(value).removeprefix('validation/')}"
    hint = f" Did you mean '{of_epoch}', the metric after each epoch?" if of_epoch in known else ""
    return [f"{key} must be {', '.join(known[:-1])} or {known[-1]}.{hint} Received: {key}={value}"]


def as_list(value: Any) -> list[Any]:
    """Return a value as a list; a single value becomes a list of one."""
    return list(value) if isinstance(value, list | tuple | ListConfig) else [value]


def class_count(classes: Any) -> int | None:
    """Return the number of classes that `data.classes` sets, as a number or as a list; None if it sets none."""
    if isinstance(classes, int) and not isinstance(classes, bool):
        return classes
    return len(classes) if isinstance(classes, Sized) and not isinstance(classes, str) else None


def _split_faults(get: Callable[[str], Any]) -> list[str]:
    faults = []
    validation, test = get("split.validation"), get("split.test")
    if is_number(validation, test) and 0 < validation < 1 and 0 < test < 1 and validation + test >= 1:
        faults.append(
            "split.validation and split.test leave no training images: they must add up to less than 1. "
            f"Received: split.validation={validation} split.test={test}"
        )
    method, protocol, file = get("split.method"), get("protocol"), get("split.file")
    if get("seeds") is not None and protocol == "both":
        faults.append(
            "seeds and protocol=both are not combined: give seeds with protocol=clean and with protocol=published. "
            f"Received: seeds={get('seeds')} protocol=both"
        )
    if method in ("kfold", "leave_one_out_by"):
        if protocol in ("published", "both"):
            faults.append(
                "The published protocol uses one split, not folds: use split=auto, official or holdout with it. "
                f"Received: protocol={protocol} split={method}"
            )
        if file is not None:
            faults.append(f"A split.file is one split, not folds. Received: split.file={file} split={method}")
    if file is not None and protocol in ("published", "both"):
        faults.append(
            "The published protocol splits the images after augmented files are added, so it cannot use a split.file. "
            f"Received: protocol={protocol} split.file={file}"
        )
    if file is not None and get("audit.exclude"):
        faults.append(
            "A split.file decides which images are used, so audit.exclude cannot remove any. "
            f"Received: split.file={file} audit.exclude={list(get('audit.exclude'))}"
        )
    if method == "leave_one_out_by" and get("split.column") is None:
        faults.append(
            "split=leave_one_out_by needs a metadata column, as in split.column=site. Received: split.column=null"
        )
    return faults


def _getter(config: DictConfig) -> Callable[[str], Any]:
    def get(key: str) -> Any:
        try:
            return OmegaConf.select(config, key)
        except OmegaConfBaseException:
            return None

    return get
