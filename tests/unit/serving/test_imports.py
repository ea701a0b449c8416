"""The quicker import of Keras, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import sys
from melanoma.serving.imports import import_keras_alone
import_keras_alone()
import melanoma.serving.package
import keras
print(sorted({"sklearn", "scipy.stats", "matplotlib", "IPython"} & set(sys.modules)))
import sklearn.metrics, matplotlib.figure
import_keras_alone()
print(keras.layers.Dense(1)(keras.ops.ones((1, 2))).shape, sklearn.metrics.accuracy_score([1], [1]))
"""


def test_keras_alone_leaves_out_what_a_prediction_does_not_need_and_it_can_be_imported_later():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "(1, 1) 1.0"]
