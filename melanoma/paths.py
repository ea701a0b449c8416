"""Paths of the configuration files, the project root, the outputs and the cache."""

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from melanoma.errors import ConfigError

__all__ = ["cache_dir", "conf_dir", "outputs_dir", "project_root", "user_path"]

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def conf_dir() -> Path:
    """Return the folder of the Hydra configuration: inside an installed wheel, or next to the package in a checkout."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _CHECKOUT / "conf"


def project_root() -> Path:
    """Return the root of the checkout; for an installed wheel, the current folder."""
    return _CHECKOUT if (_CHECKOUT / "MLproject").is_file() else Path.cwd()


def outputs_dir() -> Path:
    """Return the folder for log files: `outputs` in the project root or the current folder, or else a temporary folder.

    The first of these with a writable parent is used.
    """
    for folder in (project_root(), Path.cwd()):
        if os.access(folder, os.W_OK):
            return folder / "outputs"
    return Path(tempfile.gettempdir()) / "melanoma-outputs"


def user_path(text: str) -> Path:
    """Expand `~` and `~user` in a path; keep the path unchanged if the user does not exist."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def cache_dir() -> Path:
    """Return the cache folder and create it if needed: `MELANOMA_CACHE_DIR`, or else the cache folder of the user."""
    configured = os.environ.get("MELANOMA_CACHE_DIR")
    try:
        path = user_path(configured).resolve() if configured else user_cache_path("melanoma")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            [
                f"The cache folder cannot be created ({error}); set MELANOMA_CACHE_DIR to a writable folder. "
                f"Received: {configured}"
            ]
        ) from error
    return path
