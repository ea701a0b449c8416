"""Promotion, from real runs in a real store: the better, the worse, the leaky, the tampered."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from melanoma.cli import main
from melanoma.config.command_schema import PromoteConfig, RollbackConfig, ServeConfig
from melanoma.config.diagnose import diagnose
from melanoma.config.launch import typed
from melanoma.errors import ModelError, PromotionRefused
from melanoma.registry import promote as promote_module
from melanoma.registry.gates import Gate
from melanoma.registry.history import rollback, show_registry
from melanoma.registry.promote import promote
from melanoma.registry.trail import decisions, new_decision, write_down
from melanoma.registry.versions import alias_of, carry_out, repair
from melanoma.serving.package import load_package
from melanoma.serving.serve import serve
from melanoma.tracking.model_store import checked_model
from melanoma.tracking.models import load_saved_model
from melanoma.tracking.names import Alias
from melanoma.tracking.records import RunRecord
from melanoma.workflows.stages import seen_by
from tests.commands import COMMAND, run_melanoma
from tests.integration.conftest import SMALL, client, copied_store, measured, trained_here

NAME = "melanoma-synthetic"
EASY = ("registry.floors={test/auc: 0.01}", "registry.ceilings={test/ece: null}", "registry.subgroups.floor=null")


@dataclass(frozen=True)
class Store:
    """A tracking store with four runs: of one experiment, on the same images."""

    uri: str
    good: str
    worse: str
    leaky: str
    other_split: str


@pytest.fixture(scope="module")
def made(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("registry")
    uri = copied_store(empty_store, folder)

    def trained(name: str, *overrides: str) -> str:
        words = [
            *SMALL,
            "split.test=0.4",
            "evaluation.bootstrap=200",
            "evaluation.coverage_per_class=true",
            f"tracking.uri={uri}",
            f"tracking.run_name={name}",
            *overrides,
        ]
        return trained_here(words, folder / name)

    good = trained(
        "good", "training.epochs=6", "data.source.images=160", "optimizer.learning_rate=3e-3",
        "evaluation.subgroup_minimum=5",
    )  # fmt: skip
    worse = trained("worse", "training.epochs=1", "data.source.images=160", "optimizer.learning_rate=1e-6")
    leaky = trained("leaky", "data.source.images=160", "protocol=published")
    other = trained("other split", "data.source.images=160", "seed=1")
    return Store(uri, good, worse, leaky, other)


@pytest.fixture
def store(made: Store, tmp_path: Path) -> Store:
    return copied(made, tmp_path)


def copied(made: Store, folder: Path) -> Store:
    """A copy of the store: its registry is empty. The artifacts are those of the first."""
    uri = copied_store(Path(made.uri.removeprefix("sqlite:///")), folder)
    mlflow.set_tracking_uri(uri)
    return Store(uri, made.good, made.worse, made.leaky, made.other_split)


def promoted(store: Store, *words: str):
    config, faults = diagnose("promote", PromoteConfig, [f"tracking.uri={store.uri}", *EASY, *words])
    assert faults == []
    return promote(typed(PromoteConfig, config), store.uri)


QUICK = "registry.smoke_test=false"
ANY = "registry.champion.rule=none"


def test_the_best_is_promoted_with_its_evidence(store: Store, capsys: pytest.CaptureFixture):
    version = promoted(store)  # with the smoke test
    assert version is not None
    shown = capsys.readouterr().out
    assert version.run_id == store.good, shown
    for words in ("candidate 1", "published,duplicates_ignored", "tested on other images", "is the champion"):
        assert words in shown
    stored = client(store.uri).get_model_version_by_alias(NAME, Alias.CHAMPION)
    assert (int(stored.version), stored.run_id) == (1, store.good)
    assert stored.tags["melanoma.promotion"] == "promoted"
    assert stored.tags["melanoma.gate.protocol"] == "passed: clean; wanted clean"
    assert "loaded in" in stored.tags["melanoma.gate.serving"]
    assert "| test/auc | passed |" in stored.description
    assert "not a medical device" in stored.description
    assert "## Intended use" in stored.description
    model = client(store.uri).get_registered_model(NAME).description
    assert model.startswith("Classifiers of skin lesions, task ")
    assert model.count("**Decisions**") == 1
    assert re.search(r"\*\*Decisions\*\*\n\n- [-0-9]+T[:0-9]+ UTC, .*: promoted version 1$", model)
    decision = json.loads(mlflow.artifacts.load_text(f"runs:/{store.good}/promotion.json"))
    assert decision["decision"] == "promoted"
    assert {"by", "when", "command", "run_id"} <= set(decision)
    assert decision["registry"]["floors"]["test/auc"] == 0.01
    assert decision["registry"]["champion"]["rule"] == "non_inferiority"
    assert {gate["name"] for gate in decision["gates"]} >= {"protocol", "test/auc", "model/latency_ms", "serving"}
    assert client(store.uri).get_run(store.good).data.tags["melanoma.promotion"] == "promoted"
    # Again: there is nothing to do.
    assert promoted(store) is None
    assert "is the champion already" in capsys.readouterr().out
    assert len(decisions(NAME)) == 1


def test_the_package_is_complete(store: Store, tmp_path: Path):
    promoted(store, QUICK)
    address = f"models:/{NAME}@{Alias.CHAMPION}"
    folder = Path(mlflow.artifacts.download_artifacts(address))
    facts = json.loads((folder / "data/package/facts.json").read_text())
    assert facts["classes"] == ["benign", "malignant"]
    assert set(facts) >= {"operating_points", "prediction_sets", "abstention", "fingerprint", "image_size", "protocol"}
    assert "Model card" in (folder / "data/package/model_card.md").read_text()
    assert len(facts["prediction_sets"]["threshold"]) == 2  # coverage_per_class
    assert "tensorflow==" in (folder / "requirements.txt").read_text()
    loaded = mlflow.pyfunc.load_model(address)
    assert "'image': Any" in str(loaded.metadata.signature.inputs)
    example = pd.DataFrame(**json.loads((folder / "input_example.json").read_text()))
    answer = loaded.predict(example).iloc[0]
    assert answer.model_version == f"{NAME}/1"
    saved = load_saved_model(address)
    assert saved.detector is not None
    assert answer.out_of_distribution == (answer.ood_score > 1)
    assert {"ood_score", "out_of_distribution"} < set(loaded.metadata.signature.outputs.input_names())
    assert saved.run_id == store.good
    assert (saved.classes, saved.image_size) == (["benign", "malignant"], 48)
    assert saved.decisions.points[0].threshold == facts["operating_points"]["malignant"]


def test_a_worse_one_is_refused_and_nothing_changes(store: Store, capsys: pytest.CaptureFixture):
    promoted(store, QUICK)
    with pytest.raises(PromotionRefused, match="against champion 1, auc") as refused:
        promoted(store, QUICK, f"run={store.worse}")
    assert refused.value.exit_code == 5
    assert alias_of(NAME, Alias.CHAMPION).run_id == store.good
    assert alias_of(NAME, Alias.PREVIOUS) is None
    assert len(client(store.uri).search_model_versions(f"name = '{NAME}'")) == 1
    run = client(store.uri).get_run(store.worse)
    assert run.data.tags["melanoma.promotion"] == "refused"
    decision = json.loads(mlflow.artifacts.load_text(f"runs:/{store.worse}/promotion.json"))
    assert [gate["name"] for gate in decision["gates"] if not gate["passed"]] == ["against champion 1, auc"]
    show_registry(RollbackConfig(), store.uri)
    assert f"refused run {store.worse}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("which", ["leaky", "other_split"])
def test_what_cannot_be_compared_or_believed_is_refused(store: Store, which: str):
    promoted(store, QUICK)
    words = {"leaky": "protocol: published", "other_split": "cannot be compared"}[which]
    with pytest.raises(PromotionRefused, match=words):
        promoted(store, QUICK, f"run={getattr(store, which)}")
    assert alias_of(NAME, Alias.CHAMPION).run_id == store.good


def test_gates_with_numbers_refuse(store: Store):
    with pytest.raises(PromotionRefused, match=r"test/auc: .* >= 0\.999"):
        promoted(store, "registry.floors={test/auc: 0.999}", "+registry.floors={test/mcc: null}")
    with pytest.raises(PromotionRefused, match="model/latency_ms"):
        promoted(store, "registry.ceilings={model/latency_ms: 0.0001}")
    assert alias_of(NAME, Alias.CHAMPION) is None


def test_the_worst_subgroup_is_a_tag_and_holds_the_floor(store: Store):
    with pytest.raises(PromotionRefused, match=r"subgroups, auc: .* \(lowest of .*>= 1\.1"):
        promoted(store, QUICK, "registry.subgroups.floor=1.1")
    assert promoted(store, QUICK, "registry.subgroups.floor=0.0") is not None
    table = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{store.good}/evaluation/subgroups.csv"))
    assessed = table[(table.assessed == "yes") & (table.value != "unknown")]
    assert len(assessed) > 0
    assert table.assessed.str.match("yes|no: too few images|no: [0-9]+ (images|groups?) ").all()
    worst = assessed.loc[assessed.auc.idxmin()]
    tag = client(store.uri).get_run(store.good).data.tags["melanoma.worst_subgroup"]
    assert tag.startswith(f"{worst['column']} {worst.value}: auc {worst.auc:.3f} [")
    decision = json.loads(mlflow.artifacts.load_text(f"runs:/{store.good}/promotion.json"))
    [gate] = [gate for gate in decision["gates"] if gate["name"] == "subgroups, auc"]
    lowest = assessed.loc[assessed.auc_ci_low.idxmin()]
    assert f"(lowest of {len(assessed)}: {lowest['column']} {lowest.value}, {lowest.images} images)" in gate["text"]


def test_a_version_that_cannot_be_served_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch):
    promoted(store, QUICK)
    with monkeypatch.context() as patched, pytest.raises(PromotionRefused, match="serving: no answer"):
        patched.setattr("melanoma.registry.promote.smoke_gate", lambda *_: Gate("serving", False, "no answer"))
        promoted(store, ANY, f"run={store.worse}")
    assert alias_of(NAME, Alias.CHAMPION).run_id == store.good
    assert alias_of(NAME, Alias.PREVIOUS) is None
    version = client(store.uri).get_model_version(NAME, "2")
    assert version.run_id == store.worse
    assert version.tags["melanoma.promotion"] == "refused"
    assert version.tags["melanoma.gate.serving"] == "failed: no answer"
    assert "| serving | **failed** | no answer |" in version.description
    trail = [(one.action, one.version, one.state) for one in decisions(NAME)]
    assert trail == [("promote", 1, "done"), ("refuse", 2, "done")]
    # It stands in the way of no other.
    assert int(promoted(store, QUICK, ANY, f"run={store.worse}").version) == 3
    assert int(alias_of(NAME, Alias.CHAMPION).version) == 3


def test_a_dry_run_changes_nothing(store: Store, capsys: pytest.CaptureFixture, monkeypatch):
    def tried(address: str, run_id: str, _: str) -> Gate:
        """As a process of its own would; that is shown above."""
        return Gate("serving", load_package(Path(address)).facts["run_id"] == run_id, "loaded in no time")

    monkeypatch.setattr(promote_module, "smoke_gate", tried)

    def everything() -> list:
        """But for the note that the promotion was tried, because that was a look at the test images."""
        store_client = client(store.uri)
        runs = [store_client.get_run(run_id) for run_id in (store.good, store.worse)]
        return [
            store_client.search_registered_models(),
            [{name: text for name, text in run.data.tags.items() if name != "melanoma.tried"} for run in runs],
            [item.path for run in runs for item in store_client.list_artifacts(run.info.run_id)],
            len(mlflow.search_logged_models([runs[0].info.experiment_id], output_format="list")),
        ]

    before = everything()
    assert promoted(store, "dry_run=true") is None
    shown = capsys.readouterr().out
    assert "Dry run: would promote good. Nothing was changed, but it counts as a promotion attempt on the test" in shown
    assert "champion of melanoma-synthetic: none." in shown
    assert "loaded in" in shown
    with pytest.raises(PromotionRefused):
        promoted(store, "dry_run=true", f"run={store.leaky}")
    assert everything() == before


def test_a_tampered_model_is_refused_with_its_hash(store: Store):
    promoted(store, QUICK)
    address = f"models:/{NAME}@{Alias.CHAMPION}"
    folder = Path(mlflow.artifacts.download_artifacts(address))  # the store's own, not a copy
    for name in ("data/package/model.keras", "MLmodel", "data/package/facts.json"):
        file = folder / name
        content = file.read_bytes()
        try:
            file.write_bytes(content + b"\n")
            with pytest.raises(ModelError, match=rf"{name} has SHA-256 [0-9a-f]{{64}}, expected [0-9a-f]{{64}}"):
                load_saved_model(address)
            if name != "MLmodel":
                with pytest.raises(mlflow.MlflowException, match=f"{name} has SHA-256"):
                    mlflow.pyfunc.load_model(address)
        finally:
            file.write_bytes(content)
    # What has no hash is not used: other files, and compiled code that Python would take instead.
    code = next((folder / "code").iterdir())
    compiled = code / "serving/__pycache__/classifier.cpython-311.pyc"
    compiled.parent.mkdir(exist_ok=True)
    for planted in (code / "sitecustomize.py", compiled, folder / "tensorflow.py"):
        planted.write_bytes(b"raise SystemExit")
        try:
            copy = checked_model(address).folder
            assert copy != folder
            assert {path.name for path in copy.rglob("*")}.isdisjoint({planted.name})
        finally:
            planted.unlink()
    for other in (f"models:/{NAME}/1", f"models:/{NAME}/latest"):
        assert load_saved_model(other).run_id == store.good


def test_a_tampered_package_is_not_promoted_again(store: Store, caplog: pytest.LogCaptureFixture):
    promoted(store, QUICK)
    first = client(store.uri).get_model_version_by_alias(NAME, Alias.CHAMPION)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@{Alias.CHAMPION}"))
    file = folder / "data/package/facts.json"
    content = file.read_text()
    try:
        file.write_text(content.replace('"malignant": 0.', '"malignant": 5.'))
        assert file.read_text() != content
        for address in (f"models:/{NAME}/latest", first.source):
            with pytest.raises(ModelError, match=r"facts\.json has SHA-256"):
                load_saved_model(address)
        promoted(store, QUICK, ANY, f"run={store.worse}")
        again = promoted(store, QUICK, ANY, f"run={store.good}")
        assert again is not None
        assert again.source != first.source
        fresh = load_saved_model(f"models:/{NAME}@{Alias.CHAMPION}")
        assert fresh.decisions.points[0].threshold < 1
    finally:
        file.write_text(content)


def test_a_run_whose_model_was_tampered_with_is_not_packaged(store: Store):
    file = files_of(store.worse) / "data/model.keras"
    content = file.read_bytes()
    try:
        file.write_bytes(content + b"\0")
        with pytest.raises(ModelError, match=r"changed after it was saved: data/model\.keras has SHA-256"):
            promoted(store, QUICK, ANY, f"run={store.worse}")
    finally:
        file.write_bytes(content)
    assert alias_of(NAME, Alias.CHAMPION) is None


def tuned(store: Store, folder: Path, weights: str) -> mlflow.entities.Run:
    words = [
        *SMALL, "evaluation.bootstrap=200", f"tracking.uri={store.uri}", "data.source.images=160",
        "training.epochs=1", f"model.weights={weights}",
    ]  # fmt: skip
    return client(store.uri).get_run(trained_here(words, folder))


def test_fine_tuning_from_the_registry_names_both(store: Store, tmp_path: Path):
    promoted(store, QUICK, f"run={store.other_split}")
    child = tuned(store, tmp_path, f"models:/{NAME}@{Alias.CHAMPION}")
    result, tags = child.info, child.data.tags
    assert tags["melanoma.weights_version"] == f"{NAME}/1"
    assert tags["melanoma.weights_run"] == store.other_split
    version = client(store.uri).get_model_version(NAME, "1")
    assert version.tags[f"melanoma.descendant.{result.run_id}"] == tags["mlflow.runName"]
    assert f"melanoma.descendant.{result.run_id}" in client(store.uri).get_run(store.other_split).data.tags
    # That one was trained on other images of the same set, and test images of this one are among them.
    assert tags["melanoma.protocol"] == "pretrained_on_test"
    with pytest.raises(PromotionRefused, match="protocol: pretrained_on_test"):
        promoted(store, QUICK, ANY, f"run={result.run_id}")


@pytest.mark.slow
def test_one_more_step_between_hides_nothing(store: Store, tmp_path: Path):
    child = tuned(store, tmp_path, f"runs:/{store.other_split}/model")
    grandchild = tuned(store, tmp_path, f"runs:/{child.info.run_id}/model")
    seen = [measured(run)["data/test_seen_in_pretraining"] for run in (child, grandchild)]
    assert seen[0] == seen[1] > 0
    assert grandchild.data.tags["melanoma.protocol"] == "pretrained_on_test"
    split = Path(mlflow.get_run(store.other_split).info.artifact_uri.removeprefix("file://")) / "data/split.csv"
    split.rename(split.with_suffix(".gone"))
    try:
        child = tuned(store, tmp_path, f"runs:/{store.other_split}/model")
    finally:
        split.with_suffix(".gone").rename(split)
    assert child.data.tags["melanoma.protocol"] == "pretraining_unknown"
    assert child.data.tags["melanoma.weights_run"] == store.other_split
    without_training = split.read_bytes().replace(b",train,", b",test,")
    with changed(split, without_training), pytest.raises(ModelError, match=r"data/split\.csv of the run was changed"):
        seen_by(store.other_split)
    file = load_saved_model(store.good).file
    assert tuned(store, tmp_path, str(file)).data.tags["melanoma.protocol"] == "pretraining_unknown"


def files_of(run_id: str) -> Path:
    """Where the store keeps the model of a run."""
    experiment = mlflow.get_run(run_id).info.experiment_id
    named = f"source_run_id = '{run_id}' AND name = 'model'"
    [logged] = mlflow.search_logged_models([experiment], named, output_format="list")
    return Path(logged.artifact_location.removeprefix("file://"))


@contextmanager
def changed(file: Path, content: bytes) -> Iterator[None]:
    """As somebody may who can write to the artifact store, and not to its database."""
    before = file.read_bytes()
    assert content != before
    file.write_bytes(content)
    try:
        yield
    finally:
        file.write_bytes(before)


def test_what_a_model_says_of_itself_cannot_be_changed(store: Store):
    file = files_of(store.worse) / "MLmodel"
    known = yaml.safe_load(file.read_text())
    swapped = {**known, "metadata": {**known["metadata"], "classes": ["malignant", "benign"]}}
    with changed(file, yaml.safe_dump(swapped).encode()):
        for act in (
            lambda: promoted(store, QUICK, ANY, f"run={store.worse}"),
            lambda: load_saved_model(store.worse),
            lambda: load_saved_model(f"runs:/{store.worse}/model"),
        ):
            with pytest.raises(ModelError, match="MLmodel has SHA-256"):
                act()
    assert alias_of(NAME, Alias.CHAMPION) is None
    # Nor can a model pass for one of another run, or of none.
    for run_id in (store.good, "0" * 32, None):
        other = yaml.safe_dump({**known, "run_id": run_id, "model_id": None}).encode()
        with changed(file, other), pytest.raises(ModelError, match="MLmodel has SHA-256"):
            load_saved_model(store.worse)
    assert load_saved_model(store.worse).run_id == store.worse


def test_code_beside_a_model_is_not_run(store: Store, tmp_path: Path):
    """The folder of a run's model is made to look like a package."""
    folder = files_of(store.worse)
    (folder / "code").mkdir()
    (folder / "code/evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(7)\n")
    known = yaml.safe_load((folder / "MLmodel").read_text())
    flavor = {"loader_module": "evil", "code": "code", "data": "data", "env": {}, "python_version": "3.11.7"}
    evil = {"metadata": {"packaged": True}, "flavors": {"python_function": flavor}}
    try:
        with changed(folder / "MLmodel", yaml.safe_dump({**known, **evil}).encode()):
            with pytest.raises(ModelError, match=r"The model is refused: .* MLmodel has SHA-256"):
                serve(ServeConfig(saved_model=store.worse, port=0), store.uri)
            with pytest.raises(ModelError, match=r"The model is refused: .* MLmodel has SHA-256"):
                load_saved_model(store.worse)
    finally:
        shutil.rmtree(folder / "code")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("address", ["{version}/", "models:/" + NAME + "@champion/", "models:/x/y/z", "runs:/{run}"])
