"""The formats of other runtimes."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from melanoma.errors import ModelError
from melanoma.registry import export
from melanoma.registry.classifier import LesionClassifier
from melanoma.registry.export import export_model, exported, runner
from tests.unit.registry.conftest import SIZE

SUFFIX = {"onnx": ".onnx", "litert": ".tflite"}


@pytest.mark.parametrize("kind", SUFFIX)
def test_the_file_predicts_as_keras_and_says_how_to_decide(
    classifier: LesionClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(export, "package_folder", lambda _: nullcontext(tmp_path))
    monkeypatch.setattr(export, "load_package", lambda _: classifier)
    file = export_model(None, kind, str(tmp_path / f"model{SUFFIX[kind]}"))
    pixels = np.random.default_rng(5).integers(0, 256, (3, SIZE, SIZE, 3)).astype(np.float32)
    expected = classifier.probabilities(pixels.astype(np.uint8))
    assert np.abs(runner(file)(pixels) - expected).max() <= 1e-5
    facts = json.loads(file.with_suffix(".json").read_text())
    assert facts["classes"] == ["benign", "malignant"]
    assert facts["operating_points"] == {"malignant": 0.3}
    assert f"(n, {SIZE}, {SIZE}, 3)" in facts["input"]
    assert facts["version"] == "melanoma-test/7"


@pytest.mark.parametrize("kind", SUFFIX)
def test_a_file_that_predicts_otherwise_is_refused(
    classifier: LesionClassifier, monkeypatch: pytest.MonkeyPatch, kind: str
):
    def off(file: Path):
        predict = runner(file)
        return lambda pixels: predict(pixels) + 1e-3

    monkeypatch.setattr(export, "runner", off)
    with pytest.raises(ModelError, match="predicts other probabilities"):
        exported(classifier, kind)


@pytest.mark.parametrize(("kind", "output"), [("onnx", "model.tflite"), ("litert", "model")])
def test_a_name_of_another_format_is_refused(kind: str, output: str):
    with pytest.raises(ModelError, match=rf"is called \*\{SUFFIX[kind]}"):
        export_model(None, kind, output)
