"""What people and `mlflow run` type arrives in the configuration as it was typed."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from melanoma.config.annotations import text_keys
from melanoma.config.arguments import normalise, overrides_in, search_path_in
from melanoma.config.command_schema import EvaluateConfig, PredictConfig, PromoteConfig
from melanoma.config.launch import composed, launch
from melanoma.config.schema import TrainConfig
from melanoma.errors import ConfigError
from melanoma.workflows.checks import evaluate_faults, train_faults
from melanoma.workflows.fitting import builder_of

COMMANDS = {
    "train": (TrainConfig, train_faults),
    "evaluate": (EvaluateConfig, evaluate_faults),
    "predict": (PredictConfig, None),
}
PATHS = [
    "/a/b (1), x=[2]/ü.zip",
    "/two words/c",
    "/a,b",
    "a,b,c (d)",
    "/x=y=z",
    "/[brackets]/{braces}/<angles>",
    "(unbalanced",
    "]odd[",
    "/it's here",
    '/say "hi"',
    '/it\'s "both" (1)',
    "/back\\slash (1)",
    "/back\\slash",
    "/back\\'quote",
    "ends with a backslash (\\",
    "/Läsion/日本/🔬.zip",
    "/a/**/*.jp?g",
    "~/images",
    "/#hash/%20/$HOME/a&b;c|d/e!f/g@h",
    "relative: colon",
    "[2]",
    "2024",
    "2024.10",
    "-5",
    "1e-3",
    "007",
    "true",
    "range(1,3)",
    "/trailing blank ",
]


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Launch a command and return the configs its task received, in order."""

    def run(command: str, *arguments: str, rename: dict[str, str] | None = None) -> list[DictConfig]:
        monkeypatch.setattr("sys.argv", [])
        received: list[DictConfig] = []
        folders = [f"hydra.run.dir={tmp_path}/run", f"hydra.sweep.dir={tmp_path}/sweep"]
        schema, checks = COMMANDS[command]
        launch(
            command, schema, lambda config, overrides, folder: received.append(config), [*arguments, *folders],
            checks=checks, rename=rename,
        )  # fmt: skip
        return received

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["seed=1", "model=m3"], ["seed=1", "model=m3"]),
        (["--training.epochs", "2"], ["training.epochs=2"]),
        (["--training.epochs=2"], ["training.epochs=2"]),
        (["--model", "m3", "--seed", "7"], ["model=m3", "seed=7"]),
        (["--data.source.seed", "-1"], ["data.source.seed=-1"]),
        (["optimizer.learning_rate=-1e-3"], ["optimizer.learning_rate=-1e-3"]),
        (["--overrides", "a=1 b=2"], ["a=1", "b=2"]),
        (["--overrides", ""], []),
        (["--overrides", "data.path='/a b/c' --seed 3"], ["data.path=/a b/c", "seed=3"]),
        (["--overrides=a=1 b=2", "c=3"], ["a=1", "b=2", "c=3"]),
        (["data.classes=[benign,malignant]"], ["data.classes=[benign,malignant]"]),
        (["+model.extra=1", "~data.path"], ["+model.extra=1", "~data.path"]),
        (["--cfg", "job", "-p", "model"], ["--cfg", "job", "-p", "model"]),
        (["-m", "seed=1,2", "--multirun"], ["-m", "seed=1,2", "--multirun"]),
        (["--config-dir", "/my conf", "seed=1"], ["--config-dir", "/my conf", "seed=1"]),
        (["--cfg=job", "--help"], ["--cfg=job", "--help"]),
        (["--overrides", "", "--run", "0a1b", "--dry_run", "true"], ["run=0a1b", "dry_run=true"]),
    ],
)
def test_normalise(arguments: list[str], expected: list[str]):
    assert normalise(arguments) == expected


def test_overrides_are_told_from_flags():
    arguments = ["--cfg", "job", "seed=1", "-m", "--config-dir", "conf", "~data", "--package=model", "x=2"]
    assert overrides_in(arguments) == ["seed=1", "~data", "x=2"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--config-dir", "/a", "seed=1", "-cd", "/b"], ["/a", "/b"]),
        (["--config-dir=/a"], ["/a"]),
        (["seed=1", "--config-dir"], []),
    ],
)
def test_config_folders(arguments: list[str], expected: list[str]):
    assert search_path_in(arguments) == expected


