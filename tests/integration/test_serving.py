"""A packaged model behind MLflow's scoring server, and the page: real processes, real requests, good and bad."""

import base64
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma.data.synthetic import write_synthetic
from melanoma.serving.classifier import MAX_SERVED
from melanoma.serving.package import save_package
from tests.browser import CHROMIUM, needs_chromium
from tests.commands import COMMAND, run_melanoma
from tests.integration.conftest import Trained, free_port

REQUESTS = 4_000


def lesion(kind: str = "JPEG", size: tuple[int, int] = (90, 70)) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb(side: int = 12_000) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


@cache
def on_disk() -> Path:
    file = Path(tempfile.mkdtemp()) / "lesion.png"
    file.write_bytes(lesion("PNG"))
    return file


@contextmanager
def started(command: str, trained: Trained, log: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """`melanoma serve` or `app` with a run's model, and its port."""
    words = [command, f"model={trained.run.info.run_id}", "port=0", f"tracking.uri={trained.uri}"]
    with log.open("w") as errors:
        process = subprocess.Popen([COMMAND, *words], stdout=subprocess.PIPE, stderr=errors, text=True, cwd=log.parent)
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, log.read_text() + line
        yield process, int(found[1])
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 143


@pytest.fixture(scope="module")
def server(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen, int]]:
    with started("serve", trained, tmp_path_factory.mktemp("serve") / "log") as running:
        yield running


