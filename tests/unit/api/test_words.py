"""The arguments of the command line that a call of the API stands for."""

import pytest

from melanoma.api.functions import _words
from melanoma.config.arguments import normalise


@pytest.mark.parametrize(
    ("named", "keys", "words"),
    [
        ({"data": "isic9", "model": None}, {}, ["data=isic9"]),
        ({"data": "/a b"}, {}, ["data=folder", "data.path=/a b"]),
        ({"data": "set.zip"}, {"seed": 0}, ["data=folder", "data.path={cwd}/set.zip", "seed=0"]),
        ({}, {"registry.floors.test/auc": None}, ["registry.floors.test/auc=null"]),
        ({}, {"protocol": "both", "deterministic": False}, ["protocol=both", "deterministic=false"]),
        ({}, {"data.leave_out": ["a, b", "c"]}, ["data.leave_out=['a, b',c]"]),
        (
            {},
            {"data.binary_tasks": {"bad": ["basal cell carcinoma"]}},
            ["data.binary_tasks={bad: ['basal cell carcinoma']}"],
        ),
        ({}, {"optimizer.learning_rate": 1e-3}, ["optimizer.learning_rate=0.001"]),
    ],
)
def test_a_call_is_a_command_line(named: dict, keys: dict, words: list[str], monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert _words(named, keys) == [word.format(cwd=tmp_path) if "{cwd}" in word else word for word in words]
    normalise(_words(named, keys))
