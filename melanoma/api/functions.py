"""Functions of the Python API, one for each command.

They check their arguments as the commands do, and raise the errors that the commands print (`melanoma.errors`). What is
slow to import is imported when a function is called.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from melanoma.api.results import AuditReport, ComparedRuns, Model, Run, Sweep
from melanoma.errors import ConfigError
from melanoma.paths import user_path

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities.model_registry import ModelVersion
    from omegaconf import DictConfig

P = ParamSpec("P")
T = TypeVar("T")

_LOCK = RLock()

__all__ = ["audit", "compare", "evaluate", "load", "predict", "promote", "sweep", "train"]


def _one_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """Let calls from several threads wait for each other, because Hydra and MLflow have one state per process."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        with _LOCK:
            return function(*args, **kwargs)

    return call


@_one_at_a_time
def train(*, data: str | Path | None = None, model: str | None = None, **keys: Any) -> Run:
    """Train a classifier, evaluate it on validation and test images, and log all of it to MLflow.

    Args:
        data: Name of a data configuration, such as `isic9`, or a folder or a .zip with one folder per class. Drawn
            lesions if it is None.
        model: Name of a model configuration, such as `m1`.
        keys: Configuration groups and keys of `melanoma train`, such as `seed=1`, `epochs=5` or
            `**{"split.test": 0.3}`.

    Returns:
        The run; the parent run of a cross-validation or of two protocols.

    Raises:
        MelanomaError: If the configuration or the images have faults, or if the training fails.
    """
    from melanoma.config.schema import TrainConfig
    from melanoma.workflows.checks import train_faults

    words = _words({"data": data, "model": model}, keys)
    config, overrides = _composed("train", TrainConfig, words, train_faults)
    from melanoma.workflows.train import train as run_training

    with _quiet_results():
        result = run_training(config, overrides, _folder("train"))
    return Run(result.run_id, _tracking_uri(), _command("train", words))


@_one_at_a_time
def sweep(*, data: str | Path | None = None, model: str | Sequence[str] | None = None, **keys: Any) -> Sweep:
    """Train many variants and rank them by the primary metric on validation.

    Args:
        data: See `train`.
        model: Name of a model configuration, or several.
        keys: Configuration groups and keys of `melanoma sweep`. A list of values varies a key, such as
            `**{"optimizer.learning_rate": [1e-3, 1e-4]}`; a list as a value is a text such as `"[a,b]"`.

    Returns:
        The sweep, with its trials and the best run.

    Raises:
        MelanomaError: If the configuration or the images have faults, or if trials fail.
    """
    from melanoma.sweeps.plan import read_plan

    varied = {key: _values(value) for key, value in keys.items()}
    several = model if model is None or isinstance(model, str) else ",".join(model)
    words = _words({"data": data, "model": several}, varied)
    plan = read_plan(words)
    from melanoma.sweeps.sweep import run_sweep

    with _quiet_results():
        run_id = run_sweep(plan, _folder("sweep"))
    return Sweep(run_id, _tracking_uri(), _command("sweep", words))


@_one_at_a_time
def evaluate(model: "Run | str", *, data: str | Path | None = None, **keys: Any) -> Run:
    """Evaluate a saved model, without the images that it was trained or tuned on, and log it as a new run.

    Args:
        model: A run or its ID, or the address of a registered version, such as `models:/melanoma-isic9@champion`.
        data: See `train`; None for the test images of the run.
        keys: Configuration keys of `melanoma evaluate`.

    Raises:
        MelanomaError: If the model does not exist, or if the images do not fit it.
    """
    from melanoma.config.command_schema import EvaluateConfig
    from melanoma.workflows.checks import evaluate_faults

    address = str(model)
    key = "run" if ":" not in address and "/" not in address else "model"
    words = _words({key: address, "data": data, "tracking.uri": getattr(model, "uri", None)}, keys)
    config, overrides = _composed("evaluate", EvaluateConfig, words, evaluate_faults, {"model": "saved_model"})
    from melanoma.workflows.evaluate import evaluate_saved

    with _quiet_results():
        result = evaluate_saved(config, overrides, _folder("evaluate"))
    return Run(result.run_id, _tracking_uri(), _command("evaluate", words))


