"""The shortcuts that a run names, and the protocol of several runs."""

import pandas as pd
import pytest

from melanoma.protocol import joined_protocol, shortcuts
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
    assert shortcuts(configured(*overrides), columns) == expected


def test_protocols_are_joined():
    assert joined_protocol("clean", "", "clean") == "clean"
    assert joined_protocol("clean", "pretrained_on_test", "groups_ignored,pretrained_on_test") == (
        "pretrained_on_test,groups_ignored"
    )
