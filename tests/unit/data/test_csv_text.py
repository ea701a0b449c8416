"""No text of a table is a formula for a spreadsheet, and reading gives back what was written."""

import io

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma.data.csv_text import csv_text, read_csv_text

HOSTILE = ["=cmd|'/C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "'=1", "''-x", "'plain", "a=b", ""]


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_are_no_formulas_and_come_back(text: str):
    table = pd.DataFrame({"label": [text, "nevus"], "score": [-0.5, 1.0]})
    written = csv_text(table)
    cell = written.splitlines()[1].lstrip('"')
    assert not cell.startswith(("=", "+", "-", "@", "\t"))
    read = read_csv_text(io.StringIO(written), keep_default_na=False, dtype={"label": str})
    pd.testing.assert_frame_equal(read, table)


@given(st.lists(st.text(alphabet="'=+-@\t a,\"\n\r", max_size=5), min_size=1, max_size=4))
def test_any_text_comes_back(texts: list[str]):
    table = pd.DataFrame({"a": texts, "b": "x"})
    read = read_csv_text(io.StringIO(csv_text(table), newline=""), keep_default_na=False, dtype=str)
    assert list(read.a) == texts


def test_an_index_is_a_column_and_numbers_stay():
    table = pd.DataFrame({"auc": [-1.5, None]}, index=["=x", "fold 2"])
    assert csv_text(table, index_label="fold") == "fold,auc\n'=x,-1.5\nfold 2,\n"


def test_headers_categories_and_columns_of_one_name():
    table = pd.DataFrame([["=1", "+1", 3]], columns=["=cmd", "a", "a"])
    table.isetitem(1, table.iloc[:, 1].astype("category"))
    written = csv_text(table)
    assert written == "'=cmd,a,a\n'=1,'+1,3\n"
    assert list(read_csv_text(io.StringIO(written))) == ["=cmd", "a", "a.1"]
    assert csv_text(pd.DataFrame({0: ["=1"]})) == "0\n'=1\n"
