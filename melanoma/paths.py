"""Where things are: the configs, the project's root and the cache."""

import os
from pathlib import Path

from platformdirs import user_cache_path

__all__ = ["cache_dir", "conf_dir", "project_root"]

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def conf_dir() -> Path:
    """The folder of Hydra's configs: inside an installed wheel, or beside the package in a checkout."""
    installed = _PACKAGE / "conf"
    return installed if installed.is_dir() else _CHECKOUT / "conf"


def project_root() -> Path:
    """The checkout; for an installed wheel the folder the command was started in."""
    return _CHECKOUT if (_CHECKOUT / "MLproject").is_file() else Path.cwd()


def cache_dir() -> Path:
    """`MELANOMA_CACHE_DIR`, else the XDG cache folder of this user. Made when first used."""
    configured = os.environ.get("MELANOMA_CACHE_DIR")
    path = Path(configured).expanduser().resolve() if configured else user_cache_path("melanoma")
    path.mkdir(parents=True, exist_ok=True)
    return path
