"""CSV tables whose texts no spreadsheet takes for formulas.

A text that starts with =, +, -, @, a tab or a line break, such as the name of a class or a file from a stranger, could
be run by a spreadsheet. It is written with an apostrophe before it (OWASP, CSV injection), which is removed on reading.
"""

import csv
import re
from pathlib import Path
from typing import IO, Any

import pandas as pd

__all__ = ["csv_text", "read_csv_text"]

_FORMULA = r"^('*[=+\-@\t\r\n])"  # those with apostrophes before, too, so that reading gives back what was written
_ESCAPED = r"^'('*[=+\-@\t\r\n])"


def csv_text(table: pd.DataFrame, *, index_label: str | None = None, header: bool = True) -> str:
    """Return a table as CSV, with its index as the first column if `index_label` is given."""
    if index_label is not None:
        table = table.rename_axis(index_label).reset_index()
    safe = _replaced(table, _FORMULA, r"'\1")
    text = str(safe.to_csv(index=False, header=header))
    # pandas does not quote a carriage return, which ends a line when the table is read.
    return str(safe.to_csv(index=False, header=header, quoting=csv.QUOTE_NONNUMERIC)) if "\r" in text else text


def read_csv_text(file: str | Path | IO[str], **options: Any) -> pd.DataFrame:
    """Read a table of `csv_text`, or another CSV file; the options are those of `pandas.read_csv`."""
    return _replaced(pd.read_csv(file, **options), _ESCAPED, r"\1")


def _replaced(table: pd.DataFrame, pattern: str, by: str) -> pd.DataFrame:
    table = table.copy()
    for place, dtype in enumerate(table.dtypes):
        if dtype.kind == "O":
            texts = table.iloc[:, place]
            texts = texts.astype(object) if isinstance(dtype, pd.CategoricalDtype) else texts
            table.isetitem(place, texts.replace(pattern, by, regex=True))
    return table.set_axis([re.sub(pattern, by, name) if isinstance(name, str) else name for name in table], axis=1)
