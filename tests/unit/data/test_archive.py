"""Archives: unpacked once, and never outside the cache, whatever they hold."""

import io
import random
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from melanoma.config.schema import ArchiveConfig
from melanoma.data.archive import unpack
from melanoma.data.cache import CHECKSUMS, entries
from melanoma.errors import DataError

GOOD = {"set/a/1.jpg": b"one", "set/b/2.jpg": b"two" * 1000}


def zip_bytes(members: dict[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return sink.getvalue()


def unpacked(content: bytes, folder: Path, max_files: int = 100, max_bytes: float = 1e6) -> Path:
    archive = folder / "set.zip"
    archive.write_bytes(content)
    return unpack(archive, ArchiveConfig(max_files=max_files, max_gigabytes=max_bytes / 1e9))


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def left_behind(cache: Path) -> list[Path]:
    """Everything in the cache but the folder of a kind and its locks."""
    return [path for path in cache.rglob("*") if path != cache / "archives" and path.suffix != ".lock"]


def member(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def with_field(content: bytes, local: int, central: int, value: bytes) -> bytes:
    """Write into the first member's two headers, at these offsets."""
    changed = bytearray(content)
    for magic, offset in ((b"PK\3\4", local), (b"PK\1\2", central)):
        at = content.index(magic) + offset
        changed[at : at + len(value)] = value
    return bytes(changed)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_are_unpacked_as_they_are(tmp_path, cache, method):
    folder = unpacked(zip_bytes(GOOD, method), tmp_path)
    assert files(folder) == GOOD
    assert folder.is_relative_to(cache)


def test_folders_and_clutter_are_passed_over(tmp_path, cache):
    clutter = {"set/": b"", "__MACOSX/set/a/._1.jpg": b"x", "set/.DS_Store": b"x", "set/a/Thumbs.db": b"x"}
    assert files(unpacked(zip_bytes(clutter | GOOD), tmp_path)) == GOOD


def test_backslashes_separate_folders(tmp_path, cache):
    assert files(unpacked(zip_bytes({"a\\1.jpg": b"x"}), tmp_path)) == {"a/1.jpg": b"x"}


def test_the_same_archive_is_unpacked_once(tmp_path, cache):
    folder = unpacked(zip_bytes(GOOD), tmp_path)
    (folder / "set/a/1.jpg").write_bytes(b"two")  # would be overwritten
    (tmp_path / "moved").mkdir()
    assert unpacked(zip_bytes(GOOD), tmp_path / "moved") == folder
    assert (folder / "set/a/1.jpg").read_bytes() == b"two"


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"on"), lambda file: file.unlink()])
def test_an_archive_whose_files_were_cut_or_deleted_is_unpacked_anew(tmp_path, cache, damage, caplog):
    folder = unpacked(zip_bytes(GOOD), tmp_path)
    damage(folder / "set/a/1.jpg")
    assert files(unpacked(zip_bytes(GOOD), tmp_path)) == GOOD
    assert "A part of the cache is damaged and is made anew" in caplog.text


def test_a_changed_archive_is_unpacked_anew(tmp_path, cache):
    first = unpacked(zip_bytes(GOOD), tmp_path)
    second = unpacked(zip_bytes(GOOD | {"set/a/1.jpg": b"new"}), tmp_path)
    assert (files(first)["set/a/1.jpg"], files(second)["set/a/1.jpg"]) == (b"one", b"new")


