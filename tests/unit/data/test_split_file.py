"""A split as a file: written, read back, refused where it does not fit, and hashed."""

from pathlib import Path

import pandas as pd
import pytest

from melanoma.config.schema import SplitConfig
from melanoma.data.split import PARTS, REMOVED, split_parts
from melanoma.data.split_file import read_split, shared_with_training, split_hash
from melanoma.errors import DataError

SIZES = {"a": 100, "b": 57, "c": 12}


def table(sizes: dict[str, int]) -> pd.DataFrame:
    rows = [(f"/{label}/{i}.jpg", label, "", f"{label}{i}") for label, n in sizes.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["path", "label", "part", "sha256"]).assign(group=range(len(rows)))


def split(images: pd.DataFrame, seed: int = 0) -> pd.Series:
    return split_parts(images, SplitConfig(method="auto", validation=0.2, test=0.2), seed)


def write(tmp_path: Path, images: pd.DataFrame, parts: pd.Series, **columns) -> str:
    file = tmp_path / "split.csv"
    images[["path", "label"]].assign(part=parts, **columns).sample(frac=1, random_state=1).to_csv(file, index=False)
    return str(file)


@pytest.mark.parametrize("columns", [{}, {"parent": "", "sha256": "s"}])
def test_a_written_split_is_read_back(tmp_path, columns):
    images = table(SIZES)
    parts = split(images, seed=3)
    assert list(read_split(write(tmp_path, images, parts, **columns), images)) == list(parts)


def test_rows_of_augmented_and_of_quarantined_images_are_passed_over(tmp_path):
    images = table(SIZES)
    parts = split(images)
    others = pd.DataFrame(
        {"path": ["augmentor/000/1.jpg", "a/bad.jpg"], "part": ["train", "quarantined"], "parent": ["a/1.jpg", ""]}
    )
    file = tmp_path / "split.csv"
    pd.concat([images[["path"]].assign(part=parts, parent=""), others]).to_csv(file, index=False)
    assert list(read_split(str(file), images)) == list(parts)


def test_class_and_file_names_that_look_like_nothing_are_read(tmp_path):
    images = table({"NA": 6, "null": 6})
    parts = split(images)
    assert list(read_split(write(tmp_path, images, parts), images)) == list(parts)


SIX = table({"a": 3, "b": 3})
LINES = [f"{path},{part}" for path, part in zip(SIX.path, [*PARTS, *PARTS], strict=True)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (None, r"cannot be read.*Received: .*split\.csv"),
        ([], r"cannot be read.*Received: .*split\.csv"),
        (["path,part", '"unclosed,train'], r"cannot be read.*Received: .*split\.csv"),
        (["path,fold", *LINES], "needs columns path and part. Received: path, fold"),
        (["image,part", *LINES], "needs columns path and part. Received: image, part"),
        (["path,part", *LINES[:5], LINES[5].replace("test", "exam")], r"Received: \['exam'\]"),
        (["path,part", *LINES[:5], LINES[5].replace("test", "")], r"Received: \[''\]"),
        (["path,part", *LINES, LINES[0]], "names an image twice. Received: /a/0.jpg"),
        (["path,part", *LINES[:5]], "no part for 1 of 6 images, such as /b/2.jpg"),
        (["path,part"], "no part for 6 of 6 images"),
        (["path,part", *LINES, "/c/9.jpg,train"], "not in the data set.*Received: 1 such images, as /c/9.jpg"),
        (["path,part", *[line.replace("test", "train") for line in LINES]], "leaves test without images"),
        (["path,part", *[f"{path},train" for path in SIX.path]], "leaves validation and test without images"),
        (
            ["path,part", *LINES[:4], LINES[4].replace("validation", "train"), LINES[5]],
            "'b' has no image in validation",
        ),
        (["path,part", LINES[0].replace("train", "test"), *LINES[1:]], "'a' has no image in train"),
        (["path,part", *LINES[:5], LINES[5].replace("test", "quarantined")], "can be read now.*Received: /b/2.jpg"),
    ],
)
def test_bad_split_files_are_refused_and_named(tmp_path, lines, message):
    file = tmp_path / "split.csv"
    if lines is not None:
        file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=message):
        read_split(str(file), SIX)


def test_a_split_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "split.csv").write_bytes(b"path,part\n\xff\xfe,train\n")
    with pytest.raises(DataError, match="cannot be read"):
        read_split(str(tmp_path / "split.csv"), SIX)


DIVIDED = SIX.assign(part=[*PARTS, *PARTS])


@pytest.mark.parametrize(
    "same",
    [DIVIDED.iloc[::-1], DIVIDED.assign(path="renamed"), DIVIDED.assign(age=3)],
    ids=["order", "file names", "other columns"],
)
def test_the_split_hash_is_the_same_for_the_same_parts(same):
    assert split_hash(same) == split_hash(DIVIDED)


@pytest.mark.parametrize(
    "other",
    [
        DIVIDED.assign(part=["validation", "train", "test", *PARTS]),
        DIVIDED.assign(part=["train", "validation", "validation", *PARTS]),
        DIVIDED.assign(label=["a", "a", "b", "b", "b", "b"]),
        DIVIDED.assign(sha256=["new", *DIVIDED.sha256[1:]]),
        DIVIDED.iloc[:5],
    ],
    ids=["two exchanged", "one moved", "one of another class", "other content", "one less"],
)
def test_the_split_hash_is_another_for_other_parts(other):
    assert split_hash(other) != split_hash(DIVIDED)


def test_rows_that_a_split_removed_are_read_back(tmp_path):
    images = table(SIZES)
    parts = split(images)
    parts[parts.index[parts == "train"][:4]] = REMOVED
    assert list(read_split(write(tmp_path, images, parts), images)) == list(parts)


def test_what_a_delivered_test_set_shares_with_training_is_counted():
    images = table({"a": 20, "b": 20}).assign(
        parent="", lesion=[f"l{i}" for i in range(40)], cluster=range(40), part=["test", "train", "validation", ""] * 10
    )
    images.loc[[1, 2], "cluster"] = 0
    images.loc[5, "lesion"] = "l4"
    images.loc[6, "lesion"] = "l8"
    images.loc[[12, 13], "lesion"] = None
    assert shared_with_training(images) == {"cluster": 1, "lesion": 2}