def ask(port: int, body: bytes, kind: str | None = "application/json", **options) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {} if kind is None else {"Content-Type": kind}
    try:
        connection.request(
            options.get("method", "POST"),
            options.get("path", "/invocations"),
            body,
            headers | options.get("headers", {}),
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def asked(port: int, *images: object) -> tuple[int, dict]:
    status, answer = ask(port, json.dumps({"inputs": {"image": list(images)}}).encode())
    return status, json.loads(answer)


def text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_file_bytes_and_request_give_the_same_probabilities(trained: Trained, server, tmp_path: Path):
    file = tmp_path / "lesion.jpg"
    file.write_bytes(lesion())
    mlflow.set_tracking_uri(trained.uri)
    package = save_package(trained.run.info.run_id)
    assert save_package(trained.run.info.run_id) == package
    loaded = mlflow.pyfunc.load_model(package.address)
    status, answer = asked(server[1], text(file.read_bytes()))
    done = run_melanoma(
        "predict", f"model={trained.run.info.run_id}", f"input={file}", f"tracking.uri={trained.uri}", cwd=tmp_path
    )
    assert (status, done.returncode) == (200, 0), done.stderr
    names = ["probability/benign", "probability/malignant", "score/malignant"]
    rows = [
        loaded.predict(pd.DataFrame({"image": [str(file)]})).iloc[0],
        loaded.predict(pd.DataFrame({"image": [file.read_bytes()]})).iloc[0],
        pd.Series(answer["predictions"][0]),
        pd.read_csv(tmp_path / "predictions.csv").iloc[0],
    ]
    found = np.array([row[names].to_numpy(dtype=float) for row in rows])
    assert np.abs(found - found[0]).max() < 1e-5
    assert len({row.predicted for row in rows}) == 1
    assert {str(row.model_version) for row in rows} == {f"run {trained.run.info.run_id}"}


FORMS = {
    "inputs": {"inputs": {"image": ["IMAGE", "IMAGE"]}},
    "inputs, a list": {"inputs": ["IMAGE", "IMAGE"]},
    "instances": {"instances": [{"image": "IMAGE"}, {"image": "IMAGE"}]},
    "records": {"dataframe_records": [{"image": "IMAGE"}, {"image": "IMAGE"}]},
    "split": {"dataframe_split": {"columns": ["image"], "data": [["IMAGE"], ["IMAGE"]]}},
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS)
def test_every_form_of_a_request_is_answered(server, body: dict):
    status, answer = ask(server[1], json.dumps(body).replace("IMAGE", text(lesion())).encode())
    assert status == 200
    assert len(json.loads(answer)["predictions"]) == 2


@cache
def bad_bodies() -> dict[str, tuple[bytes, str | None]]:
    """What is sent, and as which type."""

    def images(*given: object) -> bytes:
        return json.dumps({"inputs": {"image": list(given)}}).encode()

    good, kind = text(lesion()), "application/json"
    return {
        "not an image": (images(text(b"hello")), kind),
        "truncated": (images(text(lesion()[:300])), kind),
        "bomb": (images(text(bomb())), kind),
        "path": (images("/etc/passwd"), kind),
        "path of an image": (images(str(on_disk())), kind),
        "many numbers": (images([[[1, 2, 3]] * 1_000] * 400), kind),
        "many small bombs": (images(*[text(bomb(5_000))] * 12), kind),
        "number": (images(5), kind),
        "null": (images(None), kind),
        "object": (images({"a": 1}), kind),
        "one good, one bad": (images(good, "%%%"), kind),
        "array out of range": (images([[[300, 0, 0]]]), kind),
        "array of texts": (images([["a"]]), kind),
        "deep array": (images([[[[[1]]]]]), kind),
        "empty batch": (images(), kind),
        "10,000 images": (images(*["aGk="] * 10_000), kind),
        "one too many": (images(*["aGk="] * (MAX_SERVED + 1)), kind),
        "empty body": (b"", kind),
        "not JSON": (b"{image: 1}", kind),
        "a list": (b"[1]", kind),
        "no column": (b'{"inputs": {"picture": ["aGk="]}}', kind),
        "two columns": (b'{"dataframe_records": [{"image": "aGk=", "b": 1}]}', kind),
        "two forms": (b'{"inputs": ["aGk="], "instances": ["aGk="]}', kind),
        "rows of no length": (b'{"dataframe_split": {"columns": ["image"], "data": [[]]}}', kind),
        "split is no table": (b'{"dataframe_split": 1}', kind),
        "half a character": (b'{"\\ud800": 1}', kind),
        "lines": (b'{"a\\nsecond line:\\n b": 1}', kind),
        "a list among images": (images([good, good], good), kind),
        "no UTF-8": (b"\xff\xfe\x00", kind),
        "nested": (b"[" * 100_000, kind),
        "long number": (b'{"inputs": [' + b"9" * 10_000 + b"]}", kind),
        "CSV": (b"image\naGk=", "text/csv"),
        "parquet": (b"PAR1", "application/vnd.apache.parquet"),
        "no type": (images(good), None),
        "the image itself": (lesion(), "image/jpeg"),
        "other charset": (images(good), "application/json; charset=utf-16"),
    }


@pytest.mark.parametrize("name", bad_bodies())
def test_a_bad_request_is_answered_with_one_sentence(server, name: str):
    body, kind = bad_bodies()[name]
    status, answer = ask(server[1], body, kind)
    assert 400 <= status < 500, answer
    message = json.loads(answer)["message"]
    assert "\n" not in message
    assert len(message) < 600
    assert "Traceback" not in message


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/", "/invocations/"])
def test_nothing_else_is_open(server, path: str):
    assert ask(server[1], b"", path=path, method="GET")[0] == 404


def test_a_port_is_taken_by_one(trained: Trained, server, tmp_path: Path):
    words = ["serve", f"model={trained.run.info.run_id}", f"port={server[1]}", f"tracking.uri={trained.uri}"]
    done = run_melanoma(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "give another port" in done.stderr


def test_a_huge_request_is_refused(server):
    status, answer = ask(server[1], b"x" * (65 * 1024**2))
    assert status == 413
    assert "64 MiB" in json.loads(answer)["message"]


def test_only_this_machine_is_answered(server):
    status, _ = ask(server[1], json.dumps(FORMS["inputs"]).encode(), headers={"Host": "example.com"})
    assert status == 400
    listening = Path(f"/proc/{server[0].pid}/net/tcp").read_text()
    own = [line.split()[1] for line in listening.splitlines()[1:] if line.split()[1].endswith(f":{server[1]:04X}")]
    assert {address.split(":")[0] for address in own if address} == {"0100007F"}


def odd(rng: np.random.Generator) -> bytes:
    """A request that is JSON: one of the forms, in it values and keys of all kinds."""
    keys = [
        "image",
        "inputs",
        "instances",
        "dataframe_records",
        "dataframe_split",
        "columns",
        "data",
        "\ud800",
        "a\nb",
        "",
    ]
    leaves = [None, True, -1, 1e308, 10**30, float("nan"), "", "\udfff", "aGk=", text(lesion()), "a\r\nb", "\0"]

    def value(depth: int) -> object:
        kind = rng.integers(0, 5) if depth else 4
        if kind < 2:
            return {keys[rng.integers(len(keys))]: value(depth - 1) for _ in range(rng.integers(0, 3))}
        if kind < 4:
            return [value(depth - 1) for _ in range(rng.integers(0, 4))]
        return leaves[rng.integers(len(leaves))]

    form = keys[rng.integers(1, 5)]
    inside = [value(3), {"image": value(2)}, [{"image": value(2)}], {"columns": ["image"], "data": [[value(2)]]}]
    return json.dumps({form: inside[rng.integers(len(inside))]}).encode()


def test_thousands_of_broken_requests_leave_the_server_alive(server):
    process, port = server
    rng = np.random.default_rng(0)
    good = json.dumps({"inputs": {"image": [text(lesion())]}}).encode()
    _, expected = ask(port, good)
    seeds = [body for name, (body, _) in bad_bodies().items() if "10,000" not in name and "bomb" not in name]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    counts: dict[int, int] = {}
    for i in range(REQUESTS):
        body = bytearray(good if i % 3 else seeds[rng.integers(len(seeds))])
        for _ in range(rng.integers(1, 8)):
            at = int(rng.integers(0, max(len(body), 1)))
            cut = int(rng.integers(0, 40))
            body[at : at + cut] = rng.integers(0, 256, int(rng.integers(0, 40))).astype(np.uint8).tobytes()
        connection.request("POST", "/invocations", bytes(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        counts[answer.status] = counts.get(answer.status, 0) + 1
        assert answer.status == 200 or 400 <= answer.status < 500, (answer.status, content, bytes(body)[:500])
        if answer.status != 200:
            assert "\n" not in json.loads(content)["message"]
        if i % 400 == 0:
            assert ask(port, good) == (200, expected)
    for _ in range(500):  # JSON, but odd
        connection.request("POST", "/invocations", odd(rng), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        assert 200 <= answer.status < 500, content
        assert answer.status == 200 or "\n" not in json.loads(content)["message"]
    connection.close()
    assert process.poll() is None
    assert ask(port, good) == (200, expected)
    assert sum(count for status, count in counts.items() if status != 200) > REQUESTS / 2


@needs_chromium
def test_the_page_in_a_browser(trained: Trained, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    (tmp_path / "lesion.jpg").write_bytes(lesion())
    (tmp_path / "renamed.jpg").write_bytes(b"hello")
    (tmp_path / "truncated.jpg").write_bytes(lesion()[:300])
    (tmp_path / "large.jpg").write_bytes(lesion() + bytes(33 * 1024**2))
    (tmp_path / "drawn").mkdir()
    write_synthetic(tmp_path / "drawn", classes=["benign", "malignant"], images=4, size=48, seed=0)
    drawn = next((tmp_path / "drawn" / "benign").glob("*.jpg"))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with started("app", trained, tmp_path / "log") as (_, port), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        broken = []
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("Research software, not a medical device").wait_for()
        page.set_input_files("#file", tmp_path / "lesion.jpg")
        page.locator("#predicted").wait_for()
        assert re.fullmatch(r"(benign|malignant) \(\d\.\d{3}\)", page.inner_text("#predicted"))
        assert page.locator("#probabilities .bar").count() == 2
        assert "malignant: " in page.inner_text("#binary-tasks")
        assert page.locator("#set .tag").count() >= 1
        assert page.locator("#heat").get_attribute("src").startswith("data:image/png")
        # The picture is noise.
        assert re.search(r"unlike the training images \(score \d+\.\d, flagged", page.inner_text("#unlike"))
        page.set_input_files("#file", drawn)
        page.locator("#unlike").wait_for(state="hidden")
        page.locator("#predicted").wait_for()
        for name, words in {
            "renamed.jpg": "This file cannot be used (not an image)",
            "truncated.jpg": "This file cannot be used (damaged",
            "large.jpg": "larger than 32 MiB",
        }.items():
            page.set_input_files("#file", tmp_path / name)
            page.locator("#error", has_text=words).wait_for()
            assert not page.locator("#result").is_visible()
        page.set_input_files("#file", tmp_path / "lesion.jpg")
        page.locator("#predicted").wait_for()
        page.goto(f"http://127.0.0.1:{port}/card")
        page.get_by_role("heading", name="Model card").first.wait_for()
        browser.close()
        assert ask(port, b"", path="/", method="GET", headers={"Host": "example.com"})[0] == 400
        assert ask(port, lesion(), "text/plain", path="/predict", headers={"Origin": "http://example.com"})[0] == 415
        left = socket.create_connection(("127.0.0.1", port))
        left.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n")
        left.sendall(b"Content-Length: 1000\r\n\r\nabc")
        left.close()
        assert ask(port, lesion(), "application/octet-stream", path="/predict")[0] == 200
    assert broken == []
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} - before == {tmp_path / "log"}


@pytest.mark.slow
def test_mlflows_own_command_serves_it_too(trained: Trained, tmp_path: Path):
    mlflow.set_tracking_uri(trained.uri)
    package, port = save_package(trained.run.info.run_id), free_port()
    options = ["--env-manager", "local", "--port", str(port), "--host", "127.0.0.1"]
    command = [COMMAND.parent / "mlflow", "models", "serve", "-m", package.address, *options]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": trained.uri, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        for _ in range(120):
            with suppress(OSError):
                if ask(port, b"", path="/ping", method="GET")[0] == 200:
                    break
            time.sleep(1)
        status, answer = asked(port, text(lesion()))
        assert status == 200, answer
        loaded = mlflow.pyfunc.load_model(package.address).predict(pd.DataFrame({"image": [lesion()]}))
        expected = loaded["probability/malignant"][0]
        assert answer["predictions"][0]["probability/malignant"] == pytest.approx(expected, abs=1e-5)
        for bad in (str(on_disk()), text(b"hello"), text(bomb())):
            assert asked(port, bad)[0] == 400
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
