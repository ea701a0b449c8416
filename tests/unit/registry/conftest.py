"""Records of runs, without a store."""

from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LifecycleStage,
    Metric,
    Run,
    RunData,
    RunInfo,
    RunInputs,
    RunTag,
)

from melanoma.tracking.records import RunRecord


def recorded(
    name: str = "run",
    metrics: dict[str, float] | None = None,
    tags: dict[str, str] | None = None,
    inputs: dict[str, str] | None = None,
) -> RunRecord:
    """A run as MLflow gives it back; `inputs` are digests by part."""
    info = RunInfo(f"id of {name}", "0", "user", "FINISHED", 0, 0, LifecycleStage.ACTIVE, run_name=name)
    data = RunData(
        [Metric(key, value, 0, 0) for key, value in (metrics or {}).items()],
        tags=[RunTag(key, value) for key, value in (tags or {}).items()],
    )
    used = [
        DatasetInput(Dataset(part, digest, "local", "/"), [InputTag("mlflow.data.context", part)])
        for part, digest in (inputs or {}).items()
    ]
    return RunRecord(Run(info, data, RunInputs(used)))
