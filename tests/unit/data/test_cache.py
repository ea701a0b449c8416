"""The cache: made once, whole or not at all, cleared by kind."""

import json
import multiprocessing
import os
import resource
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from melanoma.commands.cache import main as cache_command
from melanoma.data.cache import (
    CHECKSUMS,
    cached_folder,
    check_writable,
    clear,
    content_key,
    entries,
    write_atomically,
)
from melanoma.errors import DataError, MelanomaError

FORK = multiprocessing.get_context("fork")


def make(folder: Path) -> None:
    (folder / "content").write_text("made")


def names(folder: Path) -> list[str]:
    """What is in a folder, but for locks and checksums."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock" and path.name != CHECKSUMS)


def test_an_entry_is_made_once(cache):
    first = cached_folder("decoded", "key", make)
    assert first == cache / "decoded/key"
    assert cached_folder("decoded", "key", lambda _: pytest.fail("made again")) == first
    assert names(first) == ["content"]


def test_keys_and_kinds_are_apart(cache):
    folders = {cached_folder(kind, key, make) for kind in ("decoded", "archives") for key in ("a", "b")}
    assert len(folders) == 4


def _slow_make_and_read(makes: Path, barrier) -> list[str]:
    def slow(folder: Path) -> None:
        (makes / str(os.getpid())).touch()
        (folder / "first").touch()
        time.sleep(0.3)
        (folder / "second").touch()

    barrier.wait()
    return names(cached_folder("decoded", "key", slow))


def _run(queue, *arguments) -> None:
    queue.put(_slow_make_and_read(*arguments))


def test_processes_at_once_make_an_entry_once_and_see_it_whole(tmp_path, cache):
    (tmp_path / "makes").mkdir()
    barrier, queue = FORK.Barrier(4), FORK.Queue()
    processes = [FORK.Process(target=_run, args=(queue, tmp_path / "makes", barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [["first", "second"]] * 4
    for process in processes:
        process.join()
    assert len(names(tmp_path / "makes")) == 1
    assert names(cache / "decoded") == ["key"]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_the_next_call_makes_it(cache, error):
    def fail(folder: Path) -> None:
        make(folder)
        raise error("stop")

    with pytest.raises(error, match="stop"):
        cached_folder("decoded", "key", fail)
    assert names(cache / "decoded") == []
    assert names(cached_folder("decoded", "key", make)) == ["content"]


def _killed_while_making() -> None:
    def die(folder: Path) -> None:
        make(folder)
        os.kill(os.getpid(), signal.SIGKILL)

    cached_folder("decoded", "key", die)


def test_what_a_killed_process_left_is_removed_by_the_next(cache):
    other = cache / "decoded/.other.abc.tmp"
    other.mkdir(parents=True)
    process = FORK.Process(target=_killed_while_making)
    process.start()
    process.join()
    assert len(names(cache / "decoded")) == 2
    assert entries() == []
    cached_folder("decoded", "key", make)
    assert names(cache / "decoded") == [other.name, "key"]


def _zeroed(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES = {
    "zeroed": _zeroed,
    "cut": lambda file: os.truncate(file, file.stat().st_size - 1),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"x"),
    "deleted": lambda file: file.unlink(),
    "checksums cut": lambda file: os.truncate(file.parent / CHECKSUMS, 5),
    "checksums of another kind": lambda file: (file.parent / CHECKSUMS).write_text('{"content": 3}'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_entry_is_made_anew_with_a_line(cache, damage, caplog):
    folder = cached_folder("decoded", "key", make)
    damage(folder / "content")
    assert cached_folder("decoded", "key", make) == folder
    assert (folder / "content").read_text() == "made"
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("A part of the cache is damaged and is made anew: ")
    assert cached_folder("decoded", "key", lambda _: pytest.fail("made again")) == folder


def test_an_entry_of_an_older_version_is_not_compared(cache):
    folder = cached_folder("decoded", "key", make)
    (folder / CHECKSUMS).unlink()
    (folder / "content").write_text("other")
    assert cached_folder("decoded", "key", lambda _: pytest.fail("made again")) == folder


def _with_little_space(queue) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        cached_folder("decoded", "key", lambda folder: (folder / "content").write_bytes(bytes(5000)))
    except DataError as error:
        queue.put(str(error))


def test_a_full_disk_ends_in_one_message_and_leaves_nothing(cache):
    """A limit of the process on the size of files stands for the end of the disk."""
    queue = FORK.Queue()
    process = FORK.Process(target=_with_little_space, args=(queue,))
    process.start()
    message = queue.get(timeout=30)
    process.join()
    assert message.startswith("The cache cannot be written (")
    assert "melanoma cache clear" in message
    assert names(cache / "decoded") == []
    assert names(cached_folder("decoded", "key", make)) == ["content"]


def filled(cache: Path) -> None:
    for kind, key, size in (("decoded", "d1", 300), ("archives", "a1", 200), ("archives", "a2", 700)):
        folder = cached_folder(kind, key, lambda folder: (folder / "deep/er").mkdir(parents=True))
        (folder / "x").write_bytes(bytes(size - 100 - (folder / CHECKSUMS).stat().st_size))
        (folder / "deep/er/y").write_bytes(bytes(100))
    write_atomically(cache / "digests/memo.json", "x" * 50)
    (cache / "archives/.a3.abc.tmp").mkdir()


def test_entries_are_listed_with_their_sizes_largest_first(cache):
    filled(cache)
    found = [(entry.kind, entry.key, entry.bytes) for entry in entries()]
    assert found == [("archives", "a2", 700), ("decoded", "d1", 300), ("archives", "a1", 200), ("digests", "memo", 50)]


def test_an_entry_knows_when_it_was_last_used(cache):
    folder = cached_folder("decoded", "key", make)
    os.utime(folder, (0, 0))
    assert entries()[0].last_used == datetime(1970, 1, 1, tzinfo=UTC)
    cached_folder("decoded", "key", make)
    assert entries()[0].last_used.year > 2000


@pytest.mark.parametrize(
    ("kind", "removed", "kept"),
    [
        (None, ["a2", "d1", "a1", "memo"], []),
        ("archives", ["a2", "a1"], ["d1", "memo"]),
        ("digests", ["memo"], ["a2", "d1", "a1"]),
        ("augmentor", [], ["a2", "d1", "a1", "memo"]),
    ],
)
def test_clear_removes_one_kind_or_all(cache, kind, removed, kept):
    filled(cache)
    assert [entry.key for entry in clear(kind)] == removed
    assert [entry.key for entry in entries()] == kept
    assert (cache / "archives").exists() == (kind not in (None, "archives"))


def test_clear_leaves_other_files_in_the_cache_folder_alone(cache):
    filled(cache)
    (cache / "of the user").mkdir()
    clear()
    assert [path.name for path in cache.iterdir()] == ["of the user"]


def test_clearing_an_empty_cache_removes_nothing(cache):
    assert clear() == []


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (({"a": 1, "b": 2},), ({"b": 2, "a": 1},), True),
        ((("x", "y"),), (["x", "y"],), True),
        (("x", "y"), ("y", "x"), False),
        (("xy",), ("x", "y"), False),
        ((1,), ("1",), False),
        ((0.5, None), (0.5, 0), False),
    ],
)
def test_a_key_is_of_the_content(left, right, same):
    assert (content_key(*left) == content_key(*right)) is same


def test_a_key_is_the_same_on_every_machine():
    assert content_key("nævus", {"size": 64}) == "cc0133c7a01c26272baf825eb619ffe8"


def test_file_names_that_are_not_utf8_have_keys_too():
    assert content_key(os.fsdecode(b"\xff.jpg")) != content_key(os.fsdecode(b"\xfe.jpg"))


def _write_in_turn(path: Path) -> None:
    for _ in range(200):
        for letter in "ab":
            write_atomically(path, letter * 200_000)


def test_readers_see_an_old_or_a_new_file_and_never_a_part(tmp_path):
    path = tmp_path / "new/file.txt"
    write_atomically(path, "a" * 200_000)
    writer = FORK.Process(target=_write_in_turn, args=(path,))
    writer.start()
    seen = set()
    while writer.is_alive():
        text = path.read_text()
        seen.add((len(text), *set(text)))
    writer.join()
    assert seen <= {(200_000, "a"), (200_000, "b")}
    assert writer.exitcode == 0
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, "ä old")
    with pytest.raises(TypeError):
        write_atomically(path, 5)  # type: ignore[arg-type]
    assert path.read_text(encoding="utf-8") == "ä old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_pipe_is_written_to_and_a_link_kept(tmp_path):
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    check_writable(pipe)
    write_atomically(pipe, "rows")
    assert os.read(reader, 10) == b"rows"
    os.close(reader)
    link.symlink_to(tmp_path / "elsewhere")
    write_atomically(link, "rows")
    assert link.is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "rows"


def test_what_cannot_be_written_is_known_before(tmp_path):
    check_writable(tmp_path / "new/file.txt")
    assert os.listdir(tmp_path / "new") == []
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path)
    with pytest.raises(OSError):
        check_writable(Path("/proc/nowhere/file.txt"))


def test_a_file_name_that_is_not_utf_8_is_written_so_that_json_reads_it(tmp_path):
    path = tmp_path / "file.json"
    write_atomically(path, json.dumps(["a/\udcff.png"], ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == ["a/\udcff.png"]


@pytest.mark.parametrize(
    ("limits", "removed"),
    [
        ({"unused_days": 5}, ["a2", "d1"]),
        ({"unused_days": 15}, ["a2"]),
        ({"kind": "decoded", "unused_days": 5}, ["d1"]),
        ({"keep_gigabytes": 600e-9}, ["a2"]),
        ({"keep_gigabytes": 549e-9}, ["d1", "a2"]),
        ({"keep_gigabytes": 1}, []),
        ({"unused_days": 5, "keep_gigabytes": 0}, ["d1", "a2"]),
    ],
)
def test_clear_keeps_what_was_used_last(cache, limits, removed):
    filled(cache)
    for number, entry in enumerate(entries()):  # a2, d1, a1, memo
        used = time.time() - 86_400 * [20, 10, 1, 0][number]
        os.utime(entry.path, (used, used))
    everything = {entry.key for entry in entries()}
    assert sorted(entry.key for entry in clear(**limits)) == sorted(removed)
    assert {entry.key for entry in entries()} == everything - {*removed}


def test_check_compares_all_files_and_removes_what_is_damaged(cache, capsys):
    def deep(folder: Path) -> None:
        make(folder)
        (folder / "class").mkdir()
        (folder / "class/1.jpg").write_bytes(b"picture")

    for key in ("a", "b"):
        cached_folder("archives", key, deep)
    cache_command(["check"])
    assert "2 entries checked, 0 damaged" in capsys.readouterr().out
    (cache / "archives/a/class/1.jpg").write_bytes(b"picturE")
    assert cached_folder("archives", "a", lambda _: pytest.fail("made again"))  # of the same size
    cache_command(["check"])
    told = capsys.readouterr().out
    assert "Damaged: class/1.jpg in" in told
    assert "2 entries checked, 1 damaged" in told
    assert [entry.key for entry in entries()] == ["b"]


def _use_again_and_again(queue, barrier) -> None:
    wrong = 0
    for _ in range(25):
        barrier.wait()
        try:
            wrong += (cached_folder("decoded", "key", make) / "content").read_text() != "made"
        except OSError:
            wrong += 1
        barrier.wait()
    queue.put(wrong)


def test_processes_at_once_on_a_damaged_entry_see_it_whole(cache):
    queue, barrier = FORK.Queue(), FORK.Barrier(4)
    cached_folder("decoded", "key", make)
    processes = [FORK.Process(target=_use_again_and_again, args=(queue, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for _ in range(25):
        (cache / "decoded/key/content").write_text("mAde")
        barrier.wait()
        barrier.wait()
    assert [queue.get(timeout=60) for _ in processes] == [0, 0, 0]
    for process in processes:
        process.join()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["clean"], "invalid choice: 'clean'"),
        (["clear", "pictures"], "invalid choice: 'pictures'"),
        (["clear", "--older-than", "soon"], "--older-than: must be a number from 0"),
        (["clear", "--keep-gigabytes", "-1"], "--keep-gigabytes: must be"),
        (["clear", "--older-than", "1e12"], "--older-than: must be.*received 1e12"),
        (["check", "decoded"], "Only clear takes"),
        (["clear", "--older", "3"], "unrecognized arguments"),
    ],
)
def test_wrong_words_are_told_with_the_usage(cache, words, message):
    with pytest.raises(MelanomaError, match=message) as raised:
        cache_command(words)
    assert "Usage: melanoma cache list" in str(raised.value)
    assert raised.value.exit_code == 2


def _use(cache: str) -> str:
    os.environ["MELANOMA_CACHE_DIR"] = cache
    try:
        return (cached_folder("decoded", "key", make) / "content").read_text()
    except DataError as error:
        return str(error)


def test_a_cache_that_may_not_be_written_is_used_or_ends_in_one_message(public_path, monkeypatch, unprivileged):
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(public_path / "cache"))
    folder = cached_folder("decoded", "key", make)
    assert unprivileged(_use, str(public_path / "cache")) == "made"
    (folder / "content").write_text("mAde")
    told = unprivileged(_use, str(public_path / "cache"))
    assert told.startswith("The cache cannot be written (Permission denied)")
