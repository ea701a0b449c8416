"""Dataclass schemas of all config groups. A key that is not in the schema is reported as a typing error.

Nodes with a `_target_` (model, augmentation layers, optimizer, schedule, data source) can have additional keys, which
are arguments of the object to build. The YAML file that defines the node determines their names and types.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import MISSING

from melanoma.config.fields import number

__all__ = [
    "FOLDED",
    "AuditConfig",
    "AuditReportConfig",
    "AugmentationConfig",
    "BalanceConfig",
    "CardConfig",
    "CheckpointConfig",
    "DataConfig",
    "DebugConfig",
    "EvaluationConfig",
    "ModelConfig",
    "OperatingPointConfig",
    "SplitConfig",
    "TrackingConfig",
    "TrainConfig",
    "TrainingConfig",
]


@dataclass
class ArchiveConfig:
    """Limits for a .zip given as `data.path`, as protection against zip bombs."""

    max_files: int = number(1_000_000, least=1)
    max_gigabytes: float = number(100.0, above=0)
    max_ratio: float = number(100.0, above=0)


@dataclass
class MetadataConfig:
    """Metadata table of images that are labelled by their folders: its columns, and the classes of its labels."""

    path: str | None = None
    image_column: str = "image"
    label_column: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    lesion_column: str | None = None
    patient_column: str | None = None
    age_column: str | None = None
    sex_column: str | None = None
    site_column: str | None = None
    skin_tone_column: str | None = None


@dataclass
class DataConfig:
    """Location of the images, and how to decode them."""

    name: str = MISSING
    source: dict[str, Any] = MISSING
    path: str | None = None
    image_size: int = number(180, least=8, most=2048, note=" pixels")
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    classes: Any = None
    leave_out: list[str] = field(default_factory=list)
    positive: str | None = None
    binary_tasks: dict[str, Any] = field(default_factory=dict)
    max_megapixels: float = number(50.0, above=0, most=178, note=", the limit of Pillow")
    max_quarantined: float = number(0.05, least=0, most=1, kind="a share")
    corrections: str | None = None
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    metadata: MetadataConfig = field(default_factory=MetadataConfig)


@dataclass
class OddConfig:
    """Limits beyond which a file is reported as odd. See `melanoma.auditing.inspection` for the measures."""

    shorter_side: int = number(32, least=0)
    aspect: float = number(2.5, least=1)
    size_ratio: float = number(8.0, least=1)
    contrast: float = number(0.015, least=0, most=1)
    sharpness: float = number(2.0, least=0)
    dark: float = number(0.25, least=0, most=1)
    bright: float = number(0.75, least=0, most=1)


@dataclass
class AuditConfig:
    """Problems to look for in a data set, and how to handle them."""

    near_duplicates: bool = True
    similarity: float = number(0.75, least=0.5, most=1)
    duplicates: Literal["first", "keep"] = "first"
    conflicts: Literal["drop", "first", "keep"] = "drop"
    exclude: list[str] = field(default_factory=list)
    odd: OddConfig = field(default_factory=OddConfig)


@dataclass
class AuditReportConfig(AuditConfig):
    """Settings of `melanoma audit`: the folder of its report, and the findings that make the command fail."""

    output: str | None = None
    fail_on: str | None = None


FOLDED = ("kfold", "leave_one_out_by")  # methods with several runs


@dataclass
class SplitConfig:
    """How to split the images into training, validation and test."""

    method: Literal["auto", "official", "holdout", "kfold", "leave_one_out_by"] = "auto"
    validation: float = number(0.2, above=0, below=1, kind="a share")
    test: float = number(0.2, above=0, below=1, kind="a share")
    group: Literal["auto", "lesion", "patient", "none"] = "auto"
    folds: int = number(5, least=2)
    fold: int | None = number(None, least=1)
    column: str | None = None
    file: str | None = None
    seed: int | None = number(None, least=0, most=2**32 - 1)
    published_validation: Literal["drawn", "test"] = "drawn"


@dataclass
class ModelConfig:
    """A network. Additional keys are arguments of `_target_`."""

    _target_: str = MISSING
    name: str = MISSING
    classes: int | None = None
    epochs: int = number(20, least=1)
    weights: str | None = None
    warmup_epochs: int = number(0, least=0)
    finetune_factor: float = number(1.0, above=0)
    dropout: float = number(0.0, least=0, below=1, kind="a share")


@dataclass
class MixConfig:
    """Mixing of pairs of training images. The value is the alpha of the Beta distribution; 0 turns mixing off."""

    mixup: float = number(0.0, least=0)
    cutmix: float = number(0.0, least=0)


@dataclass
class AugmentationConfig:
    """Keras layers applied to training batches only, in order."""

    name: str = MISSING
    layers: list[Any] = field(default_factory=list)
    mix: MixConfig = field(default_factory=MixConfig)


@dataclass
class BalanceConfig:
    """How to handle class imbalance, on training images only."""

    name: Literal["none", "class_weight", "oversample", "focal", "augmentor"] = MISSING
    gamma: float = number(2.0, least=0)
    images_per_class: int = number(500, least=1)
    operations: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerConfig:
    """A Keras optimizer. Additional keys are arguments of `_target_`."""

    _target_: str = MISSING
    learning_rate: float = number(1e-3, above=0, below=math.inf)
    weight_decay: float | None = number(None, least=0)
    clipnorm: float | None = number(None, above=0)


@dataclass
class ScheduleConfig:
    """A learning-rate schedule. Additional keys are arguments of `_target_`."""

    _target_: str = MISSING
    warmup_epochs: float = number(0.0, least=0)


@dataclass
class EarlyStoppingConfig:
    """Stop after `patience` epochs without improvement of `training.monitor`. Null turns early stopping off."""

    patience: int | None = number(None, least=1)
    min_delta: float = number(0.0, least=0)


@dataclass
class CheckpointConfig:
    """Where checkpoints are written, and how often within an epoch; one is written after each epoch in any case."""

    folder: str | None = None
    minutes: float | None = number(None, above=0, below=math.inf)


@dataclass
class TrainingConfig:
    """Settings of the training loop."""

    epochs: int = number(20, least=1)
    batch_size: int = number(32, least=1)
    max_minutes: float | None = number(None, above=0, below=math.inf)
    find_learning_rate: bool = False
    monitor: str | None = None
    restore_best: bool = True
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    label_smoothing: float = number(0.0, least=0, below=1, kind="a share")
    ema: float | None = number(None, above=0, below=1)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    strategy: Literal["single", "mirrored", "multi_worker"] = "single"
    deterministic: bool = True
    jit_compile: bool | None = None


@dataclass
class OperatingPointConfig:
    """How to choose the threshold of each binary task on the validation images."""

    rule: Literal["sensitivity", "youden", "cost", "fixed"] = "sensitivity"
    sensitivity: float = number(0.95, above=0, most=1)
    confidence: float | None = number(None, above=0, below=1)
    cost_ratio: float = number(20.0, above=0)
    threshold: float = number(0.5, least=0, most=1)


@dataclass
class EvaluationConfig:
    """How to evaluate predictions."""

    bootstrap: int = number(1000, least=0)
    confidence: float = number(0.95, above=0, below=1)
    batch_size: int = number(64, least=1)
    test_time_augmentation: Literal["none", "flips", "dihedral"] = "none"
    calibration: Literal["none", "temperature", "isotonic"] = "none"
    operating_point: OperatingPointConfig = field(default_factory=OperatingPointConfig)
    coverage: float = number(0.9, above=0, below=1, kind="a share")
    coverage_per_class: bool = False
    abstain: float = number(0.1, least=0, below=1, kind="a share")
    out_of_distribution: float | None = number(0.01, above=0, below=1, kind="a share")
    prevalence: dict[str, Any] = field(default_factory=dict)
    subgroups: list[str] = field(default_factory=list)
    subgroup_minimum: int = number(30, least=2)


@dataclass
class CardConfig:
    """Content of the model card that cannot be derived from the run."""

    intended_use: str | None = None
    answers: dict[str, str] | None = None


@dataclass
class TrackingConfig:
    """The MLflow store. A null `uri` uses MLFLOW_TRACKING_URI, or SQLite in the project's root if that is not set."""

    uri: str | None = None
    experiment: str = "melanoma"
    run_name: str | None = None
    system_metrics: bool = True
    figures: bool = True
    metrics: Literal["main", "all"] = "main"


@dataclass
class DebugConfig:
    """Shortcuts for debugging, which can be combined. Null values change nothing."""

    name: str | None = None
    train_batches: int | None = number(None, least=1)
    overfit: bool = False
    profile: bool = False


@dataclass
class TrainConfig:
    """Configuration of `melanoma train`."""

    preset: str | None = None
    resume: str | None = None
    seed: int = number(0, least=0, most=2**32 - 1)
    seeds: int | None = number(None, least=2, most=100)
    protocol: Literal["clean", "published", "both"] = "clean"
    primary_metric: str | None = None
    data: DataConfig = field(default_factory=DataConfig)
    audit: AuditConfig = field(default_factory=AuditConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    balance: BalanceConfig = field(default_factory=BalanceConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    card: CardConfig = field(default_factory=CardConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    debug: DebugConfig = field(default_factory=DebugConfig)
