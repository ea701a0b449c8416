"""Shared parts of `serve` and `app`: the model, the socket and the server."""

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

_AT_ONCE = 32  # concurrent requests; further ones receive status 503
_CONNECTIONS = 512
REQUEST_TIMEOUT = 30  # seconds to wait for a request, and again for its body


@contextmanager
def package_folder(model: str | None) -> Iterator[Path]:
    """Yield the folder of a packaged model, with its files checked.

    A model that was not promoted is packaged in a temporary folder.

    Args:
        model: Model to load (see `load_saved_model`); None for the only champion.

    Raises:
        ModelError: If the model does not exist, if it was changed after logging, or if its run is not in the store.
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
    # A package runs the code inside it, so it is served unchanged only if its files match the hashes in the store.
    log.warning("This model was not promoted; a temporary package is created for this process only")
    with tempfile.TemporaryDirectory(prefix="melanoma-serve-") as temporary:
        write_package(address, Path(temporary) / "package")
        yield Path(temporary) / "package"


def listening(host: str, port: int) -> socket.socket:
    """Return a listening socket; called first, so that an unusable address fails before the model is loaded.

    Raises:
        ConfigError: If the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm, which adds 40 ms per response, only if the protocol is given explicitly.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
        bound.listen(128)  # otherwise another process could bind it too
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
    """Return the URL of the server."""
    return f"http://{_in_address(host)}:{bound.getsockname()[1]}"


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def run_server(app: ASGIApp, bound: socket.socket, host: str) -> None:
    """Serve an application until the process is stopped.

    Args:
        app: Application to serve.
        bound: Socket from `listening`.
        host: Host name or address as configured by the user.
    """
    app = _Bounded(app)
    if _is_loopback(bound):
        # Prevents DNS rebinding: another site could resolve its name to this machine and read the responses.
        app = TrustedHostMiddleware(app, allowed_hosts=["localhost", "127.0.0.1", "[::1]", _in_address(host)])
    settings = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, limit_concurrency=_CONNECTIONS,
        http=_TimedProtocol, ws="none",
    )  # fmt: skip
    uvicorn.Server(settings).run(sockets=[bound])


class _Bounded:
    """ASGI middleware that responds with status 503 if there are too many concurrent requests."""

    def __init__(self, app: ASGIApp):
        self.app = app
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self.under_way >= _AT_ONCE:
            message = f"{_AT_ONCE} requests are in progress; try again later."
            content = {"error_code": "TEMPORARILY_UNAVAILABLE", "message": message, "error": message}
            await JSONResponse(content, status_code=503, headers={"Retry-After": "1"})(scope, receive, send)
            return
        self.under_way += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.under_way -= 1


class _TimedProtocol(H11Protocol):
    """HTTP protocol that closes idle connections, which uvicorn would keep open and count as concurrent requests."""

    _seen: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer (called by asyncio)."""
        super().connection_made(transport)
        self.loop.call_later(REQUEST_TIMEOUT, self._look)

    def _look(self) -> None:
        if self.transport.is_closing():
            return
        # `cycle` is the last request whose headers arrived completely.
        if self.conn.our_state is h11.IDLE and self.cycle is self._seen:
            self.transport.close()
            return
        self._seen = self.cycle
        self.loop.call_later(REQUEST_TIMEOUT, self._look)
