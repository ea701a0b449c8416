"""What the commands share that answer requests: which model, and a server on loopback."""

import ipaddress
import logging
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from starlette.middleware.trustedhost import TrustedHostMiddleware

from melanoma.errors import ConfigError, ModelError
from melanoma.models.model_files import UnsafeModel
from melanoma.registry.package import write_package
from melanoma.registry.versions import CHAMPION, only_model
from melanoma.tracking.models import checked_folder, model_address

__all__ = ["address_of", "listening", "package_folder", "run_server"]

log = logging.getLogger("melanoma")

_AT_ONCE = 32  # connections; more are answered with 503


@contextmanager
def package_folder(model: str | None) -> Iterator[Path]:
    """The files of a packaged model, checked; a run's model that was not promoted is packaged for the while.

    Args:
        model: see `load_saved_model`; None is the only champion.

    Raises:
        ModelError: there is no such model, or it was changed since.
    """
    address = f"models:/{only_model(None)}@{CHAMPION}" if model is None else model_address(model)
    try:
        folder = checked_folder(address)
        info = Model.load(folder)
    except UnsafeModel as error:
        raise ModelError(f"The model is refused: {error}. Received: {address}") from error
    except (MlflowException, OSError) as error:
        raise ModelError(f"There is no such model ({str(error).splitlines()[0]}). Received: {address}") from error
    if (info.metadata or {}).get("packaged"):
        yield folder
        return
    if info.run_id is None:
        raise ModelError(f"The model does not say which run trained it; promote it first. Received: {address}")
    log.warning("This model was not promoted: it is packaged as its run left it")
    with tempfile.TemporaryDirectory(prefix="melanoma-serve-") as temporary:
        write_package(info.run_id, Path(temporary) / "package")
        yield Path(temporary) / "package"


def listening(host: str, port: int) -> socket.socket:
    """A socket that is bound, before anything that takes long.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio switches off waiting for more to send (Nagle) only where the protocol is named: 40 ms an answer.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)  # another process could else bind it too
    except (OSError, OverflowError) as error:
        bound.close()
        raise ConfigError(
            [f"The address cannot be used ({error}); give another port, or port=0. Received: host={host} port={port}"]
        ) from error
    if not _is_loopback(host):
        log.warning("Whoever can reach this machine can ask the model: there is no password, and no encryption")
    return bound


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def address_of(bound: socket.socket, host: str) -> str:
    """What to open, or to ask."""
    return f"http://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def run_server(app: Any, bound: socket.socket, host: str) -> None:
    """Answer requests until the process is stopped."""
    if _is_loopback(host):
        # A page from elsewhere could else have its own name resolve to this machine, and read the answers.
        app = TrustedHostMiddleware(app, allowed_hosts=["localhost", "127.0.0.1", "[::1]", host])
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, limit_concurrency=_AT_ONCE
    )
    uvicorn.Server(settings).run(sockets=[bound])
