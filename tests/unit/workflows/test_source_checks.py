"""What the list of images says about the configuration."""

import pytest

from melanoma.errors import ConfigError, DataError
from melanoma.workflows.source_checks import check_split, kept_classes
from melanoma.workflows.stages import read_source
from tests.unit.conftest import SMALL, configured


@pytest.mark.parametrize("leave_out", ["[naevus]", "[benign]", "[benign,malignant]"])
def test_classes_left_out_are_there_and_two_are_kept(leave_out: str):
    settings = configured(*SMALL, f"data.leave_out={leave_out}")
    with pytest.raises(ConfigError, match=r"data\.leave_out names classes of the data"):
        kept_classes(settings.data, read_source(settings.data).classes)


def test_folds_do_not_ask_for_images_of_a_class_left_out():
    few = ["data.classes=3", "data.source.images=60", "data.source.imbalance=20", "split=kfold"]
    names = read_source(configured(*SMALL, *few).data).classes
    settings = configured(*SMALL, *few)
    with pytest.raises(DataError, match=r"so that one is in each fold"):
        check_split(settings, read_source(settings.data))
    settings = configured(*SMALL, *few, f"data.leave_out=[{names[-1]}]")
    assert kept_classes(settings.data, names) == names[:-1]
    check_split(settings, read_source(settings.data))


@pytest.mark.parametrize("group", ["lesion", "patient"])
def test_a_grouping_that_groups_nothing_is_refused(group: str):
    source = read_source(configured(*SMALL).data)
    folder = ["data=folder", f"data.path={source.root}", f"split.group={group}"]
    settings = configured(*folder)
    with pytest.raises(DataError, match=rf"No {group} is known.*data\.metadata\.{group}_column"):
        check_split(settings, read_source(settings.data))
    settings = configured(*folder, "protocol=published")
    check_split(settings, read_source(settings.data))
