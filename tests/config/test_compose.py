"""Every YAML file of conf/ composes into a sound configuration, and models choose their recipes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from melanoma.config.arguments import normalise
from melanoma.config.command_schema import (
    AuditCommandConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    PromoteConfig,
    RollbackConfig,
    ServeConfig,
)
from melanoma.config.diagnose import compose_config, diagnose, schema_faults
from melanoma.config.fields import range_faults
from melanoma.config.launch import launch, register_resolvers, typed
from melanoma.config.schema import TrainConfig
from melanoma.paths import conf_dir
from melanoma.workflows import checks

register_resolvers()


def train_faults(config: DictConfig) -> list[str]:
    """All faults of values, of ranges first, as the command tells them."""
    return range_faults(TrainConfig, config) + checks.train_faults(config)


def audit_faults(config: DictConfig) -> list[str]:
    return range_faults(AuditCommandConfig, config) + checks.audit_faults(config)


def evaluate_faults(config: DictConfig) -> list[str]:
    return range_faults(EvaluateConfig, config) + checks.evaluate_faults(config)


def promote_faults(config: DictConfig) -> list[str]:
    return range_faults(PromoteConfig, config) + checks.promote_faults(config)


CHOICES = sorted(
    file.relative_to(conf_dir()).as_posix().removesuffix(".yaml")
    for file in conf_dir().glob("*/*.yaml")
    if file.parent.name not in ("sweep", "launcher", "registry")  # of other commands
)
DATA = [choice.removeprefix("data/") for choice in CHOICES if choice.startswith("data/")]


def needed_by(data: str) -> list[str]:
    """What a data set of the user's must be told."""
    table = ["data.source.table=labels.csv"] if data == "csv" else []
    return [] if data == "synthetic" else ["data.path=/images", *table]


def named(data: str) -> str:
    """The name of a data set: a folder and a table of the user's own are named by the path."""
    return "images" if data in ("folder", "csv") else data


def composed(*overrides: str) -> DictConfig:
    return compose_config("train", list(overrides))


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_of_every_group_makes_a_sound_training(choice: str):
    group, name = choice.split("/")
    extra = needed_by(name) if group == "data" else ["data.path=/images"]
    extra += ["split.column=site"] if name == "leave_one_out_by" else []
    config = composed(f"{group}={name}", *extra)
    assert schema_faults(TrainConfig, config, config) == []
    assert train_faults(config) == []
    settings = typed(TrainConfig, config)
    if group == "preset":
        assert config.preset == name
        assert settings.training.max_minutes is not None
    elif group != "experiment":
        assert config[group].get("name", name) in (named(name) if group == "data" else name, None)
        assert settings.training.epochs == (1 if name == "one_batch" else config.model.epochs)


@pytest.mark.parametrize("study", [choice for choice in CHOICES if choice.startswith("experiment/")])
def test_one_batch_of_a_study_is_one_epoch(study: str):
    config = composed(study.replace("/", "="), "data.path=/images", "debug=one_batch")
    assert train_faults(config) == []
    assert (config.training.epochs, config.debug.train_batches) == (1, 1)


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_can_be_evaluated_on(data: str):
    config = compose_config("evaluate", ["run=abc", f"data={data}", *needed_by(data)])
    assert schema_faults(EvaluateConfig, config, config) == []
    assert evaluate_faults(config) == []
    assert typed(EvaluateConfig, config).data.name == named(data)


@pytest.mark.parametrize("data", DATA)
def test_every_data_set_can_be_audited(data: str):
    config, faults = diagnose("audit", AuditCommandConfig, [f"data={data}", *needed_by(data)])
    assert faults + audit_faults(config) == []
    settings = typed(AuditCommandConfig, config)
    assert settings.data.name == named(data)
    assert (settings.audit.near_duplicates, settings.audit.fail_on, settings.audit.output) == (True, None, None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/my_images", "my_images"),
        ("~/lesions.v2.ZIP", "lesions.v2"),
        ("/a/lesions.v1", "lesions.v1"),
        ("/a/b c (1)", "b_c_1"),
        ("/", "folder"),
    ],
)
def test_a_folder_is_a_task_of_its_own(path: str, name: str):
    config = composed("data=folder", f"data.path='{path}'")
    assert typed(TrainConfig, config).data.name == name
    assert typed(TrainConfig, composed("data=folder", f"data.path='{path}'", "data.name=x")).data.name == "x"


