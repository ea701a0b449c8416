"""The server around a model: connections, hosts, and requests that do not come."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from starlette.responses import JSONResponse

from melanoma.errors import ConfigError
from melanoma.serving import serve, server
from melanoma.serving.server import listening, run_server


async def inner(scope, receive, send) -> None:
    """In the place of MLflow's server."""
    body = b""
    while (message := await receive()).get("more_body", False):
        body += message["body"]
    await JSONResponse({"predictions": [1]})(scope, receive, send)


@contextmanager
def running(monkeypatch: pytest.MonkeyPatch, host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a guarded server that waits for half a second."""
    for module in (server, serve):
        monkeypatch.setattr(module, "REQUEST_TIMEOUT", 0.5)
    monkeypatch.setattr(server, "_AT_ONCE", 4)
    stopping = []
    monkeypatch.setattr(server.uvicorn.Server, "startup", _remembered(stopping, server.uvicorn.Server.startup))
    bound = listening(host, 0)
    thread = threading.Thread(target=run_server, args=(serve.Guard(inner), bound, host), daemon=True)
    thread.start()
    # Uvicorn sets up logging first, which closes absl's handler and what that writes to: of pytest, were it to go on.
    while not stopping:
        assert thread.is_alive()
        time.sleep(0.01)
    yield bound.getsockname()[1]
    stopping[0].should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    with running(monkeypatch) as bound:
        yield bound


def _remembered(found: list, startup):
    async def remembering(self, *arguments, **named) -> None:
        found.append(self)
        await startup(self, *arguments, **named)

    return remembering


BODY = json.dumps({"inputs": {"image": ["aGk="]}}).encode()
HEAD = b"POST /invocations HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def asked(port: int, connection: http.client.HTTPConnection | None = None) -> int:
    connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/invocations", BODY, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def opened(port: int, sent: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    connection.sendall(sent)
    return connection


def test_connections_over_which_nothing_comes_are_closed_and_keep_nobody_out(port: int):
    silent = [opened(port) for _ in range(40)] + [opened(port, HEAD) for _ in range(10)]  # a head without its end
    assert asked(port) == 200
    started = time.monotonic()
    assert {connection.recv(100) for connection in silent} == {b""}
    assert time.monotonic() - started < 15


def test_one_that_goes_on_asking_is_not_closed(port: int):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(15):
        assert asked(port, connection) == 200
        time.sleep(0.1)


def test_requests_under_way_are_bounded_and_end(port: int):
    waiting = [opened(port, HEAD + b"Content-Length: 100\r\n\r\n{") for _ in range(4)]
    time.sleep(0.2)
    assert asked(port) == 503
    assert {connection.recv(1000).split(b"\r\n")[0] for connection in waiting} == {b"HTTP/1.1 408 Request Timeout"}
    assert asked(port) == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "LOCALHOST", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_told_from_what_was_bound(host: str, caplog: pytest.LogCaptureFixture):
    with listening(host, 0) as bound:
        assert server._is_loopback(bound)
    assert "unauthenticated" not in caplog.text


@pytest.mark.parametrize("host", ["127.1", "LOCALHOST", "::1"])
def test_it_answers_to_the_name_it_was_given_and_to_no_other(host: str, monkeypatch):
    with running(monkeypatch, host) as port:
        assert asked(port, http.client.HTTPConnection(host, port, timeout=20)) == 200
        connection = http.client.HTTPConnection(host, port, timeout=20)
        connection.request("POST", "/invocations", BODY, {"Content-Type": "application/json", "Host": "example.com"})
        assert connection.getresponse().status == 400


def test_others_are_warned_of(caplog: pytest.LogCaptureFixture):
    with listening("0.0.0.0", 0) as bound:
        assert not server._is_loopback(bound)
    assert "unauthenticated" in caplog.text


@pytest.mark.parametrize("host", ["no such host", "a\0b", "ü" * 80, "1.2.3.4"])
def test_a_host_that_is_none_of_this_machine_is_refused(host: str):
    with pytest.raises(ConfigError, match="The address cannot be used"):
        listening(host, 0)
