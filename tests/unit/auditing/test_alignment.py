"""How alike two pictures are: the same one turned, cropped or brightened, and different ones."""

import cv2
import numpy as np
import pytest

from melanoma.auditing.alignment import similarity

COUNT = 40


def thumbnail(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)


def test_an_image_is_like_itself(thumbnails):
    np.testing.assert_allclose(similarity(thumbnails[:COUNT], thumbnails[:COUNT]), 1, atol=1e-3)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_and_mirrored_image_is_like_the_first(thumbnails, turns, mirrored):
    turned = np.rot90(thumbnails[:COUNT], turns, axes=(1, 2))
    turned = turned[:, :, ::-1] if mirrored else turned
    assert similarity(thumbnails[:COUNT], turned).min() > 0.95
    assert similarity(turned, thumbnails[:COUNT]).min() > 0.95


@pytest.mark.parametrize(
    "window", [(0.03, 1, 0.03, 1), (0, 0.97, 0, 0.97), (0.016, 0.984, 0.016, 0.984), (0, 1, 0.03, 1)]
)
def test_a_slightly_cropped_image_is_like_the_whole(lesions, thumbnails, window):
    left, right, top, bottom = (round(128 * share) for share in window)
    cropped = np.stack([thumbnail(image[top:bottom, left:right]) for image in lesions[:COUNT]])
    assert similarity(thumbnails[:COUNT], cropped).min() > 0.8
    assert similarity(cropped, thumbnails[:COUNT]).min() > 0.8


@pytest.mark.parametrize(("gain", "offset"), [(1.15, 0), (0.8, 0), (1, 15), (1, -15), (0.85, 20)])
def test_a_brighter_or_darker_image_is_like_the_first(thumbnails, gain, offset):
    changed = np.clip(thumbnails[:COUNT].astype(float) * gain + offset, 0, 255).astype(np.uint8)
    assert similarity(thumbnails[:COUNT], changed).min() > 0.9


def test_different_lesions_are_less_alike_than_copies(thumbnails):
    first, second = np.triu_indices(60, 1)
    assert similarity(thumbnails[first], thumbnails[second]).max() < 0.7


def test_a_pair_is_as_alike_alone_as_among_others(thumbnails):
    first, second = np.repeat(thumbnails[:4], 2, axis=0), thumbnails[[0, 9, 1, 9, 2, 9, 3, 9]]
    together = similarity(first, second)
    assert together.shape == (8,)
    np.testing.assert_allclose(similarity(first[2:3], second[2:3]), together[2:3], atol=1e-3)


@pytest.mark.parametrize("levels", [(0, 0), (255, 255), (0, 255), (128, 7)])
def test_flat_images_give_finite_values(levels):
    first, second = (np.full((3, 64, 64), level, np.uint8) for level in levels)
    assert np.isfinite(similarity(first, second)).all()


def test_flat_images_beside_others_give_finite_values(thumbnails):
    first, second = thumbnails[:3].copy(), thumbnails[:3].copy()
    first[0] = second[0] = 90
    second[1] = 200
    found = similarity(first, second)
    assert np.isfinite(found).all()
    assert found[2] == pytest.approx(1, abs=1e-3)


def test_no_pairs_are_no_similarities():
    nothing = np.empty((0, 64, 64), np.uint8)
    assert similarity(nothing, nothing).shape == (0,)


def test_pairs_that_do_not_even_agree_coarsely_are_zero(thumbnails):
    noise = np.random.default_rng(0).integers(0, 256, (5, 64, 64), dtype=np.uint8)
    assert (similarity(noise, thumbnails[:5]) == 0).all()
