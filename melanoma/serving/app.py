"""A web page to try a packaged model on your own images. Uploaded images are not stored."""

import asyncio
import io
import secrets
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import ClientDisconnect

from melanoma.card.card import model_card_page
from melanoma.config.command_schema import ServeConfig
from melanoma.data.decode import UnreadableImage
from melanoma.evaluation.explain import grad_cam
from melanoma.evaluation.mistakes import overlay_heatmap
from melanoma.pages import image_url, render_page
from melanoma.serving.classifier import LesionClassifier
from melanoma.serving.package import load_package
from melanoma.serving.server import REQUEST_TIMEOUT, address_of, listening, package_folder, run_server
from melanoma.terminal import out
from melanoma.tracking.model_store import PACKAGE

__all__ = ["page", "show_app"]

_MAX_BYTES = 32 * 1024**2
_SENT = "application/octet-stream"


def show_app(settings: ServeConfig, uri: str) -> None:  # noqa: ARG001
    """Serve the page until the process is stopped.

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
        classifier = load_package(folder)
        card = (folder / "data" / PACKAGE / "model_card.md").read_text(encoding="utf-8")
        out().print(f"{classifier.version}: open {address_of(bound, host)} (stop with Ctrl-C)", markup=False)
        run_server(page(classifier, card), bound, host)


def page(classifier: LesionClassifier, card: str) -> FastAPI:
    """Create the application with the page, the predictions and the model card.

    Args:
        classifier: Classifier for the predictions.
        card: The model card in Markdown.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    facts = classifier.facts

    @app.middleware("http")
    async def guarded(request: Request, call_next: Any) -> Any:
        request.state.nonce = secrets.token_urlsafe(16)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = (
            f"default-src 'none'; connect-src 'self'; img-src blob: data:; style-src 'unsafe-inline'; frame-ancestors "
            f"'none'; base-uri 'none'; form-action 'none'; script-src 'nonce-{request.state.nonce}'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    @app.get("/", response_class=HTMLResponse)
    async def index(request: Request) -> str:
        tasks = facts.get("binary_tasks") or facts.get("views") or {}  # older packages use the key `views`
        content = {
            "nonce": request.state.nonce,
            "version": classifier.version,
            "task": facts["task"],
            "classes": classifier.classes,
            "protocol": facts["protocol"],
            "calibration": facts["calibration"],
            "positive": {name: tasks.get(name, [name]) for name in facts["operating_points"]},
            "sets": facts["prediction_sets"],
            "max_mebibytes": _MAX_BYTES // 1024**2,
        }
        return render_page("serving", "app.html.j2", content)

    @app.get("/card", response_class=HTMLResponse)
    async def model_card() -> str:
        return model_card_page(card, f"Model card of {classifier.version}")

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        # Our page sends this type. A page of another site cannot send it without a preflight request.
        if request.headers.get("content-type") != _SENT:
            return JSONResponse({"error": f"The content type must be {_SENT}."}, status_code=415)
        content = bytearray()
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                async for chunk in request.stream():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        limit = f"The file is larger than {_MAX_BYTES // 1024**2} MiB."
                        return JSONResponse({"error": limit}, status_code=413)
        except (ClientDisconnect, TimeoutError):
            return JSONResponse({"error": "The request ended before its file."}, status_code=408)
        try:
            return JSONResponse(await asyncio.to_thread(_answer, classifier, bytes(content)))
        except UnreadableImage as error:
            sentence = f"This file cannot be used ({error}); give a JPEG or a PNG."
            return JSONResponse({"error": sentence}, status_code=400)

    return app


def _answer(classifier: LesionClassifier, image: bytes) -> dict[str, Any]:
    """Return what the page shows for an image."""
    pixels = classifier.pixels(image)
    probabilities, ood_scores = classifier.outputs(pixels[None])
    row = classifier.decided(probabilities, ood_scores).iloc[0]
    heat = grad_cam(classifier.model, pixels[None].astype(np.float32), probabilities.argmax(axis=1))
    points = classifier.facts["operating_points"]
    return {
        "predicted": row["predicted"],
        "score": float(row["score"]),
        "probabilities": {label: float(row[f"probability/{label}"]) for label in classifier.classes},
        "binary_tasks": [
            {
                "name": name,
                "score": float(row[f"score/{name}"]),
                "threshold": float(threshold),
                "referred": bool(row[f"referred/{name}"]),
            }
            for name, threshold in points.items()
        ],
        "prediction_set": row.get("prediction_set"),
        "abstain": bool(row.get("abstain", False)),
        "ood_score": None if ood_scores is None else float(ood_scores[0]),
        "out_of_distribution": bool(row.get("out_of_distribution", False)),
        "explained": classifier.classes[int(probabilities[0].argmax())],
        "heat": None if heat is None else _data_address(overlay_heatmap(pixels, heat[0])),
        "seen": _data_address(pixels),
        "version": row["model_version"],
    }


def _data_address(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return image_url(file.getvalue())
