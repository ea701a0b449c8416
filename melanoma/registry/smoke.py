"""The smoke test of a packaged model, in a separate process: `python -m melanoma.registry.smoke`."""

import json
import os
import subprocess
import sys
import time

from melanoma.registry.gates import Gate
from melanoma.terminal import stage

__all__ = ["smoke_gate"]

_TIMEOUT = 600  # seconds
_TOLERANCE = 1e-5


@stage("Testing the packaged model in a new process")
def smoke_gate(address: str, run_id: str, uri: str) -> Gate:
    """Load a package in a new process, predict as the scoring server does, and compare with the run's model.

    Args:
        address: Address of the package.
        run_id: ID of the run that trained the model.
        uri: URI of the MLflow store.
    """
    command = [sys.executable, "-P", "-m", "melanoma.registry.smoke", address, run_id]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"  # as MLflow's server sets it
    environment.pop("MLFLOW_RUN_ID", None)
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return Gate("serving", False, f"no response within {_TIMEOUT} s")
    said = [line for line in (done.stdout or done.stderr).splitlines() if line.strip()]
    return Gate("serving", done.returncode == 0, said[-1][:500] if said else f"ended with code {done.returncode}")


def _main(address: str, run_id: str) -> None:
    started = time.perf_counter()
    import mlflow
    import numpy as np
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model
    from mlflow.pyfunc import scoring_server

    from melanoma.data.decode import decode
    from melanoma.tracking.model_store import checked_model
    from melanoma.tracking.models import load_saved_model

    folder = checked_model(address).folder
    model = mlflow.pyfunc.load_model(str(folder))
    loaded = time.perf_counter() - started
    example = json.loads((folder / "input_example.json").read_text(encoding="utf-8"))["data"][0][0]
    schema = Model.load(folder).get_input_schema()

    def answer_to(image: str) -> dict[str, object]:
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": [[image]]}})
        answer = scoring_server.invocations(body, "application/json", model, schema)
        return dict(json.loads(answer.response)["predictions"][0])

    import base64

    saved = load_saved_model(run_id)
    pixels = decode(base64.b64decode(example), size=saved.image_size, resize=saved.resize)
    expected = np.asarray(saved.keras_model(pixels[None].astype(np.float32), training=False))[0]
    answer = answer_to(example)
    found = [float(str(answer[f"probability/{label}"])) for label in saved.classes]
    difference = float(np.abs(expected - found).max())
    if not difference <= _TOLERANCE:
        sys.exit(f"it predicts other probabilities than the run's model: they differ by {difference:.2g}")
    try:
        answer_to(base64.b64encode(b"this is not an image").decode())
    except MlflowException as error:
        if error.get_http_status_code() != 400:
            raise
    else:
        sys.exit("it gave an answer for a file that is not an image")
    sys.stdout.write(
        f"loaded in {loaded:.1f} s by a new process, predicts as the run's model (within {difference:.1g}), "
        "refuses a file that is not an image\n"
    )


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
