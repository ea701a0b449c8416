"""Digests of files: right, remembered while a file is unchanged, and independent of names."""

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest

from melanoma.data.digests import data_fingerprint, file_digests, unread_reasons


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("one", "two", "three"):
        (folder / f"{name}.jpg").write_bytes(name.encode())
    return folder


def rewrite(path: Path, content: bytes, mtime_ns: int) -> None:
    path.write_bytes(content)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def test_digests_are_of_the_bytes_in_the_asked_order(root, cache):
    paths = ["two.jpg", "one.jpg", "two.jpg"]
    assert file_digests(root, paths) == [sha256(b"two"), sha256(b"one"), sha256(b"two")]


def test_unchanged_files_are_not_read_again(root, cache):
    """A file of other content, but the same size and time, is taken for the one that was read."""
    before = file_digests(root, ["one.jpg"])
    rewrite(root / "one.jpg", b"neo", (root / "one.jpg").stat().st_mtime_ns)
    assert file_digests(root, ["one.jpg"]) == before


def test_changed_files_are_read_again(root, cache):
    file_digests(root, ["one.jpg", "two.jpg"])
    rewrite(root / "one.jpg", b"neo", (root / "one.jpg").stat().st_mtime_ns + 1)  # same size
    rewrite(root / "two.jpg", b"longer", (root / "two.jpg").stat().st_mtime_ns)  # same time
    for _ in range(2):
        assert file_digests(root, ["one.jpg", "two.jpg"]) == [sha256(b"neo"), sha256(b"longer")]


def test_what_is_remembered_survives_a_call_for_other_files(root, cache):
    file_digests(root, ["one.jpg"])
    file_digests(root, ["two.jpg"])
    rewrite(root / "one.jpg", b"neo", (root / "one.jpg").stat().st_mtime_ns)
    assert file_digests(root, ["one.jpg"]) == [sha256(b"one")]


def test_nothing_new_means_nothing_written(root, cache):
    file_digests(root, ["one.jpg", "two.jpg"])
    [memo] = (cache / "digests").iterdir()
    before = memo.stat()
    file_digests(root, ["two.jpg", "one.jpg"])
    assert (memo.stat().st_ino, memo.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_folders_do_not_share_what_is_remembered(root, tmp_path, cache):
    file_digests(root, ["one.jpg"])
    (tmp_path / "other").mkdir()
    rewrite(tmp_path / "other/one.jpg", b"neo", (root / "one.jpg").stat().st_mtime_ns)
    assert file_digests(tmp_path / "other", ["one.jpg"]) == [sha256(b"neo")]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_damaged_memory_is_forgotten(root, cache, content):
    file_digests(root, ["one.jpg"])
    [memo] = (cache / "digests").iterdir()
    memo.write_bytes(content)
    assert file_digests(root, ["one.jpg"]) == [sha256(b"one")]


def test_a_missing_file_has_no_digest(root, cache):
    assert file_digests(root, ["none.jpg", "one.jpg"]) == [None, sha256(b"one")]


@pytest.mark.parametrize("seen_before", [False, True])
def test_a_file_that_may_not_be_read_has_no_digest(public_path, unprivileged, monkeypatch, seen_before):
    for name in ("open", "closed"):
        (public_path / name).write_bytes(name.encode())
    cache = public_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(cache))
    if seen_before:
        file_digests(public_path, ["open", "closed"])
    for path in [cache, *cache.rglob("*")]:
        path.chmod(0o777)
    (public_path / "closed").chmod(0)
    assert unprivileged(file_digests, public_path, ["open", "closed"]) == [sha256(b"open"), None]


TABLE = pd.DataFrame(
    {
        "path": ["a/1.jpg", "a/2.jpg", "b/3.jpg"],
        "sha256": ["s1", "s2", "s3"],
        "label": ["a", "a", "b"],
        "part": ["train", "test", "train"],
    }
)


@pytest.mark.parametrize(
    "same",
    [TABLE.iloc[::-1], TABLE.assign(path=["x", "y", "z"]), TABLE.assign(age=3)],
    ids=["order", "file names", "other columns"],
)
def test_the_fingerprint_does_not_depend_on(same):
    assert data_fingerprint(same) == data_fingerprint(TABLE)


@pytest.mark.parametrize(
    "other",
    [
        TABLE.assign(sha256=["s1", "s2", "other"]),
        TABLE.assign(label=["a", "b", "a"]),
        TABLE.assign(part=["train", "train", "train"]),
        TABLE.iloc[:2],
        pd.concat([TABLE, TABLE.iloc[:1]]),
    ],
    ids=["content", "labels", "delivered part", "an image less", "an image twice"],
)
def test_the_fingerprint_depends_on(other):
    assert data_fingerprint(other) != data_fingerprint(TABLE)


def test_pipes_devices_and_huge_files_are_not_opened(tmp_path, cache):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 2 * 1024**3)
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    paths = ["pipe.jpg", "huge.jpg", "device.jpg", "none.jpg"]
    assert file_digests(tmp_path, paths) == [None] * 4
    reasons = unread_reasons(tmp_path, pd.DataFrame({"path": paths, "sha256": None}))
    assert [reason.split(" (")[0] for reason in reasons] == [
        "not a regular file", "larger than allowed", "not a regular file", "it cannot be opened",
    ]  # fmt: skip


def _with_another_digit(memo: str) -> str:
    return memo.replace(sha256(b"one"), sha256(b"two"))


@pytest.mark.parametrize(
    "damage", [_with_another_digit, lambda _: "5", lambda _: "[1]", lambda _: '{"files": 5}', lambda memo: memo[:-9]]
)
def test_a_damaged_memo_is_made_anew(root, cache, damage):
    file_digests(root, ["one.jpg"])
    [memo] = cache.glob("digests/*.json")
    memo.write_text(damage(memo.read_text()))
    assert file_digests(root, ["one.jpg"]) == [sha256(b"one")]
    assert damage(memo.read_text()) != memo.read_text()
