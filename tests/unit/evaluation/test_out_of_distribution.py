"""The out-of-distribution score against its definition, its error rate, planted images, and damaged files."""

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from melanoma.evaluation.ood_plot import ood_figure
from melanoma.evaluation.out_of_distribution import (
    OodDetector,
    fit_distance,
    load_detector,
    save_detector,
    with_threshold,
)

MIXING = np.random.default_rng(9).normal(size=(6, 50))


def drawn(images: int, rng: np.random.Generator, shift: float = 0.0) -> list[NDArray]:
    """Features at two resolutions, of which the second has values a hundred times as large."""
    every = rng.standard_t(5, size=(images, 6)) @ MIXING + 0.3 * rng.normal(size=(images, 50)) + shift
    return [every[:, :20].astype(np.float32), 100 * every[:, 20:].astype(np.float32)]


def fitted(rng: np.random.Generator, validation: int = 400, share: float = 0.01) -> OodDetector:
    distance = fit_distance(drawn(1000, rng))
    detector = with_threshold(distance, distance.scores(drawn(validation, rng)), share)
    assert detector is not None
    return detector


def test_the_distance_is_mahalanobis_for_the_covariance_of_probabilistic_pca():
    rng = np.random.default_rng(0)
    training, others = drawn(500, rng), drawn(40, rng, shift=0.5)
    found = fit_distance(training)
    scale = np.concatenate([np.full(one.shape[1], 1 / np.sqrt(one.var(axis=0).sum())) for one in training])
    every, new = np.concatenate(training, axis=1) * scale, np.concatenate(others, axis=1) * scale
    model = PCA(32, svd_solver="full").fit(every)
    away = new - every.mean(axis=0)
    expected = np.sqrt(np.einsum("ij,jk,ik->i", away, np.linalg.inv(model.get_covariance()), away))
    np.testing.assert_allclose(found.scores(others), expected, rtol=2e-3)


@pytest.mark.parametrize(("share", "validation", "expected"), [(0.01, 400, 0.01), (0.05, 400, 0.05), (0.01, 30, 0.032)])
def test_as_many_images_of_the_same_kind_are_flagged_as_wanted(share: float, validation: int, expected: float):
    """With fewer than 1 / share validation images it is one in their number plus one."""
    rng = np.random.default_rng(1)
    flagged = [np.mean(fitted(rng, validation, share).scores(drawn(2000, rng)) > 1) for _ in range(30)]
    assert np.mean(flagged) == pytest.approx(expected, abs=4 * np.std(flagged) / np.sqrt(30))
    assert np.mean(flagged) < 1.5 * expected


def test_planted_images_are_found():
    rng = np.random.default_rng(2)
    detector = fitted(rng)
    flagged = detector.scores(drawn(100, rng, shift=2.0)) > 1
    false = detector.scores(drawn(900, rng)) > 1
    assert flagged.mean() > 0.95
    assert flagged.sum() / (flagged.sum() + false.sum()) > 0.8


@pytest.mark.parametrize("images", [0, 19])
def test_few_images_give_no_detector(images: int):
    rng = np.random.default_rng(3)
    assert fit_distance(drawn(images, rng)) is None
    distance = fit_distance(drawn(20, rng))
    assert distance is not None
    assert with_threshold(distance, distance.scores(drawn(19, rng)), 0.01) is None


def test_images_that_are_all_alike_give_no_detector():
    assert fit_distance([np.ones((50, 4), np.float32), np.zeros((50, 2), np.float32)]) is None


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e-42])
def test_features_that_are_not_finite_or_vanish_give_no_detector_and_are_flagged(value: float):
    rng = np.random.default_rng(8)
    features = drawn(100, rng)
    if np.isfinite(value):
        assert fit_distance([np.float32(value) * one for one in features]) is None
        return
    features[0][3, 2] = value
    assert fit_distance(features) is None
    assert fitted(rng).scores(features)[3] == np.inf


def test_features_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"for 50 features\. Received: 20"):
        fitted(np.random.default_rng(9)).scores(drawn(5, np.random.default_rng(0))[:1])


def test_a_saved_detector_gives_the_same_scores(tmp_path: Path):
    rng = np.random.default_rng(4)
    detector, new = fitted(rng), drawn(30, rng)
    save_detector(detector, tmp_path / "detector.npz")
    loaded = load_detector(tmp_path / "detector.npz")
    assert loaded is not None
    np.testing.assert_allclose(loaded.scores(new), detector.scores(new), rtol=1e-9)
    assert load_detector(tmp_path / "missing.npz") is None


class Hostile:
    """Unpickling it would run code."""

    def __reduce__(self):
        return (print, ("run",))


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def _pickled(file: Path) -> None:
    np.savez(file, center=np.array([Hostile()], dtype=object))


def _endless(file: Path) -> None:
    """An array that claims to have more bytes than any memory."""
    (file.parent / "center.npy").write_bytes(
        b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % 10**15
    )
    content = (file.parent / "center.npy").read_bytes()
    (file.parent / "center.npy").write_bytes(content.ljust(127) + b"\n")
    shutil.make_archive(str(file.with_suffix("")), "zip", file.parent, "center.npy")
    file.with_suffix(".zip").rename(file)


def _deflated_wrongly(file: Path) -> None:
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        first = archive.infolist()[0]
    for field in (first.header_offset + 8, content.index(b"PK\1\2") + 10):
        content[field : field + 2] = (8).to_bytes(2, "little")
    file.write_bytes(content)


def _large(file: Path) -> None:
    np.savez_compressed(file, center=np.zeros(70_000_000, np.uint8))


def _of_numbers_of_another_type(file: Path) -> None:
    with np.load(file) as found:
        np.savez(file, **{name: found[name].astype(complex) for name in found.files})


DAMAGES = [
    _cut, _pickled, _endless, _deflated_wrongly, _large, _of_numbers_of_another_type,
    lambda file: file.write_bytes(b""),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused(tmp_path: Path, damage, capsys):
    file = tmp_path / "detector.npz"
    save_detector(fitted(np.random.default_rng(5)), file)
    damage(file)
    with pytest.raises(ValueError, match=r"detector\.npz is not readable"):
        load_detector(file)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"center": np.zeros(49, np.float32)}, "does not hold"),
        ({"variances": np.zeros((8, 4), np.float32)}, "does not hold"),
        ({"threshold": np.nan}, "does not hold"),
        ({"variances": np.zeros(32, np.float32)}, "not positive"),
        ({"noise": -1.0}, "not positive"),
    ],
)
def test_a_file_with_other_content_is_refused(tmp_path: Path, changes: dict, message: str):
    file = tmp_path / "detector.npz"
    save_detector(replace(fitted(np.random.default_rng(6)), **changes), file)
    with pytest.raises(ValueError, match=message):
        load_detector(file)


def test_the_figure_shows_the_least_usual_images():
    import pandas as pd

    scores = np.array([0.5, 3.0, 0.8, 1.2])
    asked = []

    def pixels(rows: pd.DataFrame) -> NDArray[np.uint8]:
        asked.extend(rows.path)
        return np.zeros((len(rows), 8, 8, 3), np.uint8)

    figure = ood_figure(pd.DataFrame({"path": list("abcd")}), scores, pixels)
    assert asked == ["b", "d", "c", "a"]
    assert figure.axes[0].get_title() == "50.0% of 4 images are unlike the training images"
    assert [axes.get_title() for axes in figure.axes[1:3]] == ["score 3.00", "score 1.20"]
