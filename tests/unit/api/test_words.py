"""The arguments of the command line that a call of the API stands for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import melanoma
from melanoma.api.functions import _values, _words
from melanoma.config.arguments import normalise
from melanoma.errors import ConfigError, MelanomaError
from melanoma.sweeps.plan import read_plan


@pytest.mark.parametrize(
    ("named", "keys", "words"),
    [
        ({"data": "isic9", "model": None}, {}, ["data=isic9"]),
        ({"data": "/a b"}, {}, ["data=folder", "data.path=/a b"]),
        ({"data": "/a,b"}, {}, ["data=folder", "data.path='/a,b'"]),
        ({"data": "set.ZIP"}, {}, ["data=folder", "data.path={cwd}/set.ZIP"]),
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


def test_only_a_list_varies_a_key_of_a_sweep():
    keys = {"seed": [0, 1], "run_name": "q,r", "optimizer.learning_rate": np.array([1e-2, 1e-3]), "model": ("m1", "m2")}
    words = _words({"data": Path("/images/a,b")}, {key: _values(value) for key, value in keys.items()})
    plan = read_plan(words)
    assert {one.key: list(one.choices) for one in plan.space} == {
        "seed": ["0", "1"],
        "optimizer.learning_rate": ["0.01", "0.001"],
        "model": ["m1", "m2"],
    }
    assert (plan.config.data.path, plan.config.tracking.run_name) == ("/images/a,b", "q,r")


@pytest.mark.parametrize("data", [3, True, b"x", ["a"]])
def test_data_of_another_type_is_refused(data: object):
    with pytest.raises(ConfigError, match=r"data must be a name, or a folder or \.zip file\. Received: data="):
        melanoma.train(data=data)


def test_calls_from_several_threads_wait_for_each_other():
    def refused(_: int) -> str:
        with pytest.raises(MelanomaError) as error:
            melanoma.train(model="m1", epochs=0)
        return str(error.value)

    with ThreadPoolExecutor(6) as threads:
        messages = set(threads.map(refused, range(12)))
    assert len(messages) == 1
    assert "training.epochs must be at least 1" in messages.pop()
