"""Likely label errors, found by confident learning in the predictions of models that did not train on the images.

Northcutt, Jiang & Chuang (2021), https://doi.org/10.1613/jair.1.12125. The authors' own library, cleanlab, is licensed
under the AGPL, which an Apache-licensed project cannot depend on.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import entropy

__all__ = ["assessed_labels"]


def assessed_labels(targets: NDArray[np.integer], probabilities: NDArray, classes: Sequence[str]) -> pd.DataFrame:
    """Assess the label of each image.

    A class is confident for an image if its probability is at least the mean probability that images with this label
    have. A label is a likely error if another class is confident, and more probable than all other confident classes,
    the label included. An image is atypical if no class is confident.

    Args:
        targets: Class index of the label of each image, shape (n,).
        probabilities: Predictions of models that did not train on the images, shape (n, classes).
        classes: Class names.

    Returns:
        A row for each image, in order: `suggested` (the most probable confident class, or the most probable class),
        `probability_of_label`, `probability_of_suggested`, `likely_error`, `atypical`, and `score` to rank the images:
        of a likely error by how much the suggested class is more probable than the label, of others the entropy of the
        probabilities as a share of its maximum.
    """
    rows, names = np.arange(len(targets)), np.array(classes)
    confident: NDArray[np.bool_] = np.asarray(probabilities) >= _thresholds(probabilities, targets)
    fits = np.asarray(confident.any(axis=1))
    suggested = np.where(fits[:, None], np.where(confident, probabilities, -1), probabilities).argmax(axis=1)
    wrong = fits & (suggested != targets)
    of_label, of_suggested = probabilities[rows, targets], probabilities[rows, suggested]
    spread = entropy(probabilities, axis=1) / np.log(len(classes))
    return pd.DataFrame(
        {
            "suggested": names[suggested],
            "probability_of_label": of_label,
            "probability_of_suggested": of_suggested,
            "likely_error": wrong,
            "atypical": ~fits,
            "score": np.where(wrong, of_suggested - of_label, spread),
        }
    )


def _thresholds(probabilities: NDArray, targets: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return the mean probability of each class on the images that are labelled as it; infinite without such images."""
    found = np.full(probabilities.shape[1], np.inf)
    for c in np.unique(targets):
        found[c] = probabilities[targets == c, c].mean()
    return found
