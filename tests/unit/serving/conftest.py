"""A small classifier, as a package would hold it."""

import keras
import numpy as np
import pytest

from melanoma.serving.classifier import LesionClassifier

SIZE = 16


def facts(**changes) -> dict:
    known = {
        "run_id": "abc", "task": "test", "protocol": "clean", "fingerprint": "f", "calibration": "none",
        "classes": ["benign", "malignant"], "image_size": SIZE, "resize": "stretch", "max_megapixels": 1.0,
        "operating_points": {"malignant": 0.3}, "binary_tasks": {},
        "prediction_sets": {"coverage": 0.9, "threshold": 0.5}, "abstention": {"share": 0.1, "threshold": 0.6},
    }  # fmt: skip
    return {**known, **changes}


def network(classes: int = 2, seed: int = 0) -> keras.Model:
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((SIZE, SIZE, 3))
    features = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes, "softmax")(features))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def classifier(model: keras.Model) -> LesionClassifier:
    return LesionClassifier(model, facts(), "melanoma-test/7")


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (40, 30, 3)).astype(np.uint8)