def test_a_quote_without_end_is_a_fault():
    with pytest.raises(ConfigError, match=r"No closing quotation.*it's"):
        normalise(["--overrides", "data.path=it's"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("form", [["data.path={}"], ["--data.path={}"], ["--data.path", "{}"]])
def test_hydra_reads_paths_as_typed(path: str, form: list[str]):
    [override] = normalise([word.replace("{}", path) for word in form], {"data.path"})
    assert OverridesParser.create().parse_override(override).value() == path


@pytest.mark.parametrize("path", [PATHS[0], "a,b,c (d)", '/it\'s "both" (1)', "2024.10"])
def test_paths_arrive_as_typed(launched, path: str):
    [config] = launched("train", "data=folder", f"data.path={path}")
    assert config.data.path == path


def test_paths_with_all_sorts_of_marks_arrive_through_mlflow(launched):
    [config] = launched("train", "--data", "folder", "--data.path", PATHS[0], "--tracking.run_name", "1.10")
    assert (config.data.path, config.tracking.run_name) == (PATHS[0], "1.10")
    [config] = launched("train", "--overrides", 'data=folder data.path="/a b, (c)" seed=3')
    assert (config.data.path, config.seed) == ("/a b, (c)", 3)


def test_quoting_as_in_hydras_manual_is_understood(launched):
    [config] = launched("train", "data=folder", "data.path='/a, b'", 'tracking.run_name="x"', "tracking.uri=null")
    assert (config.data.path, config.tracking.run_name, config.tracking.uri) == ("/a, b", "x", None)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [("table", "a (1), b.csv", "a (1), b.csv"), ("labels", "{mel: melanoma}", {"mel": "melanoma"})],
)
def test_arguments_of_a_target_are_read_as_hydra_reads_them(launched, key: str, value: str, expected: object):
    [config] = launched("train", "data=csv", "data.path=/x", "data.source.table=t.csv", f"data.source.{key}={value}")
    assert config.data.source[key] == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=a,b (1).keras", "input=x, y.jpg"],
        ["--model", "a,b (1).keras", "--input", "x, y.jpg"],
        ["--overrides", "input='x, y.jpg' model='a,b (1).keras'"],
    ],
)
def test_model_of_predict_is_an_address_however_it_is_given(launched, arguments: list[str]):
    [config] = launched("predict", *arguments, rename={"model": "saved_model"})
    assert (config.saved_model, config.input) == ("a,b (1).keras", "x, y.jpg")


def test_a_sweep_gives_each_value_a_job(launched):
    configs = launched("train", "-m", "seed=1,2", "data=folder", "data.path=/a,/b")
    assert [(c.seed, c.data.path) for c in configs] == [(1, "/a"), (1, "/b"), (2, "/a"), (2, "/b")]


def test_a_later_job_of_a_sweep_is_checked_before_it_starts(launched):
    with pytest.raises(ConfigError, match=r"training\.epochs must be at least 1"):
        launched("train", "-m", "training.epochs=1,0")


@pytest.mark.parametrize("number", ["3", "'3'", "3.0"])
def test_numbers_have_the_type_of_the_schema(launched, number: str):
    [config] = launched("train", f"optimizer.learning_rate={number}", f"data.max_megapixels={number}")
    assert config.data.max_megapixels == config.optimizer.learning_rate == 3.0
    assert type(config.data.max_megapixels) is type(config.optimizer.learning_rate) is float


def network(image_size: int, classes: int, width: int) -> tuple[int, int, int]:
    return image_size, classes, width


def test_a_model_of_a_folder_of_ones_own_is_built(launched, tmp_path: Path):
    (tmp_path / "my configs" / "model").mkdir(parents=True)
    (tmp_path / "my configs" / "model" / "mine.yaml").write_text(
        f"_target_: {__name__}.network\nname: mine\nwidth: 64\n", encoding="utf-8"
    )
    [config] = launched("train", "--config-dir", str(tmp_path / "my configs"), "model=mine", "model.width=32")
    assert config.model.name == "mine"
    model = OmegaConf.to_container(config.model, resolve=True)
    assert builder_of(model)(image_size=48, classes=2) == (48, 2, 32)


def test_text_keys_are_all_that_hold_text():
    assert {"data.path", "split.file", "tracking.run_name", "model.weights"} < text_keys(TrainConfig)
    assert not {"seed", "data.classes", "data.image_size"} & text_keys(TrainConfig)
    assert "data.path" in text_keys(EvaluateConfig)


@pytest.mark.parametrize(
    "column", ["dx (final)", "a=b", "x,y", "[site]", "{a: b}", "it's", "Größe", "12", "null.x", "a: b"]
)
def test_the_name_of_a_column_is_typed_as_it_is(column: str):
    words = ["data=csv", "data.path=images", "data.source.table=a,b.csv", f"data.source.label_column={column}"]
    source = composed("train", TrainConfig, words)[0].data.source
    assert (source.table, source.label_column) == ("a,b.csv", column)


@pytest.mark.parametrize(
    ("command", "schema", "word", "key"),
    [
        ("train", TrainConfig, "data.binary_tasks={melanoma: [melanoma]}", "data.binary_tasks.melanoma"),
        ("train", TrainConfig, "card.answers={clear_derm_1: Dermoscopic}", "card.answers.clear_derm_1"),
        ("promote", PromoteConfig, "registry.floors={test/mcc: 0.3}", "registry.floors.test/mcc"),
    ],
)
def test_entries_are_added_to_a_dictionary_without_a_plus(command: str, schema: type, word: str, key: str):
    config, _ = composed(command, schema, [word])
    assert OmegaConf.select(config, key) is not None
    assert composed(command, schema, [f"+{word}"])[0] == config
