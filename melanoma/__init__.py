"""Train, track, compare and promote skin-lesion classifiers, with reliable evaluation."""

import os
from pathlib import Path

__version__ = "0.1.0"

__all__ = ["__version__"]

# TensorFlow reads this on import. By default it prints a page of build details and, on a machine without a GPU, errors
# about the missing GPU. A value set by the user takes precedence.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")
