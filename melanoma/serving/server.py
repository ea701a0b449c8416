"""What `serve` and `app` share: which model, and a server on loopback."""

import asyncio
import ipaddress
import logging
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h11
import uvicorn
from mlflow.exceptions import MlflowException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from melanoma.errors import ConfigError, ModelError
from melanoma.models.model_files import UnsafeModel
from melanoma.serving.package import write_package
from melanoma.tracking.model_store import checked_model, model_address

__all__ = ["REQUEST_TIMEOUT", "address_of", "listening", "package_folder", "run_server"]

log = logging.getLogger("melanoma")

_AT_ONCE = 32  # requests; more are answered with 503
_CONNECTIONS = 512
REQUEST_TIMEOUT = 30  # seconds for a request to come, and again for its body


@contextmanager
def package_folder(model: str | None) -> Iterator[Path]:
    """The files of a packaged model, checked; a run's model that was not promoted is packaged in a temporary folder.

    Args:
        model: see `load_saved_model`; None is the only champion.

    Raises:
        ModelError: there is no such model, it was changed since, or its run is not in the store.
    """
    address = model_address(model)
    log.info("Loading %s", address)
    try:
        checked = checked_model(address)
    except UnsafeModel as error:
        raise ModelError(f"The model is refused: {error}. Received: {address}") from error
    except (MlflowException, OSError) as error:
        raise ModelError(f"There is no such model ({str(error).splitlines()[0]}). Received: {address}") from error
    if checked.known and checked.metadata.get("packaged"):
        yield checked.folder
        return
    # A package runs the code inside it, so that only one is taken as it is whose files the store knows.
    log.warning("This model was not promoted; it is packaged from its run for this process only")
    with tempfile.TemporaryDirectory(prefix="melanoma-serve-") as temporary:
        write_package(address, Path(temporary) / "package")
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
    except (OSError, OverflowError, TypeError, ValueError) as error:
        bound.close()
        raise ConfigError(
            [f"The address cannot be used ({error}); give another port, or port=0. Received: host={host} port={port}"]
        ) from error
    if not _is_loopback(bound):
        log.warning(
            "The server is unauthenticated and unencrypted: every host that reaches this address can use the model"
        )
    return bound


def _is_loopback(bound: socket.socket) -> bool:
    address = ipaddress.ip_address(bound.getsockname()[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def address_of(bound: socket.socket, host: str) -> str:
    """What to open, or to ask."""
    return f"http://{_in_address(host)}:{bound.getsockname()[1]}"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def run_server(app: ASGIApp, bound: socket.socket, host: str) -> None:
    """Answer requests until the process is stopped.

    Args:
        app: that answers.
        bound: of `listening`.
        host: how this machine was called.
    """
    app = _Bounded(app)
    if _is_loopback(bound):
        # A page from elsewhere could else have its own name resolve to this machine, and read the answers.
        app = TrustedHostMiddleware(app, allowed_hosts=["localhost", "127.0.0.1", "[::1]", _in_address(host)])
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, limit_concurrency=_CONNECTIONS,
        http=_TimedProtocol, ws="none",
    )  # fmt: skip
    uvicorn.Server(settings).run(sockets=[bound])


class _Bounded:
    """Answers 503 where too many requests are under way."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.under_way >= _AT_ONCE:
            message = f"{_AT_ONCE} requests are under way; try again later."
            content = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": message, "error": message}
            await JSONResponse(content, status_code=503, headers={"Retry-After": "1"})(scope, receive, send)
            return
        self.under_way += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way -= 1


class _TimedProtocol(H11Protocol):
    """Closes a connection over which no request comes; uvicorn would wait without limit, and count it."""

    _seen: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Of asyncio."""
        super().connection_made(transport)
        self.loop.call_later(REQUEST_TIMEOUT, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        # `cycle` is the last request that came whole up to its body.
        if self.conn.our_state is h11.IDLE and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self.loop.call_later(REQUEST_TIMEOUT, self._look)
