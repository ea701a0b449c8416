"""Planted copies are found among many images, and neighbours among many points."""

import cv2
import numpy as np
import pytest
from PIL import Image

from melanoma.auditing.near import LEAST_SIMILAR, near_duplicates, neighbour_pairs


def identities(thumbnails: np.ndarray) -> list[str]:
    return [f"picture {i}" for i in range(len(thumbnails))]


def copies(lesions: np.ndarray) -> list[np.ndarray]:
    """Five copies of the first five lesions, each changed in another way."""
    changed = [
        np.rot90(lesions[0]),
        lesions[1][:, ::-1],
        lesions[2][4:, 4:],
        np.clip(lesions[3] * 1.15, 0, 255).astype(np.uint8),
        cv2.resize(lesions[4], (80, 80), interpolation=cv2.INTER_AREA),
    ]
    return [cv2.resize(np.ascontiguousarray(image), (64, 64), interpolation=cv2.INTER_AREA) for image in changed]


def test_planted_copies_are_found_and_no_others(lesions, thumbnails, cache):
    images = np.concatenate([thumbnails, copies(lesions)])
    pairs, scores = near_duplicates(images, identities(images))
    assert {tuple(pair) for pair in pairs[scores > 0.75]} == {(i, 300 + i) for i in range(5)}
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert scores.min() >= LEAST_SIMILAR
    assert scores.max() <= 1.001


def test_the_same_images_give_the_same_pairs(lesions, thumbnails, cache, tmp_path, monkeypatch):
    images = np.concatenate([thumbnails[:100], copies(lesions)])
    first = near_duplicates(images, identities(images))
    cached = near_duplicates(images, identities(images))
    monkeypatch.setenv("MELANOMA_CACHE_DIR", str(tmp_path / "other"))
    anew = near_duplicates(images, identities(images))
    for again in (cached, anew):
        np.testing.assert_array_equal(first[0], again[0])
        np.testing.assert_array_equal(first[1], again[1])


def test_an_image_of_many_copies_is_paired_with_each(thumbnails, cache):
    many = [np.clip(thumbnails[0] * gain, 0, 255).astype(np.uint8) for gain in np.linspace(0.85, 1.1, 10)]
    images = np.concatenate([thumbnails[1:80], many])
    pairs, scores = near_duplicates(images, identities(images))
    found = {tuple(pair) for pair in pairs[scores > 0.75]}
    assert found == {(79 + i, 79 + j) for i in range(10) for j in range(i + 1, 10)}


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, []), (2, [(0, 1)]), (3, [(0, 1), (0, 2), (1, 2)])])
def test_few_points_are_all_neighbours(count, expected):
    points = np.random.default_rng(0).normal(size=(count, 20)).astype(np.float32)
    pairs = neighbour_pairs(points)
    assert pairs.shape == (len(expected), 2)
    assert [tuple(pair) for pair in pairs] == expected


def test_points_in_one_place_give_no_pair_of_a_point_with_itself():
    pairs = neighbour_pairs(np.zeros((50, 4), np.float32), neighbours=5)
    assert (pairs[:, 0] < pairs[:, 1]).all()


@pytest.mark.parametrize("count", [3900, 4300, 9000])
def test_close_points_are_neighbours_however_many_there_are(count):
    rng = np.random.default_rng(count)
    points = rng.normal(size=(count, 20)).astype(np.float32)
    planted = rng.permutation(count)[:400].reshape(-1, 2)
    points[planted[:, 1]] = points[planted[:, 0]] + rng.normal(size=(200, 20)).astype(np.float32) * 0.01
    pairs = neighbour_pairs(points)
    assert {tuple(sorted(pair)) for pair in planted.tolist()} <= {tuple(pair) for pair in pairs.tolist()}
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    np.testing.assert_array_equal(neighbour_pairs(points), pairs)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_images_are_compared(thumbnails, cache, count):
    pairs, scores = near_duplicates(thumbnails[:count], [str(i) for i in range(count)])
    assert (pairs.shape, scores.shape) == ((0, 2), (0,))


def test_two_copies_alone_are_found(thumbnails, cache):
    pairs, scores = near_duplicates(np.stack([thumbnails[0], thumbnails[0].T]), ["one", "turned"])
    assert (pairs.tolist(), scores[0] > 0.9) == ([[0, 1]], True)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_images_of_one_colour_are_compared(cache, images):
    flat = np.stack([np.full((64, 64), 40 * i, np.uint8) for i in range(images)])
    pairs, _ = near_duplicates(flat, [str(i) for i in range(images)])
    assert pairs.tolist() == []


def test_a_set_of_unreadable_files_is_audited(tmp_path, audit):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        (tmp_path / "set" / name / "1.jpg").touch()
    found = audit(tmp_path / "set")
    assert list(found.unreadable.reason) == ["empty file", "empty file"]
    assert found.report()["counts"]["images"] == 2


@pytest.mark.parametrize("count", [1, 2])
def test_a_set_of_few_images_is_audited(tmp_path, audit, count):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng([i, ord(name)]).integers(0, 256, (70, 70, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / "set" / name / f"{i}.png")
    assert audit(tmp_path / "set").counts()["near_duplicate_groups"] == 0


@pytest.mark.parametrize("sigma", [4, 6, 12])
def test_strong_blur_does_not_chain(lesions, cache, sigma):
    """What blur leaves of different lesions is alike; copies of a blurred image are found all the same."""
    blurred = np.stack([cv2.resize(cv2.GaussianBlur(image, (0, 0), sigma), (64, 64)) for image in lesions])
    images = np.concatenate([blurred, blurred[:10, :, ::-1]])
    pairs, scores = near_duplicates(images, identities(images))
    alike = {tuple(pair) for pair in pairs[scores > 0.75]}
    copies_of_blurred = {(i, 300 + i) for i in range(10)}
    assert copies_of_blurred <= alike
    assert len(alike - copies_of_blurred) <= 3
