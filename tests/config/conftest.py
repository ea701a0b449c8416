import pytest

from melanoma.config import renamed


@pytest.fixture(autouse=True)
def _each_test_is_warned_anew():
    renamed._warn.cache_clear()
    renamed._note.cache_clear()
