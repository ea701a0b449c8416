"""Findings as they are named on a command line."""

import pytest

from melanoma.auditing.names import FINDINGS, named_findings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("", []),
        ("[]", []),
        ("any", list(FINDINGS)),
        ("odd,any", list(FINDINGS)),
        ("odd", ["odd"]),
        ("odd,unreadable", ["odd", "unreadable"]),
        (" odd , unreadable ,", ["odd", "unreadable"]),
        ("[split_leaks, label_conflicts]", ["split_leaks", "label_conflicts"]),
        ("['split_leaks', \"odd\"]", ["split_leaks", "odd"]),
        ("leaks", ["leaks"]),
    ],
)
def test_findings_are_read_with_and_without_brackets(text, expected):
    assert named_findings(text) == expected
