"""A configuration with faults: one message with all of them, exit code 2, at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from melanoma import __version__
from melanoma.config import renamed
from melanoma.config.launch import composed
from melanoma.config.schema import TrainConfig


@pytest.fixture
def melanoma(tmp_path: Path):
    """Run a command where TensorFlow, Keras and MLflow cannot be imported; returns exit code, output and errors."""
    for name in ("tensorflow", "keras", "mlflow"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('{name} was imported')", encoding="utf-8")

    def run(*arguments: str) -> tuple[int, str, str]:
        result = subprocess.run(
            [sys.executable, "-m", "melanoma", *arguments],
            env=os.environ | {"PYTHONPATH": str(tmp_path), "MELANOMA_CACHE_DIR": str(tmp_path / "cache")},
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert "Traceback" not in result.stderr
        assert "was imported" not in result.stderr
        return result.returncode, result.stdout, result.stderr

    return run


def test_a_key_whose_default_needs_a_missing_value_is_a_key(tmp_path: Path):
    """The default of data.name is made from data.path, which the sets that need a path do not have yet."""
    words = ["data=folder", "data.name=mine", f"data.path={tmp_path}"]
    assert composed("train", TrainConfig, words)[0].data.name == "mine"


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        (
            "train modell=m3 model=m4 training.batchsize=3 optimizer.learning_rate=fast data=isic9 training.epochs=0 "
            "split.validation=0.7 split.test=0.5",
            [
                "There is no model named 'm4'. Choices: backbone, binary150,",
                "There is no key 'modell'. Did you mean 'model'?",
                "There is no key 'training.batchsize'. Did you mean 'training.batch_size'?",
                "optimizer.learning_rate: Value 'fast'",
                "data.path must be given",
                "training.epochs must be at least 1. Received: training.epochs=0",
                "they must add up to less than 1. Received: split.validation=0.7 split.test=0.5",
            ],
        ),
        (
            "train model=binary150 data=isic9 data.path=/x model.filters=3 model.dropout=1.0",
            [
                "Model 'binary150' is for 2 classes and data 'isic9' has 9",
                "model.filters must be of type a list, such as [32, 64, 128]. Received: model.filters=3",
                "model.dropout must be a share from 0 to below 1. Received: model.dropout=1.0",
            ],
        ),
        (
            "train modelm3 seed=1,2 optimizer=null balance=overfit augmentation=flip-rotate training.monitor=accuracy",
            [
                "An argument cannot be read; expected key=value or group=choice, in quotes if it has spaces. "
                "Received: modelm3",
                "Several values for one key need `melanoma sweep`. Received: seed=1,2",
                "There is no optimizer named 'null'. Choices: adam, adamw, sgd.",
                "There is no balance named 'overfit'.",
                "There is no augmentation named 'flip-rotate'. Did you mean 'flip_rotate'?",
                "training.monitor must be val/loss, val/accuracy, val/balanced_accuracy or val/auc. Did you mean",
            ],
        ),
        (
            "train augmentation.mix.mixup=0.2 augmentation.mix.cutmix=1.0 data.classes=[a,b,a] seed=-1 "
            "model=backbone model.warmup_epochs=4 training.epochs=4 training.early_stopping.patience=0",
            [
                "Only one of mixup and cutmix can be on",
                "data.classes must name each class once. Received: data.classes=['a', 'b', 'a']",
                "seed must be from 0 to 4294967295. Received: seed=-1",
                "model.warmup_epochs must leave epochs for the unfrozen network",
                "training.early_stopping.patience must be at least 1, or null. Received:",
            ],
        ),
        (
            "train ~optimizer data=csv seed=null evaluation.batchsize=3 +debug.extra=1",
            [
                "optimizer must be given",
                "data.path must be given, as in data.path=VALUE",
                "data.source.table must be given, as in data.source.table=VALUE",
                "seed: field 'seed' is not Optional",
                "There is no key 'evaluation.batchsize'. Did you mean 'evaluation.batch_size'?",
                "debug.extra is not a key of the configuration.",
            ],
        ),
        (
            "evaluate run=abc model=models:/x@y evaluation.confidence=1",
            [
                "Give either run=RUN_ID or model=ADDRESS. Received: run=abc model=models:/x@y",
                "evaluation.confidence must be between 0 and 1. Received: evaluation.confidence=1",
            ],
        ),
        (
            "predict batch_size=0",
            ["model must be given, as in model=VALUE", "input must be given", "batch_size must be at least 1."],
        ),
    ],
)  # fmt: skip
def test_one_message_names_every_fault(melanoma, arguments: str, faults: list[str]):
    code, out, err = melanoma(*arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"melanoma: {len(faults)} faults in the configuration:\n")
    assert len(err.splitlines()) == 1 + len(faults)
    for fault in faults:
        assert fault in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("train traning.epochs=3", "There is no key 'traning.epochs'. Did you mean 'training.epochs'?"),
        ("train batchsize=3", "There is no key 'batchsize'. Did you mean 'training.batch_size'?"),
        ("train training.batch_size=1.5", "training.batch_size: Value '1.5' of type 'float'"),
        ("train model=m1 data.image_size=4", "data.image_size must be from 8 to 2048 pixels"),
        ("train data.classes=1", "data.classes must be at least 2, or null"),
        (
            "train training.find_learning_rate=true optimizer.learning_rate=1e-2",
            "lr=find chooses the learning rate, so that it cannot be given, too; remove one of them. Received: "
            "training.find_learning_rate=true optimizer.learning_rate=1e-2",
        ),
        (
            "sweep optimizer.learning_rate=1e-2,1e-3 training.find_learning_rate=true",
            "lr=find chooses the learning rate, so that it cannot be given",
        ),
        ("train data=my_folder", "There is no data named 'my_folder'. Did you mean 'folder'? Your own images: da"),
        ("train training.max_minutes=inf", "training.max_minutes must be above 0 and finite, or null"),
        ("train preset=quick,good", "Several values for one key need `melanoma sweep`. Received: preset=quick,good"),
        ("train epoch=0", "training.epochs must be at least 1"),
        ("evaluate", "Give either run=RUN_ID or model=ADDRESS"),
        ("evaluate model=models:/x@y", "With model=ADDRESS the images must be named too"),
        ("train data=folder data.path=/no/such/folder hydra.run.dir=run", "data.path does not exist"),
        ("predict model=abc input=/no/such/image.jpg hydra.run.dir=run", "No images found"),
        ("trian", "There is no such command. Did you mean 'train'?"),
    ],
)
def test_a_single_fault_is_one_line(melanoma, arguments: str, message: str):
    code, out, err = melanoma(*arguments.split())
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if " is short for " not in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"melanoma: {message}")
    assert "Received: " in err or "data=folder" in err


def test_the_name_of_a_stored_metric_is_answered_with_that_of_an_epoch(melanoma):
    code, out, err = melanoma("train", "training.monitor=validation/auc")
    assert (code, out) == (2, "")
    assert err.startswith("melanoma: training.monitor must be ")
    assert err.count("\n") == 1
    assert "Did you mean 'val/auc'" in err


@pytest.mark.parametrize(
    ("words", "old", "expected"),
    [
        (["train", "+data.views.mine=[a,b]"], "data.views", {"mine": ["a", "b"]}),
        (["train", "--data.views", "{}"], "data.views", {}),
        (
            ["train", "data=isic9", "data.path=/x", "data.views.melanoma=[nevus]", "~data.views.malignant"],
            "data.views",
            {"melanoma": ["nevus"]},
        ),
        (["promote", "registry.views={mine: [a, b]}"], "registry.views", {"mine": ["a", "b"]}),
        (["promote", "registry=isic9", "registry.views=null"], "registry.views", None),
    ],
)
def test_old_names_of_keys_are_understood_with_a_warning(melanoma, words: list[str], old: str, expected: object):
    command, *overrides = words
    code, out, err = melanoma(command, "--cfg", "job", *overrides)
    assert code == 0
    section = old.partition(".")[0]
    assert f"The key {old} was renamed to {section}.binary_tasks" in err
    node = yaml.safe_load(out)[section]
    assert node["binary_tasks"] == expected
    assert "views" not in node


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("data.view=[a]", "There is no key 'data.view'"),
        ("data.views.nothing=[a]", "data.binary_tasks.nothing must name some of the classes"),  # the user's own name
        ("data.binary_tasks.nothing=[a]", "There is no key 'data.binary_tasks.nothing'"),
        ("views=[a]", "There is no key 'views'"),
        ("registry.views=[a]", "There is no key 'registry.binary_tasks'"),
    ],
)
def test_an_old_name_hides_no_fault(melanoma, override: str, fault: str):
    code, out, err = melanoma("train", "data.source.images=20", override)
    assert (code, out) == (2, "")
    assert fault in err


def test_help_shows_groups_and_choices(melanoma):
    code, out, err = melanoma("train", "--help")
    assert (code, err) == (0, "")
    models = (
        "backbone, binary150, binary240, binary240_dropout, m1, m2, m3, resnet_small, resnet_small_fast, tf_tutorial"
    )
    assert f"model: {models}" in out
    for group in ("augmentation", "balance", "data", "debug", "optimizer", "schedule", "split"):
        assert f"\n{group}: " in out


@pytest.mark.parametrize("command", ["evaluate", "predict", "cache"])
def test_help_of_the_other_commands(melanoma, command: str):
    code, out, _ = melanoma(command, "--help")
    assert code == 0
    assert f"melanoma {command}: " in out


def test_cfg_prints_the_config(melanoma):
    path = "/a/b (1), x=[2]/ü.zip"
    code, out, err = melanoma("train", "--cfg", "job", "model=m3", "data=isic9", f"data.path={path}", "seed=0")
    assert (code, err) == (0, "")
    config = yaml.safe_load(out)
    assert (config["seed"], config["data"]["path"]) == (0, path)
    assert config["augmentation"]["name"] == "flip_rotate"
    assert len(config["data"]["classes"]) == 9


@pytest.mark.parametrize(
    ("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0), (["nonsense"], 2), (["--version"], 0)]
)
def test_melanoma_alone_lists_commands(melanoma, arguments: list[str], code: int):
    found, out, err = melanoma(*arguments)
    assert found == code
    if arguments == ["--version"]:
        assert out == f"melanoma {__version__}\n"
    else:
        assert all(command in out + err for command in ("train", "evaluate", "predict", "cache"))


def test_a_fault_ends_the_command_before_tensorflow_is_imported():
    script = (
        "import sys\nfrom melanoma.cli import main\n"
        "try:\n    main(['train', 'seed=-1'])\n"
        "except SystemExit as end:\n    print(end.code, {'tensorflow', 'keras', 'mlflow'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "2 set()\n"


@pytest.mark.parametrize("key", ["lr", "training.learning_rate", "optimizer.learning_rate"])
def test_a_learning_rate_can_be_found(key: str):
    config, _ = composed("train", TrainConfig, [f"{key}=find"])
    assert config.training.find_learning_rate is True
    assert composed("train", TrainConfig, [f"{key}=0.5"])[0].optimizer.learning_rate == 0.5


@pytest.mark.parametrize(("short", "full"), renamed._SHORT.items())
def test_short_names_are_keys(short: str, full: str, monkeypatch: pytest.MonkeyPatch):
    told: list[str] = []
    monkeypatch.setattr(renamed.log, "warning", lambda text, *given: told.append(text % given))
    config, overrides = composed("train", TrainConfig, [f"{short}=64"])
    assert [word.partition("=")[0] for word in overrides] == [full]
    assert OmegaConf.select(config, full) in (64, "64")
    assert told == [f"{short} is short for {full}"]


def test_short_names_are_those_of_a_training_only(melanoma):
    code, _, err = melanoma("predict", "model=x", "input=y", "batch_size=0")
    assert (code, "is short for" in err) == (2, False)
    assert "batch_size must be at least 1" in err


def test_a_short_name_of_a_text_is_a_text(melanoma):
    code, out, _ = melanoma("train", "run_name=1e3", "--cfg", "job")
    assert (code, OmegaConf.create(out).tracking.run_name) == (0, "1e3")