def test_an_audit_and_a_training_look_for_the_same():
    audit = compose_config("audit", []).audit
    assert {key: value for key, value in audit.items() if key not in ("output", "fail_on")} == composed().audit


@pytest.mark.parametrize("findings", ["any", "label_conflicts", "label_conflicts,split_leaks", "[odd, unreadable]"])
def test_an_audit_may_fail_on_any_finding(findings: str):
    config, faults = diagnose("audit", AuditCommandConfig, normalise([f"audit.fail_on={findings}"], {"audit.fail_on"}))
    assert faults + audit_faults(config) == []


def test_faults_of_an_audit_are_named():
    config = compose_config("audit", ["audit.fail_on='leaks,odd'", "audit.similarity=0.3", "audit.odd.aspect=0.5"])
    assert audit_faults(config) == [
        "audit.similarity must be from 0.5 to 1. Received: audit.similarity=0.3",
        "audit.odd.aspect must be at least 1. Received: audit.odd.aspect=0.5",
        "audit.fail_on names findings: any, unreadable, odd, exact_duplicate_groups, near_duplicate_groups, "
        "label_conflicts, split_leaks, group_leaks, metadata_disagreements, excluded. Received: leaks",
    ]


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["split=leave_one_out_by"], "needs a metadata column, as in split.column=site"),
        (["split=kfold", "protocol=published"], "Received: protocol=published split=kfold"),
        (["split=kfold", "protocol=both"], "Received: protocol=both split=kfold"),
        (["split=kfold", "split.file=split.csv"], "A split.file is one split, not folds"),
        (["split=kfold", "split.folds=1"], "split.folds must be at least 2"),
    ],
)
def test_faults_of_splits_are_named(overrides: list[str], fault: str):
    [found] = train_faults(composed(*overrides))
    assert fault in found


def test_evaluation_takes_the_data_of_its_run_by_default():
    config, faults = diagnose("evaluate", EvaluateConfig, ["run=abc"])
    assert faults + evaluate_faults(config) == []
    assert typed(EvaluateConfig, config).data is None


def test_predict_composes():
    config, faults = diagnose("predict", PredictConfig, ["saved_model=runs:/abc/model", "input=lesion.jpg"])
    assert faults + range_faults(PredictConfig, config) == []
    assert typed(PredictConfig, config).batch_size == 64


@pytest.mark.parametrize("choice", [file.stem for file in conf_dir().glob("registry/*.yaml")])
def test_every_choice_of_gates_composes(choice: str):
    config, faults = diagnose("promote", PromoteConfig, [f"registry={choice}"])
    assert faults + promote_faults(config) == []
    settings = typed(PromoteConfig, config).registry
    assert settings.metric is None or settings.metric.startswith("validation/")
    assert settings.champion.rule != "none"
    assert settings.smoke_test


@pytest.mark.parametrize(("command", "schema"), [
    ("rollback", RollbackConfig), ("registry", RollbackConfig), ("serve", ServeConfig), ("app", ServeConfig),
    ("export", ExportConfig),
])  # fmt: skip
def test_the_commands_of_the_registry_compose(command: str, schema: type):
    config, faults = diagnose(command, schema, [])
    assert faults + range_faults(schema, config) == []
    assert "host" not in config or config.host == "127.0.0.1"


def test_faults_of_gates_are_named():
    words = ["+registry.floors={test/mcc: high}", "registry.champion.margin=2"]
    config, faults = diagnose("promote", PromoteConfig, words)
    assert faults + promote_faults(config) == [
        "registry.champion.margin must be from 0 to 1. Received: registry.champion.margin=2.0",
        "registry.floors are numbers, or null. Received: registry.floors={test/mcc: high}",
    ]


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("registry.metric=test/auc", "selected on the test set, a model has an optimistic"),
        ("registry.metric=validation/log_loss registry.direction=maximize", "registry.direction must be minimize"),
        ("registry.metric=validation/auc registry.direction=minimize", "registry.direction must be maximize"),
        ("registry.champion.metric=log_loss", "one of which more is better"),
        ("registry.subgroups.metric=melanoma/brier", "one of which more is better"),
        ("registry.floors=5", "registry.floors: Cannot assign int"),
    ],
)
def test_gates_that_would_prove_nothing_are_faults(word: str, fault: str):
    config, faults = diagnose("promote", PromoteConfig, word.split())
    [found] = faults + (promote_faults(config) if config is not None else [])
    assert fault in found