def test_an_address_that_names_no_model_passes_no_check(store: Store, address: str):
    promoted(store, QUICK)
    with pytest.raises(ModelError, match="There is no such model"):
        load_saved_model(address.format(version=f"models:/{NAME}/1", run=store.good))


def test_evidence_that_was_changed_promotes_nothing(store: Store):
    promoted(store, QUICK)
    theirs, ours = (
        Path(mlflow.get_run(run_id).info.artifact_uri.removeprefix("file://")) for run_id in (store.good, store.worse)
    )
    paths = (
        "evaluation/predictions.csv", "evaluation/metrics.json", "evaluation/subgroups.csv", "config/resolved.yaml"
    )  # fmt: skip
    for path in paths:
        better, worse = (theirs / path).read_bytes(), (ours / path).read_bytes()
        with changed(ours / path, better), pytest.raises(PromotionRefused, match=f"evidence: {path} of the run was"):
            promoted(store, QUICK, ANY, f"run={store.worse}")
        if "predictions" in path or "config" in path:  # the champion's own: then nothing can be compared with it
            refused = pytest.raises(PromotionRefused, match=f"cannot be compared: {path} of the run was")
            with changed(theirs / path, worse), refused:
                promoted(store, QUICK, f"run={store.worse}")


def test_a_candidate_with_another_binary_task_is_not_compared(store: Store, monkeypatch):
    promoted(store, QUICK)
    tasks = {store.good: ["malignant"], store.worse: ["benign"]}
    monkeypatch.setattr(RunRecord, "binary_tasks", property(lambda record: {"bad": tasks[record.id]}))
    with pytest.raises(PromotionRefused, match=r"against champion 1, bad/auc: cannot be compared: bad is of"):
        promoted(store, QUICK, "registry.champion.metric=bad/auc", f"run={store.worse}")
    monkeypatch.setattr(RunRecord, "binary_tasks", {})
    with pytest.raises(PromotionRefused, match="binary tasks: bad: not defined; wanted bad: malignant"):
        promoted(store, QUICK, ANY, "registry.binary_tasks={bad: [malignant]}", f"run={store.worse}")


