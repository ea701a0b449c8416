"""The shape of the configs of all commands but `melanoma train`, and of what a sweep adds to it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from melanoma.config.schema import AuditReportConfig, DataConfig, EvaluationConfig, TrackingConfig

__all__ = [
    "AuditCommandConfig",
    "ChampionGateConfig",
    "EvaluateConfig",
    "ExportConfig",
    "LauncherConfig",
    "PredictConfig",
    "PromoteConfig",
    "RegistryConfig",
    "RollbackConfig",
    "ServeConfig",
    "SubgroupGateConfig",
    "SweepCommandConfig",
    "SweepConfig",
]


@dataclass
class SweepConfig:
    """What is varied, how it is searched, and when it ends."""

    name: str | None = None
    resume: str | None = None
    sampler: Literal["grid", "tpe", "random", "cmaes", "nsga2"] = "grid"
    n_trials: int | None = None
    metric: Any = "validation/balanced_accuracy"
    direction: Any = "maximize"
    seed: int = 0
    pruner: Literal["none", "median", "hyperband"] = "none"
    pruning_metric: Literal["val/loss", "val/accuracy", "val/balanced_accuracy", "val/auc"] = "val/balanced_accuracy"
    startup_trials: int = 5
    max_failures: int | None = None
    fail_fast: bool = False
    storage: str | None = None
    space: dict[str, Any] | None = None


@dataclass
class LauncherConfig:
    """Where trials run, and what each asks for; keys that a launcher does not use are null."""

    name: Literal["local", "ray", "slurm"] = "local"
    workers: int = 1
    address: str | None = None
    cpus: int | None = None
    gpus: int | None = None
    memory_gb: float | None = None
    minutes: int | None = None
    partition: str | None = None
    cluster: str | None = None


@dataclass
class SweepCommandConfig:
    """What a sweep adds to the configuration of `melanoma train`."""

    sweep: SweepConfig = field(default_factory=SweepConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)


@dataclass
class ChampionGateConfig:
    """Against the version in service, by a paired comparison on the same test images."""

    rule: Literal["non_inferiority", "superiority", "none"] = "non_inferiority"
    metric: str = "auc"
    margin: float = 0.02


@dataclass
class SubgroupGateConfig:
    """The worst subgroup that is large enough to be assessed; null asks nothing."""

    metric: str = "auc"
    floor: float | None = None
    columns: list[str] = field(default_factory=list)


@dataclass
class RegistryConfig:
    """Which run is promoted, and what it must show first."""

    metric: str = "validation/auc"
    direction: Literal["maximize", "minimize"] = "maximize"
    floors: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, Any] = field(default_factory=dict)
    views: dict[str, Any] | None = None
    champion: ChampionGateConfig = field(default_factory=ChampionGateConfig)
    subgroups: SubgroupGateConfig = field(default_factory=SubgroupGateConfig)
    smoke_test: bool = True


@dataclass
class PromoteConfig:
    """All of `melanoma promote`."""

    task: str | None = None
    run: str | None = None
    dry_run: bool = False
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class RollbackConfig:
    """All of `melanoma rollback`, and of `melanoma registry`."""

    task: str | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class ServeConfig:
    """All of `melanoma serve`, and of `melanoma app`."""

    saved_model: str | None = None
    host: str = "127.0.0.1"
    port: int = 5001
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class ExportConfig:
    """All of `melanoma export`."""

    saved_model: str | None = None
    format: Literal["onnx", "litert"] = "onnx"
    output: str | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class AuditCommandConfig:
    """All of `melanoma audit`."""

    data: DataConfig = field(default_factory=DataConfig)
    audit: AuditReportConfig = field(default_factory=AuditReportConfig)


@dataclass
class EvaluateConfig:
    """All of `melanoma evaluate`."""

    run: str | None = None
    saved_model: str | None = None
    include_seen: bool = False
    seed: int = 0
    data: DataConfig | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class PredictConfig:
    """All of `melanoma predict`."""

    saved_model: str = MISSING
    input: str = MISSING
    output: str = "predictions.csv"
    batch_size: int = 64
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
