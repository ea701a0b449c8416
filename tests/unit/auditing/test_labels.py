"""Planted label errors are found, and the report keeps what it shows apart from what it says."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from melanoma.auditing.label_report import write_label_report
from melanoma.auditing.labels import assessed_labels
from melanoma.data.sources import synthetic

NAMES = ["nevus", "melanoma", "keratosis"]


def with_errors(n: int = 3000, share: float = 0.05, skill: float = 4.0) -> tuple[pd.DataFrame, np.ndarray]:
    """The assessment by models with some skill, and which labels were changed."""
    rng = np.random.default_rng(0)
    true = rng.choice(3, size=n, p=[0.6, 0.3, 0.1])
    probabilities = softmax(skill * np.eye(3)[true] + rng.normal(size=(n, 3)), axis=1)
    changed = rng.random(n) < share
    labels = np.where(changed, (true + rng.integers(1, 3, n)) % 3, true)
    return assessed_labels(labels, probabilities, NAMES), changed


def test_planted_errors_are_found():
    found, changed = with_errors()
    hits = found.likely_error & changed
    assert hits.sum() / changed.sum() > 0.7
    assert hits.sum() / found.likely_error.sum() > 0.9
    assert not with_errors(share=0)[0].likely_error.mean() > 0.01


def test_of_models_that_know_little_the_first_suggestions_are_the_better_ones():
    found, changed = with_errors(skill=2.0)
    found = found.assign(changed=changed)
    ranked = found[found.likely_error].sort_values("score", ascending=False)
    assert ranked.changed.head(50).mean() > ranked.changed.mean() + 0.1


def test_the_rules_by_hand():
    """The mean probability of label a is 0.6, of b 0.7: the limits from which a class is confident."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.0, 1.0], [0.3, 0.7], [0.55, 0.45], [0.05, 0.95]])
    found = assessed_labels(np.array([0, 0, 0, 1, 1, 1]), probabilities, ["a", "b"])
    assert found.likely_error.tolist() == [False, False, True, False, False, False]
    assert found.suggested.tolist() == ["a", "a", "b", "b", "a", "b"]
    assert found.atypical.tolist() == [False, False, False, False, True, False]
    assert found.score[2] == pytest.approx(1.0)
    assert found.probability_of_label[4] == 0.45


def test_a_class_without_images_is_never_suggested():
    probabilities = np.array([[0.2, 0.2, 0.6], [0.1, 0.3, 0.6]])
    found = assessed_labels(np.array([0, 1]), probabilities, NAMES)
    assert not found.likely_error.any() or set(found.suggested[found.likely_error]) <= {"nevus", "melanoma"}


def test_the_report(tmp_path):
    source = synthetic(None, images=12, size=48, seed=1)
    rows = source.table[["path", "label"]].assign(sha256="0" * 64, suggested="<b>x</b>", probability_of_label=0.1)
    rows = rows.assign(probability_of_suggested=0.9, likely_error=rows.index < 3, atypical=rows.index == 5)
    rows = rows.assign(score=np.arange(len(rows)) / 100)
    facts = {"name": "<i>mine</i>", "run": "abc", "classes": ["benign", "malignant"], "notes": ["A note."]}
    page = write_label_report(rows, source.root, facts, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.count("<figure ") == 4
    assert text.count("data:image/jpeg;base64,") == 4
    assert "&lt;b&gt;x&lt;/b&gt;" in text
    assert "<b>x</b>" not in text
    assert "<i>mine" not in text
    table = pd.read_csv(tmp_path / "labels.csv", keep_default_na=False)
    assert table.likely_error.tolist()[:4] == [True, True, True, False]
    assert table.path[0] == rows.path[2]  # the highest score first
    assert set(table.decision) == {""}