def test_a_rollback_while_a_promotion_waits_or_is_tried_is_seen(store: Store, monkeypatch):
    promoted(store, QUICK, f"run={store.worse}")
    promoted(store, QUICK, ANY)  # good is the champion
    taken = promote_module.registry_lock

    @contextmanager
    def after_a_rollback(uri: str, name: str) -> Iterator[None]:
        monkeypatch.setattr(promote_module, "registry_lock", taken)
        rollback(RollbackConfig(), uri)
        with taken(uri, name):
            yield

    monkeypatch.setattr(promote_module, "registry_lock", after_a_rollback)
    assert promoted(store, QUICK, ANY) is None  # of the others the champion is the best, not the one rolled back
    assert alias_of(NAME, Alias.CHAMPION).run_id == store.worse

    def meanwhile(*_) -> Gate:
        decision = new_decision(
            "rollback", alias_of(NAME, Alias.PREVIOUS), alias_of(NAME, Alias.CHAMPION), store.good, []
        )
        write_down(NAME, decision)
        carry_out(NAME, decision)  # as from another machine: version 2 is the champion
        return Gate("serving", True, "tried")

    monkeypatch.setattr(promote_module, "smoke_gate", meanwhile)
    version = promoted(store, ANY, f"run={store.other_split}")
    assert int(version.version) == 3
    assert decisions(NAME)[-1].replaces == 2
    assert int(alias_of(NAME, Alias.PREVIOUS).version) == 2


