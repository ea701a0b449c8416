"""Train, track, compare and promote skin-lesion classifiers whose numbers can be believed."""

import os
from pathlib import Path

__version__ = "0.1.0"

__all__ = ["__version__"]

# TensorFlow reads this when it is first imported, and else greets with a page of build details, on a machine
# without a GPU with errors about the missing one. A setting of the user's own wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")
