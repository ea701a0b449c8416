"""Names in the tracking store: tags, artifacts, aliases, and metrics with names that MLflow does not accept."""

import hashlib
import re
from collections.abc import Iterable, Mapping

__all__ = ["Alias", "Artifact", "Tag", "metrics_named", "stored_name"]

_MAX_NAME = 200


class Tag:
    """Tags of runs, logged models, registered models and their versions."""

    TASK = "melanoma.task"
    PROTOCOL = "melanoma.protocol"
    PRIMARY_METRIC = "melanoma.primary_metric"
    POSITIVE = "melanoma.positive"
    FINGERPRINT = "melanoma.data.fingerprint"
    SPLIT_HASH = "melanoma.split.hash"
    KNOWN_LEAKS = "melanoma.known_leaks"
    REMARKS = "melanoma.remarks"
    FINDINGS = "melanoma.findings"
    WORST_SUBGROUP = "melanoma.worst_subgroup"
    HOST = "melanoma.host"
    OWNER = "melanoma.owner"  # the process that writes the run
    HEARTBEAT = "melanoma.heartbeat"  # when it was last known to live
    INTERRUPTED = "melanoma.interrupted"  # by what; the run can be resumed
    RESUMED = "melanoma.resumed"  # when, one time after another
    CONFIG = "melanoma.config"  # hash of the configuration, by which an interrupted run of it is found
    MEMBER = "melanoma.member"  # of a run under a parent run: which fold, protocol or seed it is
    REPLAY_OF = "melanoma.replay_of"  # the run that this one repeats
    REPLAY = "melanoma.replay"  # whether its numbers are the same
    ERROR = "melanoma.error"
    PRUNED = "melanoma.pruned"
    WEIGHTS = "melanoma.weights"
    WEIGHTS_RUN = "melanoma.weights_run"
    WEIGHTS_VERSION = "melanoma.weights_version"
    DESCENDANT = "melanoma.descendant."  # followed by the ID of the run that started from this one
    EVALUATED_MODEL = "melanoma.evaluated_model"
    EVALUATED_RUN = "melanoma.evaluated_run"
    SWEEP = "melanoma.sweep"
    TRIAL = "melanoma.trial"
    SEED_RUNS = "melanoma.seed_runs"  # of the parent run of several seeds: their IDs
    OVERRIDES = "melanoma.overrides"
    BEST = "melanoma.best"
    BEST_RUN = "melanoma.best_run"
    SHA256 = "melanoma.sha256"  # of each artifact that serves as evidence, by its path, as JSON
    SHA256_OF = "melanoma.sha256."  # of older versions: followed by the path of one artifact
    FILES = "melanoma.files"  # of a logged model or registered version: SHA-256 of each of its files
    PROMOTION = "melanoma.promotion"  # of a version: pending, promoted, rolled back, refused
    PROMOTION_OWNER = "melanoma.promotion.owner"
    GATE = "melanoma.gate."  # followed by the name of a gate
    TRIED = "melanoma.tried"  # of a run: when its promotion was first tried, in a dry run too
    COMPARED = "melanoma.compared."  # followed by the time of a comparison on the run's test images
    DECISION = "melanoma.decision."  # of a registered model: followed by the key of a decision
    # Tags of MLflow.
    NOTE = "mlflow.note.content"
    RUN_NAME = "mlflow.runName"
    PARENT = "mlflow.parentRunId"
    COMMIT = "mlflow.source.git.commit"
    SOURCE = "mlflow.source.name"


class Artifact:
    """Paths of a run's artifacts."""

    CONFIG = "config/resolved.yaml"
    OVERRIDES = "config/overrides.yaml"
    SPLIT = "data/split.csv"
    CORRECTIONS = "data/corrections.csv"
    AUDIT = "data/audit.json"
    REMOVED = "data/removed.csv"
    QUARANTINED = "data/quarantined.csv"
    FOLDS = "data/folds.csv"
    METRICS = "evaluation/metrics.json"
    METRICS_TABLE = "evaluation/metrics.csv"
    PREDICTIONS = "evaluation/predictions.csv"
    SUBGROUPS = "evaluation/subgroups.csv"
    OPERATING_POINTS = "evaluation/operating_points.json"
    CONFUSION = "evaluation/confusion_matrix.json"
    FOLD_METRICS = "evaluation/folds.csv"
    SEED_METRICS = "evaluation/seeds.csv"
    REQUIREMENTS = "environment/requirements.txt"
    DIFF = "source/diff.patch"
    MODEL_CARD = "model_card.md"
    MODEL_CARD_PAGE = "model_card.html"
    PROMOTION = "promotion.json"
    REPLAY = "replay.json"
    LEADERBOARD = "sweep/leaderboard.csv"
    ERROR = "error.txt"


class Alias:
    """Aliases of a registered model."""

    CHAMPION = "champion"
    PREVIOUS = "previous"


def stored_name(key: str) -> str:
    """Convert a name to one that MLflow accepts; a changed name ends in a hash, so that names remain distinct."""
    parts = [re.sub(r"[^\w.\- :]", "_", part) for part in key.split("/")]
    name = "/".join("_" if part in ("", ".", "..") else part for part in parts)[:_MAX_NAME]
    return name if name == key else f"{name}_{hashlib.sha256(key.encode()).hexdigest()[:6]}"


def metrics_named(metrics: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Return the available metrics of the given names under their original names, with their intervals."""
    ends = ("", "_ci_low", "_ci_high")
    wanted = [f"{name}{end}" for name in names for end in ends]
    return {name: metrics[stored_name(name)] for name in wanted if stored_name(name) in metrics}
