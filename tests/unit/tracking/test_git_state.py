"""The state of the code that a run was made with."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from melanoma.tracking.log_config import log_config
from melanoma.tracking.source import git_commit, git_diff


def git(folder: Path, *arguments: str) -> str:
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    return subprocess.run(["git", *author, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that is taken for the project's."""
    monkeypatch.setattr("melanoma.tracking.source.project_root", lambda: tmp_path)
    (tmp_path / "code.py").write_text("old\n")
    (tmp_path / ".gitignore").write_text("outputs\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_a_clean_tree_is_its_commit(checkout: Path):
    (checkout / "outputs").mkdir()
    (checkout / "outputs" / "train.log").touch()
    assert git_commit() == {"mlflow.source.git.commit": git(checkout, "rev-parse", "HEAD").strip()}
    assert git_diff() == ""


def test_the_diff_restores_what_was_run(checkout: Path, tmp_path_factory: pytest.TempPathFactory):
    changed = {"code.py": b"new\n", "weights.bin": bytes(range(256))}
    for name, content in changed.items():
        (checkout / name).write_bytes(content)
    git(checkout, "add", "weights.bin")
    (checkout / "notes.txt").touch()
    patch = tmp_path_factory.mktemp("source") / "diff.patch"
    patch.write_text(git_diff())
    assert patch.read_text().startswith("# untracked: notes.txt\ndiff --git ")
    git(checkout, "reset", "-q", "--hard")
    git(checkout, "apply", str(patch))
    assert {name: (checkout / name).read_bytes() for name in changed} == changed


def test_a_long_diff_is_cut_and_says_so(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("melanoma.tracking.source._MAX_DIFF", 50)
    (checkout / "code.py").write_text("new\n" * 100)
    first, rest = git_diff().split("\n", 1)
    assert first.startswith("# cut after 50 of ")
    assert len(rest) == 50


def test_a_run_keeps_the_diff_where_there_is_one(checkout: Path):
    texts: dict[str, str] = {}

    def log_text(text: str, path: str) -> None:
        texts[path] = text

    run = SimpleNamespace(log_params=lambda params: None, log_text=log_text, log_evidence=log_text)
    log_config(run, {"seed": 0}, [])
    assert set(texts) == {"config/resolved.yaml", "config/overrides.yaml", "environment/requirements.txt"}
    (checkout / "code.py").write_text("new\n")
    log_config(run, {"seed": 0}, [])
    assert texts["source/diff.patch"] == git_diff()


def test_a_folder_of_somebody_elses_repository_has_neither(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    (checkout / "outputs").mkdir()
    (checkout / "code.py").write_text("new\n")
    monkeypatch.setattr("melanoma.tracking.source.project_root", lambda: checkout / "outputs")
    assert (git_commit(), git_diff()) == ({}, "")
