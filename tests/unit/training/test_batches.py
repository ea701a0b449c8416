"""Batches: each image once an epoch, in an order that the seed decides."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from melanoma.data.batches import prediction_batches
from melanoma.data.images import ImageStore
from melanoma.training.augmentation import RandomAffine, RandomColor
from melanoma.training.batches import TrainingImages, augmenter, encode, training_batches

N, SIZE = 23, 8


@pytest.fixture
def store(tmp_path: Path):
    """An image store of which each image is of one colour: its row."""
    pixels = np.broadcast_to(np.arange(N, dtype=np.uint8)[:, None, None, None], (N, SIZE, SIZE, 3))
    (tmp_path / "images.u8").write_bytes(pixels.tobytes())
    file = os.open(tmp_path / "images.u8", os.O_RDONLY)
    yield ImageStore(SIZE, (file,), (0, N))
    os.close(file)


ROWS = np.arange(1, N)
LABELS, WEIGHTS = encode(ROWS % 3, 3), ROWS.astype("float32") / N


def batches(store: ImageStore, count: int, seed: int = 0, augment=None, batch_size: int = 5) -> list[tuple]:
    images = TrainingImages(store, ROWS, LABELS, WEIGHTS)
    pipeline = training_batches(images, batch_size=batch_size, seed=seed, augment=augment)
    return [tuple(part.numpy() for part in batch) for batch in pipeline.take(count)]


def rows_of(found: list[tuple]) -> list[int]:
    return [int(row) for images, _, _ in found for row in images[:, 0, 0, 0]]


def augment():
    """A new augmentation, as each run has one."""
    keras.utils.set_random_seed(4)
    return augmenter([RandomAffine(True, True, rotation=90), RandomColor(brightness=0.3)], mixup=0.4)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(2, [[0], [1], [1]]), (9, [[1, *[0] * 8], [0, 1, *[0] * 7], [0, 1, *[0] * 7]])],
)
def test_encode(classes, expected):
    encoded = encode(np.array([0, 1, 1]), classes)
    assert encoded.dtype == np.float32
    assert encoded.tolist() == expected


@pytest.mark.parametrize(("batch_size", "sizes"), [(5, [5, 5, 5, 5, 2]), (11, [11, 11]), (100, [22])])
def test_each_epoch_has_every_image_once(store, batch_size, sizes):
    found = batches(store, 3 * len(sizes), batch_size=batch_size)
    assert [len(images) for images, _, _ in found] == sizes * 3
    epochs = [rows_of(found[i : i + len(sizes)]) for i in range(0, len(found), len(sizes))]
    assert all(sorted(epoch) == ROWS.tolist() for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_labels_and_weights_are_those_of_the_images(store):
    for images, labels, weights in batches(store, 5):
        rows = images[:, 0, 0, 0].astype(int)
        np.testing.assert_array_equal(labels, LABELS[rows - 1])
        np.testing.assert_array_equal(weights, WEIGHTS[rows - 1])
        np.testing.assert_array_equal(images, np.broadcast_to(rows[:, None, None, None], images.shape))


def test_the_order_depends_on_the_seed_only(store):
    first = rows_of(batches(store, 10, seed=3))
    np.random.seed(99)
    keras.utils.set_random_seed(99)
    assert rows_of(batches(store, 10, seed=3)) == first
    assert rows_of(batches(store, 10, seed=4)) != first


def test_equal_seeds_give_equal_augmented_batches(store):
    first, second = (batches(store, 7, augment=augment()) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)
    plain = batches(store, 7)
    assert all(not np.array_equal(one[0], without[0]) for one, without in zip(first, plain, strict=True))
    assert all(one[0].shape == without[0].shape for one, without in zip(first, plain, strict=True))


def test_augmentation_changes_from_epoch_to_epoch(store):
    brighter = augmenter([RandomColor(brightness=0.3, seed=1)])
    found = batches(store, 4, augment=brighter, batch_size=100)
    sums = [float(images.sum()) for images, _, _ in found]
    assert len(set(sums)) == 4


@pytest.mark.parametrize("batch_size", [4, 22, 100])
def test_prediction_batches_are_the_images_in_order(store, batch_size):
    rows = np.array([7, 3, 3, 22, 0, 1])
    pipeline = prediction_batches(store, rows, batch_size)
    found = [batch.numpy() for batch in pipeline]
    assert len(found) == len(pipeline) == -(-len(rows) // batch_size)
    pixels = np.concatenate(found)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, np.broadcast_to(rows[:, None, None, None], pixels.shape))


def test_nothing_to_do_is_no_augmenter():
    assert augmenter([]) is None
    assert augmenter([], cutmix=1.0) is not None


def test_images_alone_are_changed_but_not_mixed():
    images = np.random.default_rng(0).uniform(0, 255, (6, SIZE, SIZE, 3)).astype("float32")
    unchanged, labels, weights = augmenter([], mixup=0.4)(images, None, None)
    np.testing.assert_array_equal(unchanged, images)
    assert (labels, weights) == (None, None)
    changed, _, _ = augment()(images, None, None)
    assert not np.array_equal(changed, images)


def test_layers_of_keras_work_too(store):
    change = augmenter(
        [keras.layers.RandomFlip(seed=1), keras.layers.RandomContrast(0.5, value_range=(0, 255), seed=1)]
    )
    for images, _, _ in batches(store, 3, augment=change):
        assert images.shape[1:] == (SIZE, SIZE, 3)
        assert images.min() >= 0
        assert images.max() <= 255
