"""Division into training, validation and test: stratified, reproducible, and from a file."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma.data.split import PARTS, read_split, shared_with_training, split_hash, split_parts
from melanoma.errors import DataError

SIZES = {"a": 100, "b": 57, "c": 12}


def table(sizes: dict[str, int], part: str = "") -> pd.DataFrame:
    """So many images of each class, delivered in one part."""
    rows = [
        (f"{part}/{label}/{i}.jpg", label, part, f"{part}{label}{i}") for label, n in sizes.items() for i in range(n)
    ]
    return pd.DataFrame(rows, columns=["path", "label", "part", "sha256"])


def delivered(**parts: dict[str, int]) -> pd.DataFrame:
    return pd.concat([table(sizes, part) for part, sizes in parts.items()], ignore_index=True)


def split(images: pd.DataFrame, method: str = "auto", validation: float = 0.2, test: float = 0.2, seed: int = 0):
    return split_parts(images, method=method, validation=validation, test=test, seed=seed)


def counts(images: pd.DataFrame, parts: pd.Series) -> dict[str, dict[str, int]]:
    return {part: images.label[parts == part].value_counts().to_dict() for part in PARTS}


@pytest.mark.parametrize(("validation", "test"), [(0.2, 0.2), (0.1, 0.3), (0.25, 0.1)])
def test_shares_are_of_all_images_and_hold_in_each_class_within_rounding(validation, test):
    images = table(SIZES)
    parts = split(images, validation=validation, test=test)
    found = counts(images, parts)
    assert len(parts) == len(images)
    for part, share in (("validation", validation), ("test", test), ("train", 1 - validation - test)):
        assert abs(sum(found[part].values()) - share * len(images)) <= 1
        for label, size in SIZES.items():
            assert abs(found[part][label] - share * size) <= 1.5  # rounded twice: for test, then for validation


@pytest.mark.parametrize("method", ["auto", "holdout", "official"])
def test_a_seed_gives_one_split_and_another_seed_another(method):
    images = delivered(train=SIZES, test=SIZES)
    first, again, other = (split(images, method, seed=seed) for seed in (5, 5, 6))
    pd.testing.assert_series_equal(first, again)
    assert (first != other).any()


def test_numpys_own_generator_is_neither_used_nor_moved():
    np.random.seed(1)
    first = split(table(SIZES))
    state = np.random.get_state()[1].tolist()
    assert split(table(SIZES)).equals(first)
    assert np.random.get_state()[1].tolist() == state


@pytest.mark.parametrize("method", ["auto", "official"])
def test_a_delivered_test_set_is_kept(method):
    images = delivered(train=SIZES, test={"a": 30, "b": 5})
    parts = split(images, method, validation=0.25, test=0.9)
    assert ((parts == "test") == (images.part == "test")).all()
    assert (parts == "validation").sum() == round(0.25 * sum(SIZES.values()))


def test_holdout_draws_anew_from_everything_delivered():
    images = delivered(train=SIZES, validation=SIZES, test=SIZES)
    parts = split(images, "holdout")
    for part in PARTS:
        assert set(images.part[parts == part]) == set(PARTS)
    assert (parts == "test").sum() == round(0.2 * len(images))


@pytest.mark.parametrize(
    "parts", [{"train": SIZES, "validation": SIZES}, {"train": SIZES, "validation": SIZES, "test": SIZES}]
)
def test_a_delivered_validation_set_is_kept(parts):
    images = delivered(**parts)
    found = split(images)
    assert ((found == "validation") == (images.part == "validation")).all()
    expected = sum(SIZES.values()) if "test" in parts else round(0.2 * len(images))
    assert (found == "test").sum() == expected


def test_official_without_a_delivered_test_set_is_refused():
    with pytest.raises(DataError, match=r"split=official needs a delivered test folder.*Received: parts \['train'\]"):
        split(delivered(train=SIZES), "official")


@pytest.mark.parametrize(
    ("sizes", "small", "shares"),
    [
        ({"a": 50, "rare": 1}, "rare", (0.2, 0.2)),
        ({"a": 50, "rare": 2}, "rare", (0.2, 0.2)),
        ({"a": 500, "b": 500, "rare": 3}, "rare", (0.1, 0.1)),
        ({"a": 500, "rare": 20}, "rare", (0.2, 0.01)),
        ({"a": 500, "rare": 20}, "rare", (0.01, 0.2)),
        ({"a": 2, "b": 3}, "a", (0.2, 0.2)),
    ],
)
def test_a_class_too_small_for_every_part_is_named(sizes, small, shares):
    with pytest.raises(DataError, match=f"Class '{small}' has .*too few images"):
        split(table(sizes), validation=shares[0], test=shares[1])


def test_the_least_images_there_can_be_are_one_a_part():
    images = table({"a": 3, "b": 3})
    found = counts(images, split(images))
    assert found == {part: {"a": 1, "b": 1} for part in PARTS}


def test_a_class_without_a_delivered_training_image_is_named():
    with pytest.raises(DataError, match="Class 'new' has no image in train"):
        split(delivered(train={"a": 10, "b": 10}, test={"a": 3, "b": 3, "new": 3}))


def write(tmp_path: Path, images: pd.DataFrame, parts: pd.Series, **columns) -> str:
    file = tmp_path / "split.csv"
    images[["path", "label"]].assign(part=parts, **columns).sample(frac=1, random_state=1).to_csv(file, index=False)
    return str(file)


@pytest.mark.parametrize("columns", [{}, {"parent": "", "sha256": "s"}])
def test_a_written_split_is_read_back(tmp_path, columns):
    images = delivered(train=SIZES, test=SIZES)
    parts = split(images, "holdout", seed=3)
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
        (["path,part", *LINES[:5]], "nothing for 1 of 6 images, such as /b/2.jpg"),
        (["path,part"], "nothing for 6 of 6 images"),
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


@pytest.mark.parametrize("column", ["sha256", "lesion", "patient"])
@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_never_parted_and_classes_keep_their_shares(column, seed):
    images = table({"a": 120, "b": 60})
    images[column] = [f"group {i // 3}" for i in range(len(images))]
    parts = split_parts(images, method="auto", validation=0.2, test=0.2, seed=seed)
    assert parts.groupby(images[column]).nunique().max() == 1
    for part, wanted in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        inside = parts == part
        assert abs(inside.mean() - wanted) < 0.03
        assert abs((images.label[inside] == "a").mean() - 2 / 3) < 0.03


def test_groups_reach_across_columns_and_unknown_ones_are_no_group():
    images = table({"a": 60, "b": 60})
    images["patient"] = [f"p{i // 2}" if i < 20 else None for i in range(len(images))]
    images["lesion"] = [f"l{(i + 1) // 2}" if i < 20 else np.nan for i in range(len(images))]
    parts = split_parts(images, method="auto", validation=0.2, test=0.2, seed=0)
    assert parts[:20].nunique() == 1
    assert parts[20:].nunique() == 3


def test_what_a_delivered_test_set_shares_with_training_is_counted():
    images = table({"a": 20, "b": 20}).assign(parent="", lesion=[f"l{i}" for i in range(40)])
    images["sha256"] = [f"h{i}" for i in range(40)]
    images["part"] = ["test" if i % 4 == 0 else "" for i in range(40)]
    images.loc[1, "sha256"] = "h0"
    images.loc[5, "lesion"] = "l4"
    images["part"] = split_parts(images, method="auto", validation=0.2, test=0.2, seed=0)
    assert shared_with_training(images) == {"content": 1, "lesion": 1}
