"""The shortcuts that a run names, the protocol of several runs, and its form as text."""

from functools import reduce
from operator import or_

import pandas as pd
import pytest

from melanoma.lineage.protocol import CLEAN, SHORTCUTS_VARIABLE, Protocol, Shortcut, protocol_of
from tests.unit.conftest import configured

PLAIN = pd.Index(["path", "label", "part"])
KNOWN = pd.Index(["path", "label", "part", "lesion", "patient"])


@pytest.mark.parametrize(
    ("overrides", "columns", "expected"),
    [
        ([], KNOWN, []),
        (["balance=augmentor"], KNOWN, []),
        (["split.group=none"], PLAIN, []),
        (["split.group=none"], KNOWN, ["groups_ignored"]),
        (["split.group=patient"], KNOWN, ["lesions_ignored"]),
        (["split.group=lesion"], KNOWN, ["patients_ignored"]),
        (["split.group=patient"], PLAIN, []),
        (["audit.near_duplicates=false"], KNOWN, ["near_duplicates_ignored"]),
        (["audit.similarity=0.8"], KNOWN, ["near_duplicates_ignored"]),
        (["audit.similarity=0.7"], KNOWN, []),
        (["audit.conflicts=keep"], KNOWN, ["conflicts_kept"]),
        (["audit.conflicts=first"], KNOWN, ["conflicts_first"]),
        (["audit.duplicates=keep"], KNOWN, []),
        (["debug=overfit"], KNOWN, ["debug_overfit"]),
        (["debug=one_batch"], KNOWN, ["debug_one_batch"]),
        (["debug.train_batches=3"], KNOWN, ["debug_few_batches"]),
        (["debug.overfit=true", "debug.train_batches=1"], KNOWN, ["debug_overfit"]),
        (["debug=profile"], KNOWN, []),
        (["protocol=published"], PLAIN, ["published", "duplicates_ignored", "groups_ignored"]),
        (
            ["protocol=published", "balance=augmentor", "audit.conflicts=keep"],
            KNOWN,
            ["published", "augmented_before_split", "duplicates_ignored", "groups_ignored"],
        ),
        (["split.group=none", "audit.conflicts=keep"], KNOWN, ["groups_ignored", "conflicts_kept"]),
        (["split.published_validation=test"], KNOWN, []),
        (["model.weights=weights.keras"], KNOWN, ["pretraining_unknown"]),
        (["model.weights=models:/melanoma-x@champion"], KNOWN, []),
        (["model.weights=imagenet", "model=backbone"], KNOWN, []),
        (
            ["protocol=published", "split.published_validation=test"],
            PLAIN,
            ["published", "validated_on_test", "duplicates_ignored", "groups_ignored"],
        ),
    ],
)
def test_each_shortcut_is_named(overrides, columns, expected):
    assert list(protocol_of(configured(*overrides), columns).shortcuts) == expected


def joined(*protocols: str) -> str:
    return str(reduce(or_, map(Protocol.parse, protocols)))


def test_protocols_are_joined():
    assert joined("clean", "", "clean") == "clean"
    assert joined("clean", "pretrained_on_test", "groups_ignored,pretrained_on_test") == (
        "pretrained_on_test,groups_ignored"
    )


def test_a_trial_is_told_further_shortcuts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SHORTCUTS_VARIABLE, "selected_on_test,conflicts_kept,clean")
    expected = (Shortcut.CONFLICTS_KEPT, Shortcut.SELECTED_ON_TEST)
    assert protocol_of(configured("audit.conflicts=keep"), KNOWN) == Protocol(expected)
    monkeypatch.setenv(SHORTCUTS_VARIABLE, "")
    assert protocol_of(configured(), KNOWN) == CLEAN


@pytest.mark.parametrize(
    "text",
    [
        "clean",
        *Shortcut,
        "published,duplicates_ignored,groups_ignored",
        "groups_ignored,published",
        "unknown",
        "published,of_a_later_version",
    ],
)
def test_a_protocol_is_read_as_it_was_written(text: str):
    protocol = Protocol.parse(text)
    assert str(protocol) == text
    assert Protocol.parse(str(protocol)) == protocol
    assert protocol == Protocol.of(*(name for name in text.split(",") if name != "clean"))
    assert protocol.is_clean is (text == "clean")


@pytest.mark.parametrize("text", ["", "clean", "clean,clean", ",", "clean,"])
def test_what_names_no_shortcut_is_clean(text: str):
    assert Protocol.parse(text) == Protocol() == Protocol.of() == CLEAN
    assert Protocol.parse(text).is_clean
    assert str(Protocol.parse(text)) == "clean"


def test_a_union_keeps_the_order_and_names_each_once():
    one, other = Protocol.parse("groups_ignored,published"), Protocol.parse("conflicts_kept,groups_ignored,of_others")
    assert (one | other).shortcuts == ("groups_ignored", "published", "conflicts_kept", "of_others")
    assert (other | one).shortcuts == ("conflicts_kept", "groups_ignored", "of_others", "published")
    assert one | CLEAN == CLEAN | one == one | one == one
    assert CLEAN | CLEAN == CLEAN
    assert (
        Protocol.of("published", Shortcut.PUBLISHED)
        == Protocol.parse("published,published")
        == Protocol(("published",))
    )


def test_a_shortcut_is_told_from_one_whose_name_begins_with_its_own():
    unknown = Protocol.parse("seen_images_unknown")
    assert Shortcut.SEEN_IMAGES not in unknown
    assert "seen_images" not in unknown
    assert Shortcut.SEEN_IMAGES_UNKNOWN in unknown
    assert Shortcut.SEEN_IMAGES_UNKNOWN not in Protocol.of(Shortcut.SEEN_IMAGES)
    assert Shortcut.SEEN_IMAGES in unknown | Protocol.of(Shortcut.SEEN_IMAGES)


@pytest.mark.parametrize("name", ["unknown", "of_a_later_version"])
def test_names_of_other_versions_are_kept_and_are_not_clean(name: str):
    for protocol in (Protocol.parse(name), Protocol.parse(f"clean,{name}"), CLEAN | Protocol.of(name)):
        assert not protocol.is_clean
        assert name in protocol
        assert str(protocol) == name