@_one_at_a_time
def load(model: "Run | str", *, tracking_uri: str | None = None) -> Model:
    """Load a saved model with its preprocessing and thresholds, after a check of its hashes.

    Args:
        model: See `evaluate`.
        tracking_uri: URI of the MLflow store; None for the default.

    Raises:
        ModelError: If the model does not exist or was changed after logging.
    """
    from melanoma.terminal import quiet_native_imports
    from melanoma.tracking.store import open_store

    with quiet_native_imports():
        from melanoma.serving.package import load_classifier

    open_store(tracking_uri or getattr(model, "uri", None))
    return Model(load_classifier(str(model)))


@_one_at_a_time
def predict(
    model: "Run | Model | str", images: str | Path | Sequence[str | Path], *, tracking_uri: str | None = None
) -> "pd.DataFrame":
    """Predict image files.

    Args:
        model: A model of `load`, or what `load` accepts.
        images: An image, a folder, a glob pattern, or a list of images.
        tracking_uri: URI of the MLflow store; None for the default.

    Returns:
        One row per image: `path`, `predicted`, `score`, `probability/<class>`, for each binary task `score/<task>` and
        `referred/<task>`, and `error` for a file that cannot be read.

    Raises:
        DataError: If no file is found.
        ModelError: See `load`.
    """
    loaded = model if isinstance(model, Model) else load(model, tracking_uri=tracking_uri)
    return loaded.predict(images)


@_one_at_a_time
def compare(
    *runs: "Run | str | Sequence[Run | str]", part: str = "test", common: bool = False, tracking_uri: str | None = None
) -> ComparedRuns:
    """Compare runs on the same images: metrics with intervals, and paired tests of each run against the first.

    Args:
        runs: Runs or their IDs, or a list of them, the reference first.
        part: `test` or `validation`.
        common: Whether to compare on the images that all runs have in common.
        tracking_uri: URI of the MLflow store; None for the default.

    Raises:
        ModelError: If a run does not exist or has no predictions.
        DataError: If the runs have other images or classes.
    """
    from melanoma.workflows.compare import CompareOptions, compare_runs

    given = [one for run in runs for one in ([run] if isinstance(run, Run | str) else run)]
    uri = tracking_uri or next((run.uri for run in given if isinstance(run, Run)), None)
    ids = list(dict.fromkeys(map(str, given)))
    with _quiet_results():
        found = compare_runs(CompareOptions(ids, part=part, common=common, uri=uri))
    return ComparedRuns([Run(run_id, _tracking_uri()) for run_id in ids], part, found)


@_one_at_a_time
def promote(*, experiment: str | None = None, run: "Run | str | None" = None, **keys: Any) -> "ModelVersion | None":
    """Make the best run of an experiment the champion of the model registry, if it passes the gates.

    Args:
        experiment: Name of the MLflow experiment.
        run: A run or its ID; None for the best run of the experiment.
        keys: Configuration groups and keys of `melanoma promote`, such as `registry="isic9"`.

    Returns:
        The version that became the champion; None for a dry run, or if the run is already the champion.

    Raises:
        PromotionRefused: If the run failed a gate; the message has the reasons.
        MelanomaError: If there is no such run.
    """
    from melanoma.config.command_schema import PromoteConfig
    from melanoma.config.launch import typed
    from melanoma.workflows.checks import promote_faults

    named = {"tracking.experiment": experiment, "run": None if run is None else str(run)}
    config, _ = _composed("promote", PromoteConfig, _words(named, keys), promote_faults)
    from melanoma.terminal import log_to_terminal, quiet_native_imports
    from melanoma.tracking.store import open_store, store_errors

    log_to_terminal()
    settings: PromoteConfig = typed(PromoteConfig, config)
    uri = open_store(settings.tracking.uri or getattr(run, "uri", None))
    with quiet_native_imports():
        from melanoma.registry.promote import promote as run_promotion
    with store_errors():
        return run_promotion(settings, uri)


