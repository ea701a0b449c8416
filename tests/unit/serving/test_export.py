"""The formats of other runtimes."""

import json
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from melanoma.config.command_schema import ExportConfig
from melanoma.errors import ModelError
from melanoma.serving import export
from melanoma.serving.classifier import LesionClassifier
from melanoma.serving.export import convert, export_model, runner
from tests.unit.serving.conftest import SIZE

SUFFIX = {"onnx": ".onnx", "litert": ".tflite"}


@pytest.mark.parametrize("kind", SUFFIX)
def test_the_file_predicts_as_keras_and_says_how_to_decide(
    classifier: LesionClassifier, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    monkeypatch.setattr(export, "package_folder", lambda _: nullcontext(tmp_path))
    monkeypatch.setattr(export, "load_package", lambda _: classifier)
    file = export_model(ExportConfig(format=kind, output=str(tmp_path / f"model{SUFFIX[kind]}")), "")
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
        convert(classifier, kind)


@pytest.mark.parametrize(("kind", "output"), [("onnx", "model.tflite"), ("litert", "model")])
def test_a_name_of_another_format_is_refused(kind: str, output: str):
    with pytest.raises(ModelError, match=rf"is called \*\{SUFFIX[kind]}"):
        export_model(ExportConfig(format=kind, output=output), "")
