"""Division into training, validation and test: stratified, reproducible, and by whole groups."""

import numpy as np
import pandas as pd
import pytest

from melanoma.config.schema import SplitConfig
from melanoma.data.split import PARTS, REMOVED, drawn_rows, fold_parts, left_out_parts, refuse_overlap, split_parts
from melanoma.errors import DataError

SIZES = {"a": 100, "b": 57, "c": 12}


def table(sizes: dict[str, int], part: str = "") -> pd.DataFrame:
    """So many images of each class, delivered in one part, each a group of its own."""
    rows = [(f"{part}/{label}/{i}.jpg", label, part) for label, n in sizes.items() for i in range(n)]
    return pd.DataFrame(rows, columns=["path", "label", "part"]).assign(group=range(len(rows)))


def delivered(**parts: dict[str, int]) -> pd.DataFrame:
    images = pd.concat([table(sizes, part) for part, sizes in parts.items()], ignore_index=True)
    return images.assign(group=range(len(images)))


def split(images: pd.DataFrame, method: str = "auto", validation: float = 0.2, test: float = 0.2, seed: int = 0):
    return split_parts(images, SplitConfig(method=method, validation=validation, test=test), seed)


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
    with pytest.raises(DataError, match=r"split=official needs a delivered test folder.*Received: parts train"):
        split(delivered(train=SIZES), "official")


@pytest.mark.parametrize(
    ("sizes", "small", "shares"),
    [
        ({"a": 50, "rare": 1}, "rare", (0.2, 0.2)),
        ({"a": 50, "rare": 2}, "rare", (0.2, 0.2)),
        ({"a": 2, "b": 3}, "a", (0.2, 0.2)),
    ],
)
def test_a_class_too_small_for_every_part_is_named(sizes, small, shares):
    with pytest.raises(DataError, match=f"Class '{small}' has .*too few images"):
        split(table(sizes), validation=shares[0], test=shares[1])


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ({"a": 500, "b": 500, "rare": 3}, (0.1, 0.1)),
        ({"a": 500, "rare": 20}, (0.01, 0.2)),
        ({"a": 9, "b": 9}, (0.9, 0.05)),
    ],
)
def test_a_rare_class_is_in_every_part(sizes, shares):
    images = table(sizes)
    found = counts(images, split(images, validation=shares[0], test=shares[1]))
    assert all(found[part].get(label, 0) for part in PARTS for label in sizes)


def test_the_least_images_there_can_be_are_one_a_part():
    images = table({"a": 3, "b": 3})
    found = counts(images, split(images))
    assert found == {part: {"a": 1, "b": 1} for part in PARTS}


def test_a_class_without_a_delivered_training_image_is_named():
    with pytest.raises(DataError, match=r"Class 'new' has too few images.*Received: \{'new': 0\} images"):
        split(delivered(train={"a": 10, "b": 10}, test={"a": 3, "b": 3, "new": 3}))


