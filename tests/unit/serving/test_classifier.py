"""From images in every form to decisions."""

import base64
import io
import os
import threading
import time

import keras
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

from melanoma.data.decode import decode
from melanoma.serving.classifier import MAX_SERVED, LesionClassifier
from tests.unit.serving.conftest import SIZE, facts, network


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def asked(classifier: LesionClassifier, *images: object) -> pd.DataFrame:
    column = pd.Series([None] * len(images), dtype=object)
    for i, image in enumerate(images):
        column.iloc[i] = image
    return classifier.predict(pd.DataFrame({"image": column}))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_all_forms_of_an_image_give_what_training_saw(classifier, model: keras.Model, pixels, tmp_path, kind: str):
    content = encoded(pixels, kind)
    (tmp_path / "lesion").write_bytes(content)  # the name says nothing
    text = base64.b64encode(content).decode()
    whole = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    forms = [
        content, bytearray(content), tmp_path / "lesion", str(tmp_path / "lesion"), text,
        f"data:image/png;base64,{text}", whole, whole.tolist(), whole.astype(np.float32),
    ]  # fmt: skip
    expected = np.asarray(model(decode(content, size=SIZE)[None].astype(np.float32)))[0]
    found = asked(classifier, *forms)[["probability/benign", "probability/malignant"]].to_numpy()
    assert np.abs(found - expected).max() < 1e-6


def test_a_row_for_each_image_however_many(classifier, pixels):
    images = [np.roll(pixels, i, axis=0) for i in range(150)]
    found = asked(classifier, *[encoded(one) for one in images])
    alone = [asked(classifier, encoded(one)).iloc[0]["probability/malignant"] for one in images[::37]]
    assert len(found) == 150
    assert np.abs(found["probability/malignant"].to_numpy()[::37] - alone).max() < 1e-6


def test_two_classes_are_decided_by_the_operating_point(classifier):
    found = classifier.decided(np.array([[0.71, 0.29], [0.7, 0.3], [0.45, 0.55]]))
    assert found.predicted.tolist() == ["benign", "malignant", "malignant"]
    assert found.score.tolist() == [0.71, 0.3, 0.55]
    assert found["score/malignant"].tolist() == [0.29, 0.3, 0.55]
    assert found["referred/malignant"].tolist() == [False, True, True]
    assert found.prediction_set.tolist() == [["benign"], ["benign"], ["malignant"]]
    assert found.abstain.tolist() == [False, False, True]
    assert set(found.model_version) == {"melanoma-test/7"}


@pytest.mark.parametrize("key", ["binary_tasks", "views"])  # the second in packages of old versions
def test_several_classes_are_decided_by_probability_and_referred_by_binary_task(key: str):
    known = facts(
        classes=["a", "b", "c"], operating_points={"bad": 0.5, "c": 0.3}, prediction_sets=None, abstention=None,
    )  # fmt: skip
    del known["binary_tasks"]
    known[key] = {"bad": ["b", "c"], "c": ["c"]}
    found = LesionClassifier(network(3), known, "v").decided(np.array([[0.4, 0.35, 0.25], [0.6, 0.1, 0.3]]))
    assert found.predicted.tolist() == ["a", "a"]
    assert found["score/bad"].tolist() == pytest.approx([0.6, 0.4])
    assert found["referred/bad"].tolist() == [True, False]
    assert found["referred/c"].tolist() == [False, True]
    assert not {"prediction_set", "abstain"} & set(found)


BAD = {
    "text": ("not base64!", "neither base64 nor the path"),
    "base64 of no image": (base64.b64encode(b"hello").decode(), "not an image"),
    "bytes": (b"hello", "not an image"),
    "empty": (b"", "empty file"),
    "gif": (b"GIF89a" + bytes(20), "GIF is not JPEG or PNG"),
    "truncated": (encoded(np.zeros((50, 50, 3), np.uint8), "JPEG")[:200], "damaged"),
    "number": (5, "of type int"),
    "none": (None, "of type NoneType"),
    "flag": (np.zeros((4, 4, 3), bool), "values are of type bool"),
    "ragged": ([[1, 2], [3]], "have different lengths"),
    "four channels": (np.zeros((4, 4, 4), np.uint8), "shape (4, 4, 4)"),
    "no pixels": (np.zeros((0, 4, 3), np.uint8), "shape (0, 4, 3)"),
    "too bright": (np.full((4, 4, 3), 256), "not from 0 to 255"),
    "not a number": (np.full((4, 4, 3), np.nan), "not from 0 to 255"),
    "from 0 to 1": (np.full((4, 4, 3), 0.5), "from 0 to 1"),
    "bomb": (encoded(np.zeros((1001, 1000), np.uint8)), "more pixels than allowed"),
    "huge array": (np.zeros((1001, 1000, 3), np.uint8), "more pixels than allowed"),
    "folder": ("/tmp/", "neither base64 nor the path"),
    "null byte": ("\0", "neither base64 nor the path"),
    "long": ("a b" * 10_000, "neither base64 nor the path"),
}


@pytest.mark.parametrize(("image", "words"), BAD.values(), ids=BAD)
def test_what_is_no_image_is_refused_in_one_sentence(classifier, pixels, image, words: str):
    with pytest.raises(MlflowException) as caught:
        asked(classifier, pixels, image)
    assert caught.value.get_http_status_code() == 400
    assert caught.value.message.startswith("Image 2 cannot be used: ")
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_no_images_and_no_column_are_refused(classifier):
    for data, words in ((pd.DataFrame({"image": []}), "no images"), (pd.DataFrame({"img": [1]}), "Received: img")):
        with pytest.raises(MlflowException, match=words):
            classifier.predict(data)


def test_where_it_is_served_no_file_is_read_and_requests_are_bounded(classifier, pixels, tmp_path, monkeypatch):
    (tmp_path / "lesion.png").write_bytes(encoded(pixels))
    monkeypatch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    for path in (tmp_path / "lesion.png", str(tmp_path / "lesion.png"), "/etc/passwd", "/dev/zero"):
        with pytest.raises(MlflowException, match="it is not base64"):
            asked(classifier, path)
    with pytest.raises(MlflowException, match=f"At most {MAX_SERVED} images"):
        asked(classifier, *["aGk="] * (MAX_SERVED + 1))
    with pytest.raises(MlflowException, match=f"At most {MAX_SERVED} images"):
        asked(classifier, ["aGk="] * (MAX_SERVED + 1))
    assert len(asked(classifier, base64.b64encode(encoded(pixels)).decode())) == 1


def test_a_list_among_other_images_is_no_image_and_shifts_no_answer(classifier, pixels):
    text = base64.b64encode(encoded(pixels)).decode()
    assert len(asked(classifier, [text, text])) == 2  # as MLflow gives the list of a request
    with pytest.raises(MlflowException, match="Image 1 cannot be used"):
        asked(classifier, [text, text], text)


def test_only_so_many_images_are_decoded_at_once_whoever_asks(classifier, pixels, monkeypatch):
    under_way, most = 0, 0
    lock = threading.Lock()

    def slow(*_, **__) -> np.ndarray:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.02)
        with lock:
            under_way -= 1
        return np.zeros((SIZE, SIZE, 3), np.uint8)

    monkeypatch.setattr("melanoma.serving.classifier.decode", slow)
    askers = [threading.Thread(target=classifier.pixels, args=(encoded(pixels),)) for _ in range(24)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert most == min(os.cpu_count() or 1, 8)
