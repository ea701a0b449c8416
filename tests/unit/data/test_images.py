"""Decoded images on disk: the right rows, shared between processes, and no memory for what was read."""

import errno
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from melanoma.data.archive import file_sha256
from melanoma.data.cache import entries
from melanoma.data.decode import decode
from melanoma.data.images import ImageStore, decode_images
from melanoma.errors import DataError
from tests.unit.data.conftest import noise

SIZE = 12
FORK = multiprocessing.get_context("fork")


def store_of(files: list[Path], size: int = SIZE, resize: str = "stretch", max_pixels: float = 1e6):
    return decode_images(
        files,
        [file_sha256(file) for file in files],
        size=size,
        resize=resize,
        max_pixels=max_pixels,
    )


@pytest.fixture
def files(tmp_path, write_image) -> list[Path]:
    return [write_image(tmp_path / f"{i}.png", i) for i in range(7)]


def test_rows_are_read_in_the_asked_order(files, cache):
    store, rows, reasons = store_of(files)
    expected = np.stack([decode(file, size=SIZE) for file in files])
    assert len(store) == len(set(rows)) == 7
    assert reasons == {}
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 0, 3], [2, 2, 5, 2], [4]):
        np.testing.assert_array_equal(store.read([rows[i] for i in order]), expected[order])
    assert store.read([]).shape == (0, SIZE, SIZE, 3)


def test_files_of_equal_bytes_share_one_row(files, cache, write_image, tmp_path):
    twin = write_image(tmp_path / "twin.png", 3)
    store, rows, _ = store_of([*files, twin])
    assert rows[-1] == rows[3]
    assert len(store) == 7


def test_what_cannot_be_decoded_has_a_reason_and_no_row(files, cache):
    files[2].write_bytes(b"")
    files[4].write_bytes(b"text, not an image")
    files[5].write_bytes(b"")
    for _ in range(2):  # decoded, then from the cache
        store, rows, reasons = store_of(files)
        assert [i for i, row in enumerate(rows) if row is None] == [2, 4, 5]
        assert reasons == {2: "empty file", 4: "not an image", 5: "empty file"}
        assert len(store) == 4


def test_nothing_readable_gives_an_empty_store(files, cache):
    files[0].write_bytes(b"")
    store, rows, _ = store_of(files[:1])
    assert (len(store), rows) == (0, [None])


def test_files_are_decoded_once_for_a_content_size_and_way(files, cache):
    before = store_of(files)[0].read(range(7))
    renamed = [file.rename(file.with_name(f"renamed {file.name}")) for file in files]
    again, rows, _ = store_of(renamed[::-1])
    np.testing.assert_array_equal(again.read(range(7)), before)
    assert sorted(rows) == list(range(7))
    assert len(entries()) == 1
    for i, change in enumerate(({"size": 10}, {"resize": "crop"}, {"max_pixels": 300}), 2):
        store_of(renamed, **change)
        assert len(entries()) == i


def test_joined_stores_read_from_each(files, cache):
    first, first_rows, _ = store_of(files[:4])
    second, second_rows, _ = store_of(files[4:])
    joined = first.joined(second).joined(first)
    rows = [*first_rows, *(4 + row for row in second_rows), *(7 + row for row in first_rows)]
    expected = np.stack([decode(file, size=SIZE) for file in [*files, *files[:4]]])
    assert len(joined) == 11
    np.testing.assert_array_equal(joined.read(rows[::-1]), expected[::-1])


def test_joining_an_empty_store_moves_no_row(files, cache):
    store, _, _ = store_of(files[:3])
    empty, _, _ = store_of([])
    for joined in (store.joined(empty), empty.joined(store), store.joined(empty).joined(store)):
        np.testing.assert_array_equal(joined.read([0, 1, 2]), store.read([0, 1, 2]))
        np.testing.assert_array_equal(joined.read([len(joined) - 1]), store.read([2]))


@pytest.fixture
def large(monkeypatch) -> None:
    """As if the entry were too large to be compared at each use."""
    monkeypatch.setattr("melanoma.data.cache._COMPARED", 0)


def _cut(pixels: Path) -> None:
    """As after the entry was opened: it has the right size."""
    content = pixels.read_bytes()
    pixels.write_bytes(content[: -SIZE * SIZE * 3 - 1] + bytes(SIZE * SIZE * 3 + 1))


@pytest.mark.parametrize("damage", [_cut, lambda pixels: pixels.write_bytes(bytes(pixels.stat().st_size))])
def test_damaged_rows_are_decoded_again_with_a_line(files, cache, large, damage, caplog):
    expected = np.stack([decode(file, size=SIZE) for file in files])
    store_of(files)
    [pixels] = cache.glob("decoded/*/images.u8")
    damage(pixels)
    store, rows, _ = store_of(files)
    np.testing.assert_array_equal(store.read(rows), expected)
    assert "A part of the cache is damaged; images are decoded again, such as " in caplog.text
    caplog.clear()
    store, rows, _ = store_of(files)  # it was mended on disk, too
    np.testing.assert_array_equal(store.read(rows), expected)
    assert caplog.text == ""