def targets_in(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["_target_"]} if "_target_" in node else set()
        return own.union(*(targets_in(value) for value in node.values()))
    return set().union(*map(targets_in, node)) if isinstance(node, list) else set()


def targets() -> list[str]:
    files = [*conf_dir().glob("*.yaml"), *conf_dir().glob("*/*.yaml")]
    return sorted(set().union(*(targets_in(OmegaConf.to_container(OmegaConf.load(file))) for file in files)))


@pytest.mark.parametrize("target", targets())
def test_targets_exist(target: str):
    assert callable(get_object(target))


def test_targets_are_found_in_the_files():
    assert {"melanoma.models.reference.plain_cnn", "melanoma.training.augmentation.RandomBlur"} < set(targets())


@pytest.mark.parametrize(
    ("overrides", "augmentation", "balance"),
    [
        (["model=m1"], "none", "none"),
        (["model=m2"], "flip_rotate", "none"),
        (["model=m3"], "flip_rotate", "augmentor"),
        (["model=binary150"], "generator", "none"),
        (["model=binary240_dropout"], "none", "none"),
        (["model=resnet_small"], "dermoscopy", "none"),
        (["model=m3", "augmentation=none"], "none", "augmentor"),
        (["augmentation=dermoscopy", "model=m3"], "dermoscopy", "augmentor"),
        (["model=m3", "balance=class_weight"], "flip_rotate", "class_weight"),
        (["balance=none", "augmentation=generator", "model=m3"], "generator", "none"),
    ],
)
def test_a_model_brings_its_recipe_and_the_command_line_wins(overrides: list[str], augmentation: str, balance: str):
    config = composed(*overrides)
    assert (config.augmentation.name, config.balance.name) == (augmentation, balance)


@pytest.mark.parametrize(
    ("overrides", "optimizer", "schedule"),
    [
        (["model=m1"], "Adam", "constant"),
        (["model=resnet_small"], "AdamW", "cosine"),
        (["model=backbone"], "AdamW", "cosine"),
        (["model=backbone", "optimizer=sgd", "schedule=plateau"], "SGD", "plateau"),
    ],
)
def test_a_model_brings_its_optimizer_and_the_command_line_wins(overrides: list[str], optimizer: str, schedule: str):
    config = composed(*overrides)
    assert config.optimizer._target_.endswith(f".optimizers.{optimizer}")
    assert config.schedule._target_ == f"melanoma.training.schedules.{schedule}"


def test_epochs_are_the_models_unless_given():
    assert composed("model=m3").training.epochs == 50
    assert composed("model=m3", "training.epochs=2").training.epochs == 2


def test_balance_keeps_what_only_one_choice_sets():
    assert composed("model=m3").balance.operations.rotate.probability == 0.7
    assert composed("model=m3", "balance=none").balance.operations == {}


def test_seed_zero_stays_zero():
    config, faults = diagnose("train", TrainConfig, ["seed=0"])
    assert faults == []
    seed = typed(TrainConfig, config).seed
    assert seed == 0
    assert type(seed) is int


