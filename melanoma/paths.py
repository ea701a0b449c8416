"""Where things are: the configs, the project's root and the cache."""

import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from melanoma.errors import ConfigError

__all__ = ["cache_dir", "conf_dir", "outputs_dir", "project_root", "user_path"]

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def conf_dir() -> Path:
    """The folder of Hydra's configs: inside an installed wheel, or beside the package in a checkout."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _CHECKOUT / "conf"


def project_root() -> Path:
    """The checkout; for an installed wheel the folder the command was started in."""
    return _CHECKOUT if (_CHECKOUT / "MLproject").is_file() else Path.cwd()


def outputs_dir() -> Path:
    """Where log files go: `outputs` in the project, else here, else a temporary folder: the first one writable."""
    for folder in (project_root(), Path.cwd()):
        if os.access(folder, os.W_OK):
            return folder / "outputs"
    return Path(tempfile.gettempdir()) / "melanoma-outputs"


def user_path(text: str) -> Path:
    """A path as a user gives it: `~` is their home, and `~name` a file of that name where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def cache_dir() -> Path:
    """`MELANOMA_CACHE_DIR`, else the XDG cache folder of this user. Made when first used."""
    configured = os.environ.get("MELANOMA_CACHE_DIR")
    try:
        path = user_path(configured).resolve() if configured else user_cache_path("melanoma")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            [f"The cache folder cannot be made ({error}); set MELANOMA_CACHE_DIR to one. Received: {configured}"]
        ) from error
    return path