def in_threes(sizes: dict[str, int]) -> pd.DataFrame:
    images = table(sizes)
    return images.assign(group=images.group // 3)


@pytest.mark.parametrize("seed", range(3))
def test_a_group_is_never_parted_and_classes_keep_their_shares(seed):
    images = in_threes({"a": 120, "b": 60})
    parts = split(images, seed=seed)
    assert parts.groupby(images.group).nunique().max() == 1
    for part, wanted in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        inside = parts == part
        assert abs(inside.mean() - wanted) < 0.03
        assert abs((images.label[inside] == "a").mean() - 2 / 3) < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_class_shares_hold_in_each_part_of_many_images_in_groups(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, 2000)
    groups = np.repeat(np.arange(2000), sizes)[:2000]
    labels = np.where(rng.random(2000) < 0.05, rng.choice(list("abc"), 2000), np.array(list("aabbbc"))[groups % 6])
    images = pd.DataFrame({"path": [f"{i}.jpg" for i in range(2000)], "label": labels, "part": "", "group": groups})
    parts = split(images, seed=seed)
    whole = images.label.value_counts(normalize=True)
    for part in PARTS:
        shares = images.label[parts == part].value_counts(normalize=True)
        assert (shares - whole).abs().max() < 0.02


def test_what_shares_a_group_with_a_delivered_test_image_is_removed():
    images = delivered(train=SIZES, validation=SIZES, test=SIZES)
    train, validation, test = (images.index[images.part == part] for part in PARTS)
    images.loc[train[:3], "group"] = images.group[test[0]]
    images.loc[validation[0], "group"] = images.group[test[0]]
    images.loc[train[5], "group"] = images.group[validation[5]]
    parts = split(images)
    assert set(parts.index[parts == REMOVED]) == {*train[:3], train[5], validation[0]}
    assert (parts[test] == "test").all()
    assert (parts[validation[1:]] == "validation").all()


def test_a_class_that_is_one_group_is_named():
    images = table({"a": 50, "b": 30, "tied": 10})
    images.loc[images.label == "tied", "group"] = 1000
    message = (
        r"Class 'tied' has too few .*one lesion, patient or cluster.*\{'tied': 10\} images in \{'tied': 1\} groups"
    )
    with pytest.raises(DataError, match=message):
        split(images)


def test_every_fold_tests_other_rows_and_leaves_enough_to_train():
    images = in_threes(SIZES)
    runs = fold_parts(images, SplitConfig(folds=4, validation=0.2), seed=0)
    tested = sum((parts == "test").astype(int) for parts in runs)
    assert (len(runs), set(tested)) == (4, {1})
    for parts in runs:
        refuse_overlap(images.assign(part=parts))
        assert abs((parts == "test").mean() - 0.25) < 0.05
        assert abs((parts == "validation").sum() / (parts != "test").sum() - 0.2) < 0.05


def test_a_class_with_fewer_groups_than_folds_is_named():
    with pytest.raises(DataError, match=r"at least split\.folds=5 .*Received: \{'c': 4\}"):
        fold_parts(in_threes({"a": 51, "b": 21, "c": 12}), SplitConfig(folds=5, validation=0.2), seed=0)


def with_sites(images: pd.DataFrame) -> pd.DataFrame:
    """Three sites by turns; the last five images are of none."""
    sites = [["arm", "leg", "neck"][i % 3] for i in range(len(images))]
    return images.assign(site=[*sites[:-5], *[None, np.nan, pd.NA, None, None]])


def test_each_value_of_a_column_is_left_out_once():
    images = with_sites(table(SIZES))
    runs = left_out_parts(images, SplitConfig(column="site", validation=0.2), seed=0)
    assert list(runs) == ["arm", "leg", "neck"]
    for site, parts in runs.items():
        assert ((parts == "test") == (images.site == site).fillna(False)).all()
        assert set(parts) == set(PARTS)


def test_a_group_with_images_of_the_value_left_out_does_not_train():
    images = with_sites(table(SIZES))
    images.loc[:2, "group"] = 1000
    runs = left_out_parts(images, SplitConfig(column="site", validation=0.2), seed=0)
    assert [list(runs[site][:3]).count(REMOVED) for site in runs] == [2, 2, 2]
    assert list(runs["leg"][:3]) == [REMOVED, "test", REMOVED]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        (None, r"must be lesion, patient, age, sex, site or skin_tone.*split\.column=site, with no such columns"),
        (["arm"] * 6, r"at least two values. Received: \['arm'\]"),
        ([None] * 6, r"at least two values. Received: \[\]"),
        (["arm"] * 3 + ["leg"] * 3, "With site=arm left out: Class 'a' has too few images"),
    ],
)
def test_columns_that_cannot_be_left_out_by_are_refused(sites, message):
    images = table({"a": 3, "b": 3})
    if sites:
        images["site"] = sites
    with pytest.raises(DataError, match=message):
        left_out_parts(images, SplitConfig(column="site", validation=0.2), seed=0)


def test_a_group_in_two_parts_is_refused_and_named():
    images = table({"a": 3, "b": 3}).assign(part=[*PARTS, *PARTS])
    refuse_overlap(images)
    images.loc[4, "group"] = 0
    with pytest.raises(DataError, match=r"1 groups in two parts or more, as /a/0\.jpg \(train\) and /b/1\.jpg \(valid"):
        refuse_overlap(images)


def test_what_shares_a_group_with_a_delivered_validation_image_does_not_train_where_the_test_set_is_drawn():
    table = pd.DataFrame(
        {"path": map(str, range(60)), "label": ["a", "b"] * 30, "part": ["train"] * 40 + ["validation"] * 20}
    ).assign(group=range(60))
    table.loc[50, "group"] = 0
    parts = split_parts(table, SplitConfig(method="auto", validation=0.2, test=0.2), seed=0)
    refuse_overlap(table.assign(part=parts)[parts != "removed"])


def test_a_rare_class_is_in_the_smallest_drawn_test_set():
    labels = ["a"] * 500 + ["rare"] * 20
    table = pd.DataFrame({"path": map(str, range(520)), "label": labels, "part": "", "group": range(520)})
    parts = split_parts(table, SplitConfig(method="auto", validation=0.2, test=0.01), seed=0)
    assert set(table.label[parts == "test"]) == {"a", "rare"}


@pytest.mark.parametrize("size", [1, 3])
def test_drawn_images_have_the_classes_in_the_same_shares_and_whole_groups(size):
    images = table({"nevus": 900, "melanoma": 90, "rare": 9})
    images["group"] = np.arange(len(images)) // size
    drawn = drawn_rows(images, 100, seed=0)
    assert drawn.groupby(images.group).nunique().eq(1).all()
    expected = {"nevus": 90, "melanoma": 9, "rare": 1}
    counted = images[drawn].label.value_counts().reindex(list(expected), fill_value=0)
    assert counted.to_dict() == pytest.approx(expected, abs=size - 1)
    assert drawn.equals(drawn_rows(images, 100, seed=0))
    assert not drawn.equals(drawn_rows(images, 100, seed=1))
