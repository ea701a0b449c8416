"""`melanoma serve`: MLflow's scoring server behind a guard that refuses bad requests with a one-sentence error."""

import asyncio
import json
import logging
from typing import Any

import mlflow
from mlflow.pyfunc import scoring_server
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from melanoma.config.command_schema import ServeConfig
from melanoma.serving.classifier import MAX_SERVED
from melanoma.serving.server import REQUEST_TIMEOUT, address_of, listening, package_folder, run_server
from melanoma.terminal import out

__all__ = ["Guard", "serve"]

log = logging.getLogger("melanoma")

_OPEN = ("/ping", "/health", "/version")
_MAX_BYTES = 64 * 1024**2
_MAX_SENTENCE = 500
_MAX_COMMAS = 1_000_000  # pixels sent as numbers take fifty times their size
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_EXAMPLE = '{"inputs": {"image": ["<base64 of a JPEG or PNG>"]}}'


def serve(settings: ServeConfig, uri: str) -> None:  # noqa: ARG001
    """Serve predictions at `/invocations` until the process is stopped.

    Args:
        settings: The model (see `load_saved_model`; None for the only champion) and the address to listen on. Port 0
            selects a free port.
        uri: URI of the MLflow store.

    Raises:
        ModelError: If the model does not exist or was changed after logging.
        ConfigError: If the address cannot be used.
    """
    host = settings.host
    with listening(host, settings.port) as bound, package_folder(settings.saved_model) as folder:
        loaded = mlflow.pyfunc.load_model(str(folder))
        address = address_of(bound, host)
        version = loaded.get_raw_model().version
        out().print(f"Serving   {version} at {address}/invocations (stop with Ctrl-C)", markup=False)
        body = """(printf '{"inputs": {"image": ["'; base64 -w0 IMAGE.jpg; printf '"]}}')"""
        request = f'Request   {body} | curl {address}/invocations -H "Content-Type: application/json" -d @-'
        out().print(request, markup=False, soft_wrap=True)
        run_server(Guard(scoring_server.init(loaded)), bound, host)