def test_a_file_that_is_cut_while_it_is_read_is_mended(files, cache):
    expected = np.stack([decode(file, size=SIZE) for file in files])
    store, rows, _ = store_of(files)
    store.read(rows)
    [pixels] = cache.glob("decoded/*/images.u8")
    os.truncate(pixels, 10)
    np.testing.assert_array_equal(store.read(rows), expected)


@pytest.mark.parametrize("lost", [lambda file: file.unlink(), lambda file: noise(99).save(file)])
def test_a_damaged_row_whose_file_is_lost_or_changed_ends_in_one_message(files, cache, large, lost):
    store_of(files)
    [pixels] = cache.glob("decoded/*/images.u8")
    store, rows, _ = store_of(files)
    pixels.write_bytes(bytes(pixels.stat().st_size))
    lost(files[3])
    with pytest.raises(DataError, match=r"cannot be decoded again.*melanoma cache clear decoded.*3\.png"):
        store.read([rows[3]])


@pytest.mark.parametrize("name", ["images.u8", "index.json", "checksums.u32"])
def test_a_damaged_entry_is_decoded_anew(files, cache, name, caplog):
    before, rows, _ = store_of(files)
    expected = before.read(rows)
    [file] = cache.glob(f"decoded/*/{name}")
    file.write_bytes(bytes(file.stat().st_size))
    store, rows, _ = store_of(files)
    np.testing.assert_array_equal(store.read(rows), expected)
    assert f"made anew: {name}" in caplog.text


def test_a_cleared_cache_stays_readable_for_who_has_it_open(files, cache):
    store, _, _ = store_of(files)
    before = store.read([0, 1])
    for path in cache.glob("decoded/*/*"):
        path.unlink()
    np.testing.assert_array_equal(store.read([0, 1]), before)


def _decode(queue, barrier, files) -> None:
    barrier.wait()
    store, rows, _ = store_of(files, size=200)
    queue.put(store.read(rows).tobytes())


def test_two_processes_decoding_at_once_share_one_entry(files, cache):
    queue, barrier = FORK.Queue(), FORK.Barrier(2)
    processes = [FORK.Process(target=_decode, args=(queue, barrier, files)) for _ in range(2)]
    for process in processes:
        process.start()
    results = [queue.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    expected = np.stack([decode(file, size=200) for file in files]).tobytes()
    assert results == [expected, expected]
    assert len(list((cache / "decoded").glob("[!.]*"))) == 1


def _read_all(queue, store: ImageStore, order: list[int]) -> None:
    queue.put(all((store.read([row]) == row).all() for row in order))


def test_processes_that_share_open_files_do_not_disturb_each_other(tmp_path):
    """As after a fork: one file, one position in it."""
    path = tmp_path / "images.u8"
    np.repeat(np.arange(200, dtype=np.uint8), SIZE * SIZE * 3).tofile(path)
    store = ImageStore(SIZE, (os.open(path, os.O_RDONLY),), (0, 200))
    queue = FORK.Queue()
    orders = [[*range(200)] * 20, [*range(199, -1, -1)] * 20]
    processes = [FORK.Process(target=_read_all, args=(queue, store, order)) for order in orders]
    for process in processes:
        process.start()
    assert [queue.get(timeout=30) for _ in processes] == [True, True]
    for process in processes:
        process.join()


GROWTH = """
import os, resource, sys
from melanoma.data.images import ImageStore
images = 20_000
os.truncate(sys.argv[1], images * 64 * 64 * 3)
store = ImageStore(64, (os.open(sys.argv[1], os.O_RDONLY),), (0, images))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.read(range(64))
before = peak()
for start in range(0, images - 64, 64):
    store.read(range(start, start + 64))
print(peak() - before)
"""


def test_memory_does_not_grow_with_the_images_read(tmp_path):
    """245 MB are read, a batch at a time."""
    (tmp_path / "images.u8").touch()
    command = [sys.executable, "-c", GROWTH, tmp_path / "images.u8"]
    kilobytes = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert kilobytes < 30_000


def test_a_fault_of_the_machine_is_not_kept_as_one_of_the_image(files, cache, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr("melanoma.data.decode.Image.open", failing)  # a disk that fails cannot be had here
        with pytest.raises(DataError, match=r"An image could not be read \("):
            store_of(files)
    _, rows, reasons = store_of(files)
    assert None not in rows
    assert reasons == {}
