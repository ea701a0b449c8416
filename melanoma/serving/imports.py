"""A quicker import of Keras for commands that only predict."""

import sys

from melanoma.terminal import quiet_native_imports

__all__ = ["import_keras_alone"]

_UNUSED = ("sklearn", "matplotlib", "IPython")


def import_keras_alone() -> None:
    """Import Keras as if scikit-learn, matplotlib and IPython were not installed, which takes a second less.

    Keras uses them in `keras.wrappers`, `keras.visualization` and its file editor, which then do not work in this
    process. Therefore only commands call this, not the Python API. Nothing happens if Keras is imported already.
    """
    if "keras" in sys.modules:
        return
    absent = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None: importing it fails
    try:
        with quiet_native_imports():
            import keras  # noqa: F401
    finally:
        for name in absent:
            del sys.modules[name]