def test_a_folder_of_further_configs_is_searched(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.yaml").write_text("defaults: [folder]\nname: mine\npath: /mine\n", encoding="utf-8")
    config, faults = diagnose("train", TrainConfig, ["data=mine"], [str(tmp_path)])
    assert faults == []
    assert config.data.path == "/mine"


TASKS = {"malignant": ["b", "c"], "other": ["a"]}
OWN_FILES = {
    "data/mine.yaml": {"defaults": ["folder"], "name": "mine", "path": "/mine", "classes": ["a", "b", "c"]},
    "registry/mine.yaml": {"defaults": ["isic9"]},
}


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Launch a command with a folder of one's own, in which tasks are called `key`; returns what its task receives."""

    def run(command: str, schema: type, key: str, *overrides: str) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", [])
        for name, content in OWN_FILES.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(yaml.safe_dump({**content, key: TASKS}), encoding="utf-8")
        configs: list[DictConfig] = []
        words = ["--config-dir", str(tmp_path), f"hydra.run.dir={tmp_path}/run", *overrides]
        launch(command, schema, lambda config, *_: configs.append(config), words)
        [config] = configs
        return OmegaConf.to_container(config, resolve=True)

    return run


@pytest.mark.parametrize(
    ("command", "schema", "section"),
    [
        ("train", TrainConfig, "data"),
        ("evaluate", EvaluateConfig, "data"),
        ("audit", AuditCommandConfig, "data"),
        ("promote", PromoteConfig, "registry"),
    ],
)
@pytest.mark.parametrize("key", ["views", "binary_tasks"])
def test_old_names_in_files_of_ones_own_are_understood_with_a_warning(
    received, caplog, command: str, schema: type, section: str, key: str
):
    node = received(command, schema, key, f"{section}=mine")[section]
    of_default = {"registry": compose_config("promote", ["registry=isic9"]).registry.binary_tasks}.get(section, {})
    assert node["binary_tasks"] == {**of_default, **TASKS}
    assert "views" not in node
    told = f"The key {section}.views was renamed to {section}.binary_tasks"
    assert (told in caplog.text) is (key == "views")


@pytest.mark.parametrize("key", ["views", "binary_tasks"])
@pytest.mark.parametrize("typed_key", ["data.views", "++data.views", "++data.binary_tasks"])
def test_the_command_line_wins_over_files_of_ones_own_whatever_the_names(received, key: str, typed_key: str):
    config = received("train", TrainConfig, key, "data=mine", f"{typed_key}.malignant=[c]")
    assert config["data"]["binary_tasks"] == {**TASKS, "malignant": ["c"]}


@pytest.mark.parametrize("key", ["views", "binary_tasks"])
@pytest.mark.parametrize("typed_key", ["views", "binary_tasks"])
def test_all_tasks_of_a_file_of_ones_own_are_deleted(received, key: str, typed_key: str):
    config = received("train", TrainConfig, key, "data=mine", f"~data.{typed_key}")
    assert not config["data"].get("binary_tasks")


@pytest.mark.parametrize("key", ["views", "binary_tasks"])
def test_no_tasks_in_a_file_of_ones_own_require_none(received, tmp_path: Path, monkeypatch, key: str):
    monkeypatch.setitem(OWN_FILES, "registry/none.yaml", {"defaults": ["default"]})
    monkeypatch.setattr(f"{__name__}.TASKS", None)
    assert received("promote", PromoteConfig, key, "registry=none")["registry"]["binary_tasks"] is None


@pytest.mark.parametrize(
    ("name", "model", "classes", "size", "batch", "epochs"),
    [
        ("binary150", "binary150", 2, 150, 32, 10),
        ("binary240", "binary240", 2, 240, 20, 30),
        ("binary240_dropout", "binary240_dropout", 2, 240, 20, 30),
        ("isic9_tutorial", "tf_tutorial", 9, 180, 32, 20),
        ("isic9_tutorial_50", "tf_tutorial", 9, 180, 32, 50),
        ("isic9_generator", "tf_tutorial", 9, 180, 32, 20),
        ("isic9_generator_augmented", "tf_tutorial", 9, 180, 32, 20),
        ("isic9_generator_augmentor", "tf_tutorial", 9, 180, 32, 30),
    ],
)
def test_reference_studies_are_as_published(name: str, model: str, classes: int, size: int, batch: int, epochs: int):
    config = composed(f"experiment={name}", "data.path=/images")
    settings = typed(TrainConfig, config)
    shape = (settings.data.image_size, settings.training.batch_size, settings.training.epochs)
    assert shape == (size, batch, epochs)
    assert len(config.data.classes) == classes
    assert config.model == composed(f"model={model}").model  # of the published size in test_models.py
