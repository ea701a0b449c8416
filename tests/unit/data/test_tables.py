"""Images labelled by a metadata table, as in HAM10000 and the ISIC challenges."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma.data.groups import connected_groups
from melanoma.data.sources import Source
from melanoma.data.tables import metadata_table, with_metadata
from melanoma.errors import DataError


@pytest.fixture
def read(tmp_path, write_image):
    """`read(images, {file: csv text}, **arguments)` writes the files and opens them as a source."""

    def opened(images: list[str], tables: dict[str, str], **arguments) -> Source:
        for seed, image in enumerate(images):
            write_image(tmp_path / "set" / image, seed)
        for name, text in tables.items():
            (tmp_path / "set" / name).write_text(text, encoding="utf-8")
        arguments = {"table": next(iter(tables), "meta.csv"), "image_column": "image"} | arguments
        return metadata_table(tmp_path / "set", **arguments)

    return opened


def by_path(source: Source, *columns: str) -> dict[str, tuple]:
    return {row[0]: row[1:] for row in source.table[["path", *columns]].itertuples(index=False, name=None)}


def test_ham10000_like_table(read):
    source = read(
        ["part_1/ISIC_01.jpg", "part_2/ISIC_02.jpg", "part_2/ISIC_03.jpg"],
        {
            "HAM.csv": "lesion_id,image_id,dx,age,sex,localization,fitzpatrick\n"
            "L1,ISIC_01,mel,60.0,male,back,2\nL1,ISIC_02,mel,60.0,male,back,2\nL2,ISIC_03,nv,,unknown,face,\n"
        },
        image_column="image_id",
        label_column="dx",
        labels={"mel": "melanoma", "nv": "nevus", "bcc": "unused"},
        lesion_column="lesion_id",
        age_column="age",
        sex_column="sex",
        site_column="localization",
        skin_tone_column="fitzpatrick",
        classes=["nevus", "melanoma"],
    )
    assert by_path(source, "label", "part", "lesion", "sex", "site") == {
        "part_1/ISIC_01.jpg": ("melanoma", "", "L1", "male", "back"),
        "part_2/ISIC_02.jpg": ("melanoma", "", "L1", "male", "back"),
        "part_2/ISIC_03.jpg": ("nevus", "", "L2", "unknown", "face"),
    }
    assert list(source.table.age[:2]) == [60, 60]
    assert list(source.table.skin_tone[:2]) == [2, 2]
    assert pd.isna(source.table.age[2])
    assert source.classes == ["nevus", "melanoma"]
    assert source.notes == []


@pytest.mark.parametrize(
    "second",
    ["image,lesion_id,age\nb,L2,40\nunlabelled,L3,50\na,L1,30\n", "image,age,lesion_id\nb.jpg,40,L2\na,30,L1\n"],
)
def test_one_hot_table_with_a_second_table_joined(read, second):
    source = read(
        ["a.jpg", "b.jpg"],
        {"truth.csv": "image,MEL,NV,UNK\na,1.0,0.0,0.0\nb,0.0,1.0,0.0\n", "meta.csv": second},
        extra_tables=["meta.csv"],
        label_columns=["MEL", "NV"],
        labels={"MEL": "melanoma", "NV": "nevus"},
        lesion_column="lesion_id",
        age_column="age",
    )
    assert by_path(source, "label", "lesion", "age") == {"a.jpg": ("melanoma", "L1", 30), "b.jpg": ("nevus", "L2", 40)}


def test_isic_2020_like_table(read):
    source = read(
        ["jpeg/train/ISIC_1.jpg", "jpeg/train/ISIC_2.jpg"],
        {"t.csv": "image_name,patient_id,benign_malignant\nISIC_1,IP_7,benign\nISIC_2,IP_7,malignant\n"},
        image_column="image_name",
        label_column="benign_malignant",
        patient_column="patient_id",
    )
    assert by_path(source, "label", "patient") == {
        "jpeg/train/ISIC_1.jpg": ("benign", "IP_7"),
        "jpeg/train/ISIC_2.jpg": ("malignant", "IP_7"),
    }


@pytest.mark.parametrize("named", ["x", "x.jpg", "x.JPG", "a/b/x", "a\\b\\x.jpg", "x.png"])
def test_the_image_column_may_hold_folder_and_suffix(read, named):
    source = read(["deep/down/x.jpg", "y.jpg"], {"t.csv": f"image,label\n{named},a\ny,b\n"})
    assert by_path(source, "label")["deep/down/x.jpg"] == ("a",)


@pytest.mark.parametrize("ids", [["007", "008"], ["1.5", "1.50"], ["scan.v1", "scan.v2"]])
def test_image_ids_are_text_even_if_they_look_like_numbers(read, ids):
    source = read(
        [f"{name}.jpg" for name in ids],
        {"t.csv": f"image,label\n{ids[0]},a\n{ids[1]},b\n", "more.csv": f"image,age\n{ids[0]},5\n{ids[1]}.jpg,6\n"},
        extra_tables=["more.csv"],
        age_column="age",
    )
    assert by_path(source, "label", "age") == {f"{ids[0]}.jpg": ("a", 5), f"{ids[1]}.jpg": ("b", 6)}


def test_images_of_formats_that_will_be_quarantined_are_found_too(read):
    source = read(["x.webp", "y.jpg"], {"t.csv": "image,label\nx.webp,a\ny.jpg,b\n"})
    assert list(source.table.path) == ["x.webp", "y.jpg"]


@pytest.mark.parametrize("labels", [{"0": "benign", "1": "malignant"}, {0: "benign", 1: "malignant"}])
def test_numbers_as_labels_can_be_named(read, labels):
    assert read(["x.jpg", "y.jpg"], {"t.csv": "image,label\nx,0\ny,1\n"}, labels=labels).classes == list(
        labels.values()
    )


def test_the_table_is_searched_below_the_folder_and_may_be_elsewhere(read, tmp_path):
    (tmp_path / "set/wrapper").mkdir(parents=True)
    csv = "image,label\nx,a\ny,b\n"
    below = read(["wrapper/x.jpg", "wrapper/y.jpg"], {"wrapper/t.csv": csv}, table="t.csv")
    (tmp_path / "t.csv").write_text(csv)
    elsewhere = read([], {}, table=str(tmp_path / "t.csv"))
    assert by_path(below) == by_path(elsewhere) == {"wrapper/x.jpg": (), "wrapper/y.jpg": ()}


def test_a_missing_column_is_answered_with_the_line_to_type(read):
    with pytest.raises(DataError) as error:
        read(["x.jpg"], {"t.csv": "Image File,dx (final),age\nx,a,1\n"})
    assert "for example 'data.source.image_column=Image File'" in str(error.value)
    with pytest.raises(DataError) as error:
        read(["x.jpg"], {"t.csv": "image,dx (final),age\nx,a,1\n"}, label_column="dx")
    assert "for example 'data.source.label_column=dx (final)'" in str(error.value)
    assert "columns 'image', 'dx (final)', 'age' in t.csv" in str(error.value)


def test_a_table_may_be_in_the_current_folder(read, tmp_path, monkeypatch):
    (tmp_path / "here.csv").write_text("image,label\nx,a\ny,b\n")
    monkeypatch.chdir(tmp_path)
    assert set(by_path(read(["x.jpg", "y.jpg"], {}, table="here.csv"))) == {"x.jpg", "y.jpg"}


def test_images_without_a_row_are_noted_and_passed_over(read):
    source = read(["x.jpg", "y.jpg", "x_mask.png", "z.jpg"], {"t.csv": "image,label\nx,a\ny,b\n"})
    assert list(source.table.path) == ["x.jpg", "y.jpg"]
    assert source.notes == ["2 image files have no row in t.csv and were skipped"]


HOT = {"label_columns": ["A", "B"]}


@pytest.mark.parametrize(
    ("csv", "arguments", "message"),
    [
        ("image,label\nx,a\ny,b\n", {"table": ""}, "must not be empty"),
        ("image,label\nx,a\ny,b\n", {"table": "absent.csv"}, "no such table in .*absent.csv"),
        ("image,label\nx,a\ny,b\n", {"extra_tables": ["absent.csv"]}, "no such table.*absent.csv"),
        ("", {}, r"cannot be read as CSV.*t\.csv"),
        ('image,label\n"x,a\ny,b\n', {}, r"cannot be read as CSV.*t\.csv"),
        ("name,label\nx,a\ny,b\n", {}, r"no column 'image' \(data.source.image_column\).*'name', 'label' in t\.csv"),
        ("image,dx\nx,a\ny,b\n", {"lesion_column": "lesion"}, r"'label' \(.*\), 'lesion' \(.*'image', 'dx' in t\.csv"),
        ("image,A\nx,1\ny,0\n", HOT, r"no column 'B' \(data.source.label_columns\)"),
        ("image,label\nx,a\ny,b\nx.jpg,b\n", {}, r"each image once.*Received: x more than once in t\.csv"),
        ("image,label\nx,a\ny,b\nz1,a\nz2,a\n", {}, r"2 of 4 rows have no image.*Received: z1, z2 in t\.csv"),
        (
            "image,label\nx,a\n,b\n,b\n",
            {},
            r"needs an image in column 'image'. Received: none in lines 3, 4 of .*t\.csv",
        ),
        ("image,label\nx,a\ny,\n", {}, r"needs a label.*Received: no label for y in t\.csv"),
        ("image,A,B\nx,1,0\ny,0,0\n", HOT, "exactly one label column.*of A, B.*Received: 1 such rows"),
        ("image,A,B\nx,1,1\ny,1,1\n", HOT, "exactly one label column.*Received: 2 such rows"),
        ("image,A,B\nx,1,0\ny,no,1\n", HOT, r"must hold 0 and 1.*Received: t\.csv"),
        ("image,A,B\nx,1,2\ny,0,1\n", HOT, r"must hold 0 and 1.*Received: t\.csv"),
        ("image,A,B\nx,1,0\ny,,1\n", HOT, r"must hold 0 and 1.*Received: t\.csv"),
        ("image,label\n", {}, "No classes found.*Received"),
        ("image,label\nx,a\ny,b\n", {"classes": ["a", "c"]}, "Missing: 'c'; not expected: 'b'"),
    ],
)
def test_unusable_tables_are_refused_and_named(read, csv, arguments, message):
    with pytest.raises(DataError, match=message):
        read(["x.jpg", "y.jpg"], {"t.csv": csv}, **arguments)


def test_an_id_twice_in_a_second_table_is_refused(read):
    with pytest.raises(DataError, match=r"each image once.*Received: x more than once in more\.csv"):
        read(
            ["x.jpg", "y.jpg"],
            {"t.csv": "image,label\nx,a\ny,b\n", "more.csv": "image,age\nx,1\nx,2\n"},
            extra_tables=["more.csv"],
        )


@pytest.mark.parametrize("other", ["copy/x.jpg", "x.png"])
def test_two_files_of_one_id_are_refused(read, other):
    with pytest.raises(DataError, match=rf"share one image id.*Received: .*{Path(other).name}"):
        read(["x.jpg", "y.jpg", other], {"t.csv": "image,label\nx,a\ny,b\n"})


def test_a_table_that_is_no_text_is_refused(read, tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,label\n\xff\xfe\x00,a\n")
    with pytest.raises(DataError, match="cannot be read as CSV"):
        read(["x.jpg"], {}, table=str(tmp_path / "t.csv"))


PATHS = ["train/a/x.jpg", "train/b/y.jpg", "test/a/z.png", "test/b/w.jpg"]


@pytest.fixture
def told(tmp_path):
    """`told(csv, **arguments)` is a source of four images of folders, with what a table says about them."""

    def call(csv: str, **arguments) -> Source:
        (tmp_path / "t.csv").write_text(csv, encoding="utf-8")
        table = pd.DataFrame({"path": PATHS, "label": ["a", "b", "a", "b"], "part": ["train", "train", "test", "test"]})
        source = Source(tmp_path, table, ["a", "b"], ["an earlier note"])
        return with_metadata(source, **{"table": "t.csv", "image_column": "id"} | arguments)

    return call


def test_a_table_tells_lesion_age_and_label_of_images_in_folders(told):
    source = told(
        "id,dx,lesion_id,years,sex\nw,B,L2,50,male\nx,A,L1,40,female\ny,B,L1,,\nz,A,L3,30,male\n",
        label_column="dx", labels={"A": "a"}, lesion_column="lesion_id", age_column="years", sex_column="sex",
    )  # fmt: skip
    assert by_path(source, "label", "part", "lesion", "metadata_label") == {
        "train/a/x.jpg": ("a", "train", "L1", ("a",)),
        "train/b/y.jpg": ("b", "train", "L1", ("B",)),
        "test/a/z.png": ("a", "test", "L3", ("a",)),
        "test/b/w.jpg": ("b", "test", "L2", ("B",)),
    }
    np.testing.assert_array_equal(source.table.age, [40, np.nan, 30, 50])
    assert "site" not in source.table
    assert source.notes == ["an earlier note", "t.csv names 4 of 4 images; 0 of its rows have no image here"]


def test_a_label_may_stand_for_several_classes(told):
    labels = {"K": ["a", "b"], "N": "b"}
    source = told("id,dx\nx,K\ny,N\nz,K\nw,other\n", label_column="dx", labels=labels)
    assert list(source.table.metadata_label) == [("a", "b"), ("b",), ("a", "b"), ("other",)]


def test_images_without_a_row_are_of_no_common_lesion_and_have_no_label(told):
    source = told("id,dx,lesion_id\nx,a,L1\ny,,L1\nother,b,L1\n", label_column="dx", lesion_column="lesion_id")
    assert list(source.table.metadata_label) == [("a",), (), (), ()]
    assert list(source.table.lesion[:2]) == ["L1", "L1"]
    assert source.table.lesion[2:].isna().all()
    assert list(connected_groups(source.table, ["lesion"])) == [0, 0, 1, 2]
    assert source.notes[1:] == ["t.csv names 2 of 4 images; 1 of its rows have no image here"]


@pytest.mark.parametrize("names", [["x.jpg", "y.jpg"], ["train/a/x", "images/y.JPG"], ["c\\x.jpg", "y.png"]])
def test_the_names_of_a_table_may_have_folder_and_suffix(told, names):
    source = told(f"id,age\n{names[0]},1\n{names[1]},2\n", age_column="age")
    np.testing.assert_array_equal(source.table.age, [1, 2, np.nan, np.nan])


def test_image_ids_of_digits_are_matched_as_text(told, tmp_path):
    (tmp_path / "t.csv").write_text("id,age\n007,1\n7,2\n")
    source = Source(tmp_path, pd.DataFrame({"path": ["a/007.jpg"], "label": "a", "part": ""}), ["a", "b"])
    assert list(with_metadata(source, "t.csv", image_column="id", age_column="age").table.age) == [1]


def test_a_table_of_metadata_may_be_elsewhere(told, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work/here.csv").write_text("id,age\nx,5\n")
    monkeypatch.chdir(tmp_path / "work")
    for where in ("here.csv", "../work/here.csv", str(tmp_path / "work/here.csv")):
        assert told("id,age\nx,4\n", table=where, age_column="age").table.age[0] == 5


@pytest.mark.parametrize(
    ("csv", "arguments", "message"),
    [
        ("id\nx\n", {"table": "absent.csv"}, "no such table in .*absent.csv"),
        ("id\nx\n", {"image_column": "image_id"}, r"'image_id' \(data\.metadata\.image_.*columns 'id' in t\.csv"),
        ("id\nx\n", {"label_column": "dx", "site_column": "where"}, r"'dx' \(.*label_column\), 'where' \(.*site_c"),
        ("id,age\nx,1\ny,1\nx.jpg,2\n", {}, r"each image once.*Received: x more than once in t\.csv"),
        ("id,age\nx,1\n,1\n", {}, r"none in lines 3 of .*t\.csv"),
        (
            "id\nISIC_1\nISIC_2\n",
            {},
            r"No image has a row.*'id'.*Received: x, y, z and 1 others as images, ISIC_1, ISIC_2",
        ),
        ("", {}, r"cannot be read as CSV.*t\.csv"),
    ],
)
def test_unusable_tables_of_metadata_are_refused_and_named(told, csv, arguments, message):
    with pytest.raises(DataError, match=message):
        told(csv, **arguments)


def test_numbers_as_labels_can_be_named_although_an_image_has_no_row(tmp_path):
    (tmp_path / "m.csv").write_text("image,dx\nx,0\ny,1\n")
    table = pd.DataFrame({"path": ["a/x.jpg", "b/y.jpg", "b/z.jpg"], "label": ["a", "b", "b"], "part": ""})
    source = with_metadata(
        Source(tmp_path, table, ["a", "b"]),
        "m.csv",
        image_column="image",
        label_column="dx",
        labels={"0": "a", "1": "b"},
    )
    assert list(source.table.metadata_label) == [("a",), ("b",), ()]


def test_files_of_one_name_in_several_folders_are_told_by_their_path(tmp_path):
    for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text("file,dx\na/0.jpg,x\nb/0.jpg,y\nb/1,y\nsomewhere/else/a/1.jpg,x\n")
    source = metadata_table(tmp_path, table="t.csv", image_column="file", label_column="dx")
    labels = dict(zip(source.table.path, source.table.label, strict=True))
    assert labels == {"a/0.jpg": "x", "a/1.jpg": "x", "b/0.jpg": "y", "b/1.jpg": "y"}
    (tmp_path / "t.csv").write_text("file,dx\n0,x\n1,y\n")
    with pytest.raises(DataError, match="Two files share one image id"):
        metadata_table(tmp_path, table="t.csv", image_column="file", label_column="dx")
    (tmp_path / "t.csv").write_text("file,dx\nc/0.jpg,x\nd/0.jpg,y\n")
    with pytest.raises(DataError, match="2 of 2 rows have no image file"):
        metadata_table(tmp_path, table="t.csv", image_column="file", label_column="dx")