@_one_at_a_time
def audit(data: str | Path, **keys: Any) -> AuditReport:
    """Find duplicates, contradicting labels, leaks and damaged files in a data set.

    Args:
        data: See `train`.
        keys: Configuration keys of `melanoma audit`, such as `**{"audit.output": "report"}`.

    Raises:
        MelanomaError: If there are no images, or if the report cannot be written.
        AuditFailed: If there is a finding that `audit.fail_on` lists.
    """
    from melanoma.config.command_schema import AuditCommandConfig
    from melanoma.workflows.checks import audit_faults

    words = _words({"data": data}, keys)
    config, overrides = _composed("audit", AuditCommandConfig, words, audit_faults)
    from melanoma.workflows.audit import audit_data

    folder = _folder("audit")
    with _quiet_results():
        found = audit_data(config, overrides, folder)
    output = config.audit.output
    return AuditReport(found, folder if output is None else Path(output).expanduser())


def _composed(
    command: str, schema: type, words: list[str], checks: Any, rename: Mapping[str, str] | None = None
) -> "tuple[DictConfig, list[str]]":
    from melanoma.config.launch import composed

    return composed(command, schema, words, checks=checks, rename=rename)


def _words(named: Mapping[str, Any], keys: Mapping[str, Any]) -> list[str]:
    """Return the arguments of the command line that say the same; `named` parameters that are None are left out."""
    words = []
    for key, value in {**{key: value for key, value in named.items() if value is not None}, **keys}.items():
        if key == "data" and not isinstance(value, str | Path):
            raise ConfigError([f"data must be a name, or a folder or .zip file. Received: data={value!r}"])
        if key == "data" and _is_path(value):
            words += ["data=folder", f"data.path={_quoted(str(user_path(str(value)).absolute()))}"]
        else:
            words.append(f"{key}={_text(value)}")
    return words


def _is_path(data: str | Path) -> bool:
    from melanoma.paths import conf_dir

    if isinstance(data, Path) or "/" in data or data.lower().endswith(".zip"):
        return True
    return not (conf_dir() / "data" / f"{data}.yaml").is_file() and Path(data).is_dir()


def _values(value: Any) -> Any:
    """Write the values of a key of a sweep; a text is one value, also if it has commas."""
    if isinstance(value, str):
        return _quoted(value)
    return ",".join(_text(_quoted(one) if isinstance(one, str) else one) for one in value) if _is_list(value) else value


def _quoted(text: str) -> str:
    """Quote a text with commas, which separate the values of a sweep; a list or a dictionary is left as it is."""
    from melanoma.config.arguments import quoted

    return quoted(text) if "," in text and not text.startswith(("[", "{", "'", '"')) else text


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _text(value: Any) -> str:
    """Write a value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{_item(key)}: {_item(one)}' for key, one in value.items())}}}"
    if _is_list(value):
        return f"[{','.join(map(_item, value))}]"
    return str(value)


def _item(value: Any) -> str:
    """Write a value inside a list or a dictionary; a text with other characters than those of a name is quoted."""
    from melanoma.config.arguments import quoted

    return quoted(value) if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_][\w/.-]*", value) else _text(value)


def _command(name: str, words: Sequence[str]) -> str:
    return shlex.join(["melanoma", name, *words])


def _folder(command: str) -> Path:
    from melanoma.paths import outputs_dir

    return outputs_dir() / command / f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"


def _tracking_uri() -> str:
    import mlflow

    return str(mlflow.get_tracking_uri())


@contextmanager
def _quiet_results() -> Iterator[None]:
    """Print no tables, because the returned object shows them."""
    from melanoma.terminal import out

    before, out().quiet = out().quiet, True
    try:
        yield
    finally:
        out().quiet = before