OUTSIDE = ["../evil.jpg", "a/../../evil.jpg", "/tmp/evil.jpg", "..\\evil.jpg", "a\\..\\..\\evil.jpg", "\\evil.jpg"]
HOSTILE = {
    **{f"outside {name}": (zip_bytes(GOOD | {name: b"x"}), "outside its folder; refused") for name in OUTSIDE},
    "drive letter": (zip_bytes({"C:\\evil.jpg": b"x"}), r"outside its folder; refused.*C:"),
    "link": (zip_bytes(GOOD | {member("l.jpg", stat.S_IFLNK | 0o777): b"/etc/passwd"}), "a link or a device.*l.jpg"),
    "device": (zip_bytes(GOOD | {member("d.jpg", stat.S_IFCHR | 0o777): b""}), "a link or a device.*d.jpg"),
    "many files": (zip_bytes({f"{i}.jpg": b"" for i in range(101)}), "max_files=100.*Received: 101 files in .*set.zip"),
    "many bytes": (zip_bytes({"a.jpg": bytes(1_000_001)}), r"max_gigabytes=0\.001.*Received: 0\.00 GB in .*set.zip"),
    "bytes in sum": (zip_bytes({f"{i}.jpg": bytes(20_000) for i in range(60)}), r"max_gigabytes=0\.001"),
    "encrypted": (with_field(zip_bytes(GOOD), 6, 8, b"\1\0"), "encrypted.*Received: .*set.zip"),
    "truncated": (zip_bytes(GOOD)[:-40], r"not a readable \.zip.*Received: .*set.zip"),
    "no zip": (b"\x89PNG and so on", r"not a readable \.zip.*Received: .*set.zip"),
    "empty file": (b"", r"not a readable \.zip"),
    "damaged member": (zip_bytes(GOOD, zipfile.ZIP_STORED).replace(b"one", b"0ne"), "damaged at 'set/a/1.jpg'"),
    "declares less than it holds": (
        with_field(zip_bytes({"bomb.jpg": bytes(900_000)}), 22, 24, struct.pack("<I", 10)),
        "damaged at 'bomb.jpg'",
    ),
    "a file without a name": (zip_bytes({"b.jpg": b"2"}).replace(b"b.jpg", b"././."), "has no name"),
    "same file twice": (
        zip_bytes({"a.jpg": b"1", "b.jpg": b"2"}).replace(b"b.jpg", b"a.jpg"),
        "holds two files of one name.*'a.jpg'",
    ),
    "file and folder": (zip_bytes({"a": b"1", "a/1.jpg": b"2"}), "Unpacking failed at 'a/1.jpg'"),
    "unknown method": (with_field(zip_bytes(GOOD), 8, 10, b"\x63\0"), "damaged at 'set/a/1.jpg'"),
    "later zip version": (with_field(zip_bytes(GOOD), 4, 6, b"\xff\0"), r"not a readable \.zip"),
    "name is not UTF-8": (zip_bytes({"ü.jpg": b"x"}).replace("ü".encode(), b"\xff\xfe"), r"not a readable \.zip"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_archives_are_refused_and_leave_nothing(tmp_path, cache, content, message):
    with pytest.raises(DataError, match=message):
        unpacked(content, tmp_path)
    assert left_behind(cache) == []
    assert entries() == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "set.zip"]
    assert not Path("/tmp/evil.jpg").exists()


def test_a_bomb_is_refused_by_its_ratio(tmp_path, cache):
    content = zip_bytes({f"{i}.jpg": bytes(30_000_000) for i in range(4)})
    with pytest.raises(DataError, match=r"more than data\.archive\.max_ratio=100 times its size.*0\.12 GB"):
        unpacked(content, tmp_path, max_bytes=1e9)
    assert left_behind(cache) == []
    archive = tmp_path / "set.zip"
    folder = unpack(archive, ArchiveConfig(max_ratio=5000))
    assert len(files(folder)) == 4


def test_an_archive_exactly_at_its_caps_is_unpacked(tmp_path, cache):
    size = sum(len(content) for content in GOOD.values())
    assert files(unpacked(zip_bytes(GOOD), tmp_path, max_files=len(GOOD), max_bytes=size)) == GOOD


def test_an_interrupted_unpacking_leaves_nothing(tmp_path, cache, monkeypatch):
    def interrupted(items, title, total=None):
        yield next(iter(items))
        raise KeyboardInterrupt

    monkeypatch.setattr("melanoma.data.archive.track", interrupted)
    (tmp_path / "set.zip").write_bytes(zip_bytes(GOOD))
    with pytest.raises(KeyboardInterrupt):
        unpack(tmp_path / "set.zip", ArchiveConfig(max_files=9, max_gigabytes=0.001))
    assert left_behind(cache) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_random_damage_is_unpacked_or_refused_and_never_crashes(tmp_path, cache, method):
    sound = zip_bytes(GOOD | {"ü.jpg": bytes(range(256))}, method)
    rng = random.Random(method)
    outcomes = set()
    for _ in range(150):
        damaged = bytearray(sound)
        for _ in range(rng.choice([1, 2, 5])):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            outcomes.add(unpacked(bytes(damaged), tmp_path).is_dir())
        except DataError:
            outcomes.add(False)
        assert not list(cache.glob("archives/.*.tmp"))
    assert outcomes == {True, False}