class BadRequest(Exception):
    """A refused request, with an HTTP status and a one-sentence reason."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


class Guard:
    """ASGI middleware that forwards only well-formed requests of bounded size, and reduces errors to one sentence.

    MLflow's server accepts bodies of any size, reports some malformed requests as server errors, and includes
    tracebacks and the received data in its responses.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request (ASGI)."""
        if scope["type"] != "http" or scope["path"] in _OPEN:
            await self.app(scope, receive, send)
            return
        if scope["path"] != "/invocations" or scope["method"] != "POST":
            status = 405 if scope["path"] == "/invocations" else 404
            await _refusal(status, "Send predictions as POST to /invocations.")(scope, receive, send)
            return
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                body = await _body(scope, receive)
            checked = await asyncio.to_thread(_checked, body)
        except TimeoutError:
            await _refusal(408, f"The request was not complete within {REQUEST_TIMEOUT} s.")(scope, receive, send)
            return
        except BadRequest as error:
            await _refusal(error.status, str(error))(scope, receive, send)
            return
        await self._answer(scope, checked, send)

    async def _answer(self, scope: Scope, checked: bytes, send: Send) -> None:
        status, parts = 200, []
        inside = {**scope, "headers": [(b"content-type", b"application/json"), *_other_headers(scope)]}
        inbox: list[Message] = [{"type": "http.request", "body": checked, "more_body": False}]

        async def receive() -> Message:
            return inbox.pop() if inbox else {"type": "http.disconnect"}

        async def collect(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            parts.append(message.get("body", b""))

        try:
            await self.app(inside, receive, collect)
        except Exception:
            log.exception("A request failed")
            status = 500
        if status == 200:
            answer: Any = JSONResponse(json.loads(b"".join(parts)))
        else:
            answer = _refusal(status, _sentence(status, b"".join(parts)))
        await answer(scope, receive, send)


def _refusal(status: int, sentence: str) -> JSONResponse:
    code = "INTERNAL_ERROR" if status >= 500 else "BAD_REQUEST"
    # The sentence may quote the request, with line breaks and lone surrogates that cannot be encoded.
    line = " ".join(sentence.encode(errors="replace").decode().split())[:_MAX_SENTENCE]
    return JSONResponse({"error_code": code, "message": line}, status_code=status)


async def _body(scope: Scope, receive: Receive) -> bytes:
    headers = {key.lower(): value.decode("latin-1") for key, value in scope["headers"]}
    kind = headers.get(b"content-type", "").lower()
    if [part.strip() for part in kind.split(";")] not in (["application/json"], ["application/json", "charset=utf-8"]):
        raise BadRequest(415, f"The content type must be application/json. Received: {kind[:100] or 'none'}")
    length = headers.get(b"content-length", "0")
    too_large = f"A request may have {_MAX_BYTES // 1024**2} MiB at most; send fewer images at once."
    if not length.isdigit() or int(length) > _MAX_BYTES:
        raise BadRequest(413, too_large)
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest(400, "The request ended before its body.")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > _MAX_BYTES:
            raise BadRequest(413, too_large)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _checked(body: bytes) -> bytes:
    """Check a request, and return it in the one form that MLflow receives."""
    if body.count(b",") > _MAX_COMMAS:
        raise BadRequest(413, "There are too many numbers; send images as base64 of a JPEG or PNG, not as pixels.")
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise BadRequest(400, f"The body is not JSON ({reason[:200]}); expected {_EXAMPLE}.") from error
    images = _images(content)
    if images is None:
        found = ", ".join(map(str, content))[:200] if isinstance(content, dict) else type(content).__name__
        raise BadRequest(400, f"The body has no images in a known form; expected {_EXAMPLE}. Received: {found}")
    if not images:
        raise BadRequest(400, "There are no images; give one or more. Received: 0 images")
    if any(isinstance(image, list) and any(isinstance(one, str) for one in image) for image in images):
        raise BadRequest(400, f"An image is one text, or rows of pixels, not a list of texts; expected {_EXAMPLE}.")
    if len(images) > MAX_SERVED:
        raise BadRequest(
            413, f"At most {MAX_SERVED} images are taken at once; send more requests. Received: {len(images)} images"
        )
    return json.dumps({"dataframe_split": {"columns": ["image"], "data": [[image] for image in images]}}).encode()


def _images(content: Any) -> list[Any] | None:
    """Return the images of a request in any of MLflow's formats; None if it has another format."""
    if not isinstance(content, dict) or len([form for form in _FORMS if form in content]) != 1:
        return None
    if isinstance(split := content.get("dataframe_split"), dict):
        columns, rows = split.get("columns"), split.get("data")
        if columns == ["image"] and isinstance(rows, list) and all(isinstance(r, list) and len(r) == 1 for r in rows):
            return [row[0] for row in rows]
        return None
    given = content.get("dataframe_records", content.get("instances", content.get("inputs")))
    if isinstance(given, dict) and set(given) == {"image"}:
        given = given["image"]
        return given if isinstance(given, list) else [given]
    if not isinstance(given, list):
        return None
    if all(isinstance(one, dict) and set(one) == {"image"} for one in given):
        return [one["image"] for one in given]
    return given if "dataframe_records" not in content and not any(isinstance(one, dict) for one in given) else None


def _other_headers(scope: Scope) -> list[tuple[bytes, bytes]]:
    return [(key, value) for key, value in scope["headers"] if key.lower() not in (b"content-type", b"content-length")]


def _sentence(status: int, answer: bytes) -> str:
    """Return the error message of MLflow, without its preamble and the data."""
    if status >= 500:
        return "The request took too long." if status == 504 else "The model failed; the server's log says more."
    try:
        message = str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        message = answer.decode(errors="replace")
    return message.rsplit("Error: ", 1)[-1].partition("\n")[0]
