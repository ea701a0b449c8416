"""Train, track, compare and promote skin-lesion classifiers, with reliable evaluation.

import melanoma

run = melanoma.train(data="my_images", model="m1", epochs=5)
run.metrics, run.predictions, run.figure("roc")
melanoma.load(run).predict("new_images")
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melanoma.api.functions import audit, compare, evaluate, load, predict, promote, sweep, train

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "audit",
    "compare",
    "evaluate",
    "load",
    "predict",
    "promote",
    "sweep",
    "train",
]

# TensorFlow reads this on import. By default it prints a page of build details and, on a machine without a GPU, errors
# about the missing GPU. A value set by the user takes precedence.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")


def __getattr__(name: str) -> Any:
    """Import a function of the API when it is first used, so that commands start sooner."""
    if name in __all__:
        from melanoma.api import functions

        return getattr(functions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
