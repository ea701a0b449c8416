"""Schemas of the configurations of all commands except `melanoma train`, and of the keys that a sweep adds to it."""

from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from melanoma.config.fields import number
from melanoma.config.schema import (
    AuditConfig,
    AuditReportConfig,
    DataConfig,
    EvaluationConfig,
    SplitConfig,
    TrackingConfig,
)

__all__ = [
    "AuditCommandConfig",
    "ChampionGateConfig",
    "EvaluateConfig",
    "ExportConfig",
    "LauncherConfig",
    "PlanConfig",
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
    """Search space, search method and stopping rules of a sweep."""

    name: str | None = None
    resume: str | None = None
    sampler: Literal["grid", "tpe", "random", "cmaes", "nsga2"] = "grid"
    n_trials: int | None = number(None, least=1)
    metric: Any = None
    direction: Any = None
    seed: int = number(0, least=0, most=2**32 - 1)
    pruner: Literal["none", "median", "hyperband"] = "none"
    pruning_metric: str | None = None
    startup_trials: int = number(5, least=0)
    max_failures: int | None = number(None, least=1)
    fail_fast: bool = False
    storage: str | None = None
    space: dict[str, Any] | None = None


@dataclass
class LauncherConfig:
    """Where trials run, and the resources that each trial requests. Keys that a launcher does not use are null."""

    name: Literal["local", "ray", "slurm"] = "local"
    workers: int = number(1, least=1)
    address: str | None = None
    cpus: int | None = number(None, least=1)
    gpus: int | None = number(None, least=0)
    memory_gb: float | None = number(None, least=0)
    minutes: int | None = number(None, least=1)
    partition: str | None = None
    cluster: str | None = None


@dataclass
class SweepCommandConfig:
    """Sections that a sweep adds to the configuration of `melanoma train`."""

    sweep: SweepConfig = field(default_factory=SweepConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)


@dataclass
class ChampionGateConfig:
    """Paired comparison with the version in service on the same test images."""

    rule: Literal["non_inferiority", "superiority", "none"] = "non_inferiority"
    metric: str = "auc"
    margin: float = number(0.02, least=0, most=1)


@dataclass
class SubgroupGateConfig:
    """Minimum of a metric in the worst subgroup that is large enough to be assessed, or no gate if `floor` is null."""

    metric: str = "auc"
    floor: float | None = number(None, least=0, most=1)
    columns: list[str] = field(default_factory=list)


@dataclass
class RegistryConfig:
    """Choice of the run to promote, and the gates that it must pass."""

    metric: str | None = None
    direction: Literal["maximize", "minimize"] | None = None
    floors: dict[str, Any] = field(default_factory=dict)
    ceilings: dict[str, Any] = field(default_factory=dict)
    binary_tasks: dict[str, Any] | None = None
    champion: ChampionGateConfig = field(default_factory=ChampionGateConfig)
    subgroups: SubgroupGateConfig = field(default_factory=SubgroupGateConfig)
    smoke_test: bool = True


@dataclass
class PromoteConfig:
    """Configuration of `melanoma promote`."""

    task: str | None = None
    run: str | None = None
    dry_run: bool = False
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class RollbackConfig:
    """Configuration of `melanoma rollback` and `melanoma registry`."""

    task: str | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class ServeConfig:
    """Configuration of `melanoma serve` and `melanoma app`."""

    saved_model: str | None = None
    host: str = "127.0.0.1"
    port: int = number(5001, least=0, most=65535, note="; 0 selects a free port")
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class ExportConfig:
    """Configuration of `melanoma export`."""

    saved_model: str | None = None
    format: Literal["onnx", "litert"] = "onnx"
    output: str | None = None
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class AuditCommandConfig:
    """Configuration of `melanoma audit`."""

    labels: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    audit: AuditReportConfig = field(default_factory=AuditReportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class EvaluateConfig:
    """Configuration of `melanoma evaluate`."""

    run: str | None = None
    saved_model: str | None = None
    include_seen: bool = False
    recalibrate: int | None = number(None, least=20)
    seed: int = number(0, least=0, most=2**32 - 1)
    data: DataConfig | None = None
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass
class ExpectConfig:
    """What a model is assumed to reach on the test images."""

    auc: float = number(0.85, above=0.5, below=1)
    sensitivity: float = number(0.7, above=0, below=1, kind="a share")
    difference: float = number(0.05, above=0, below=0.5)
    correlation: float = number(0.7, least=0, below=1)


@dataclass
class PlanConfig:
    """Configuration of `melanoma plan`."""

    data: DataConfig = field(default_factory=DataConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    registry: RegistryConfig = field(default_factory=RegistryConfig)
    expect: ExpectConfig = field(default_factory=ExpectConfig)
    power: float = number(0.8, above=0, below=1, kind="a share")
    seed: int = number(0, least=0, most=2**32 - 1)


@dataclass
class PredictConfig:
    """Configuration of `melanoma predict`."""

    saved_model: str = MISSING
    input: str = MISSING
    output: str = "predictions.csv"
    batch_size: int = number(64, least=1)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