def test_an_interrupted_promotion_leaves_no_version(store: Store, monkeypatch):
    promoted(store, QUICK)

    def interrupted(*_) -> Gate:
        raise KeyboardInterrupt

    monkeypatch.setattr(promote_module, "smoke_gate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        promoted(store, ANY, f"run={store.worse}")
    assert [version.run_id for version in client(store.uri).search_model_versions(f"name = '{NAME}'")] == [store.good]
    assert promoted(store, QUICK, ANY, f"run={store.worse}") is not None


def test_champions_without_a_run(store: Store, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture):
    promoted(store, QUICK)
    store_client = client(store.uri)
    for run_id in (store.good, store.other_split):
        store_client.delete_run(run_id)
    promoted(store, QUICK, ANY)  # the best of those that are left
    assert alias_of(NAME, Alias.CHAMPION).run_id == store.worse
    by_hand = store_client.create_model_version(NAME, str(files_of(store.worse)))
    store_client.set_registered_model_alias(NAME, Alias.CHAMPION, by_hand.version)
    with pytest.raises(PromotionRefused, match="it was registered without a run"):
        promoted(store, QUICK, f"run={store.worse}")
    show_registry(RollbackConfig(), store.uri)
    assert "by hand" in capsys.readouterr().out
    assert "it was registered without one" not in caplog.text
    with suppress(PromotionRefused):
        promoted(store, QUICK)
    assert "it was registered without one" in caplog.text


KILLED_BEFORE = (
    "create_registered_model", "create_model_version", "set_registered_model_tag", "set_tag", "set_model_version_tag",
    "update_model_version", "log_dict", "set_registered_model_alias",
)  # fmt: skip


@pytest.mark.slow
def test_a_promotion_killed_at_any_point_leaves_one_champion(made: Store, tmp_path: Path, monkeypatch):
    """The command's own function, ended before each of its changes of the store, by a process that is no more."""

    class Killed(BaseException):
        pass

    call, finished, outcomes = 0, False, set()
    while not finished:
        folder = tmp_path / str(call)
        folder.mkdir()
        store = copied(made, folder)
        promoted(store, QUICK, f"run={store.worse}")
        left = call

        def counting(change):
            def counted(*arguments, **named):
                nonlocal left
                if left <= 0:
                    raise Killed
                left -= 1
                return change(*arguments, **named)

            return counted

        with monkeypatch.context() as patched:
            for name in KILLED_BEFORE:
                patched.setattr(mlflow.MlflowClient, name, counting(getattr(mlflow.MlflowClient, name)))
            patched.setattr("melanoma.tracking.heartbeat._machine", lambda: "elsewhere")
            patched.setattr("melanoma.registry.promote.withdraw", lambda version: None)  # it is no more
            try:
                promoted(store, QUICK, ANY, f"run={store.good}")
                finished = True
            except Killed:
                pass
        with monkeypatch.context() as patched:
            patched.setattr("melanoma.registry.versions.ABANDONED", 0)
            champion = alias_of(NAME, Alias.CHAMPION).run_id
            assert champion in (store.good, store.worse)
            repair(NAME)
            assert alias_of(NAME, Alias.CHAMPION).run_id == champion
            assert {one.state for one in decisions(NAME)} <= {"done", "abandoned"}
            assert repair(NAME) == []
        versions = client(store.uri).search_model_versions(f"name = '{NAME}'")
        assert {version.tags["melanoma.promotion"] for version in versions} == {"promoted"}
        tag = client(store.uri).get_run(store.good).data.tags.get("melanoma.promotion")
        assert (tag == "promoted") is (champion == store.good)
        outcomes.add(champion == store.good)
        call += 1
    assert outcomes == {False, True}
    assert call > 20


def test_a_rollback_is_remembered(store: Store, capsys: pytest.CaptureFixture):
    promoted(store, QUICK, f"run={store.worse}")
    promoted(store, QUICK, ANY)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/1"))
    folder.rename(folder.with_name("gone"))
    with pytest.raises(ModelError, match="The previous champion cannot be used"):
        rollback(RollbackConfig(), store.uri)
    folder.with_name("gone").rename(folder)
    rollback(RollbackConfig(), store.uri)
    assert alias_of(NAME, Alias.CHAMPION).run_id == store.worse
    assert promoted(store, QUICK, ANY) is None
    assert "it was rolled back" in capsys.readouterr().out
    with pytest.raises(PromotionRefused):
        promoted(store, QUICK, ANY, f"run={store.good}", "registry.floors={test/auc: 0.999}")
    assert promoted(store, QUICK, ANY) is None  # still
    assert promoted(store, QUICK, ANY, f"run={store.good}") is not None


def test_the_commands_and_their_exit_codes(store: Store, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    uri = f"tracking.uri={store.uri}"
    done = run_melanoma("promote", uri, *EASY, QUICK, f"run={store.worse}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run_melanoma("promote", uri, *EASY, QUICK, f"run={store.leaky}", "--dry-run", cwd=tmp_path)
    assert done.returncode == 5
    assert "was refused:\n  - protocol: published" in done.stderr
    assert "Traceback" not in done.stderr
    failures = {
        ("rollback", uri): "no previous champion to roll back to",
        ("promote", uri, "run=nosuchrun"): "There is no such run",
        ("promote", uri, "tracking.experiment=nosuch"): "There is no such experiment",
        ("promote", uri, "task=other"): "No run of the experiment is of this task",
        ("serve", uri, "model=models:/nosuch@champion"): "There is no such model",
        ("registry", "tracking.uri=sqlite:////nowhere/mlflow.db"): "There is no tracking store yet",
        ("registry", f"tracking.uri=sqlite:///{__file__}"): "The MLflow store cannot be used",
        ("promote", uri, "registry.metric=validation/auv"): "Received: registry.metric=validation/auv",
        (
            "promote",
            uri,
            "registry.champion.metric=auv",
        ): "registry.champion.metric must be accuracy, balanced_accuracy, macro_f1, auc or BINARY_TASK/auc",
    }
    for words, message in failures.items():
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        assert ended.value.code == 2
        assert message in capsys.readouterr().err
    main(["registry", uri])
    assert "promoted version 1" in capsys.readouterr().out
    assert list(tmp_path.glob("outputs")) == []


@pytest.mark.slow
def test_eight_promotions_at_once_and_one_that_is_killed(store: Store, tmp_path: Path):
    words = ["promote", f"tracking.uri={store.uri}", *EASY, QUICK, ANY]
    runs = [store.good, store.worse] * 4
    processes = [subprocess.Popen([COMMAND, *words, f"run={run}"], cwd=tmp_path) for run in runs]
    assert [process.wait(600) for process in processes] == [0] * 8
    trail = decisions(NAME)
    assert {one.state for one in trail} == {"done"}
    assert [one.replaces for one in trail] == [None, *(one.version for one in trail[:-1])]
    assert int(alias_of(NAME, Alias.CHAMPION).version) == trail[-1].version
    champion = alias_of(NAME, Alias.CHAMPION).run_id
    other = store.worse if champion == store.good else store.good
    rng = np.random.default_rng(0)
    for _ in range(4):
        process = subprocess.Popen([COMMAND, *words, f"run={other}"], cwd=tmp_path, start_new_session=True)
        time.sleep(rng.uniform(5, 12))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert alias_of(NAME, Alias.CHAMPION).run_id in (store.good, store.worse)
    assert subprocess.run([COMMAND, *words, f"run={other}"], cwd=tmp_path, check=False).returncode == 0
    assert alias_of(NAME, Alias.CHAMPION).run_id == other
    versions = client(store.uri).search_model_versions(f"name = '{NAME}'")
    assert {version.tags["melanoma.promotion"] for version in versions} == {"promoted"}


@pytest.mark.slow
def test_a_package_answers_in_an_environment_made_from_its_own_requirements(store: Store, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}")  # uv
    promoted(store, QUICK)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}@{Alias.CHAMPION}"))
    example = folder / "serving_input_example.json"
    output = tmp_path / "answer.json"
    mlflow.models.predict(
        str(folder), input_path=str(example), content_type="json", output_path=str(output), env_manager="uv"
    )
    answer = json.loads(output.read_text())["predictions"][0]
    expected = mlflow.pyfunc.load_model(str(folder)).predict(
        pd.DataFrame(**json.loads((folder / "input_example.json").read_text()))
    )
    assert answer["probability/malignant"] == pytest.approx(expected["probability/malignant"][0], abs=1e-5)
