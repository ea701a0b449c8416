"""The positive class of two classes."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from melanoma.data.positive import positive_class, with_positive
from melanoma.data.sources import Source
from melanoma.errors import ConfigError


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (["melanoma", "nevus"], "melanoma"),
        (["nevus", "melanoma"], "melanoma"),
        (["benign", "malignant"], "malignant"),
        (["Malignant", "benign"], "Malignant"),
        (["basal_cell_carcinoma", "nevus"], "basal_cell_carcinoma"),
        (["melanoma", "non-melanoma"], "melanoma"),
        (["0", "1"], "1"),
    ],
)
def test_it_is_inferred_from_known_names_in_any_order(classes: list[str], positive: str):
    assert positive_class(classes, None) == positive


def test_what_is_configured_wins():
    assert positive_class(["melanoma", "nevus"], "nevus") == "nevus"
    assert positive_class(["ok", "sick"], "ok") == "ok"


@pytest.mark.parametrize("classes", [["nevus", "seborrheic keratosis"], ["melanoma", "malignant"], ["a", "it's"]])
def test_names_that_do_not_tell_are_a_question(classes: list[str]):
    typed = [shlex.quote(f"data.positive={label}") for label in classes]
    with pytest.raises(ConfigError, match=re.escape(f"Add {' or '.join(typed)}. ")):
        positive_class(classes, None)


def test_it_must_be_one_of_two_classes():
    with pytest.raises(ConfigError, match=r"one of 'a' and 'b'\. Received: data\.positive=c"):
        positive_class(["a", "b"], "c")
    with pytest.raises(ConfigError, match=r"data.binary_tasks=\{malignant: \[melanoma\]\}"):
        positive_class(["melanoma", "nevus", "bcc"], "melanoma")
    assert positive_class(["melanoma", "nevus", "bcc"], None) is None


def test_it_becomes_the_last_class():
    source = Source(Path(), pd.DataFrame(), ["melanoma", "nevus", "scar"])
    assert with_positive(source, None) == (source, None)
    found, positive = with_positive(source, None, ["scar"])
    assert (found.classes, positive) == (["nevus", "scar", "melanoma"], "melanoma")
