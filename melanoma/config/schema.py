"""The shape of every config group, as dataclasses: a key that is not here is a typing error of the user's.

Nodes with a `_target_` (model, augmentation layers, optimizer, schedule, data source) may carry further
keys: the arguments of what they build, whose names and types the YAML file that defines them fixes.
"""

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
    """Caps on a .zip given as `data.path`, against archives made to fill the disk."""

    max_files: int = number(1_000_000, least=1)
    max_gigabytes: float = number(100.0, above=0)


@dataclass
class MetadataConfig:
    """A table about images that are labelled by their folders: its columns, and what its labels are called there."""

    path: str | None = None
    image_column: str = "image"
    label_column: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)
    lesion_column: str | None = None
    patient_column: str | None = None
    age_column: str | None = None
    sex_column: str | None = None
    site_column: str | None = None


@dataclass
class DataConfig:
    """Where the images are and how they are decoded."""

    name: str = MISSING
    source: dict[str, Any] = MISSING
    path: str | None = None
    image_size: int = number(180, least=8, most=2048, note=" pixels")
    resize: Literal["stretch", "crop", "pad"] = "stretch"
    classes: Any = None
    leave_out: list[str] = field(default_factory=list)
    binary_tasks: dict[str, Any] = field(default_factory=dict)
    max_megapixels: float = number(50.0, above=0, most=178, note=", where Pillow refuses")
    max_quarantined: float = number(0.05, least=0, most=1, kind="a share")
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    metadata: MetadataConfig = field(default_factory=MetadataConfig)


@dataclass
class OddConfig:
    """Beyond these values a file is called odd; see `melanoma.audit.inspection` for the measures."""

    shorter_side: int = number(32, least=0)
    aspect: float = number(2.5, least=1)
    size_ratio: float = number(8.0, least=1)
    contrast: float = number(0.015, least=0, most=1)
    sharpness: float = number(2.0, least=0)
    dark: float = number(0.25, least=0, most=1)
    bright: float = number(0.75, least=0, most=1)


@dataclass
class AuditConfig:
    """What is looked for in a data set, and what is done about it."""

    near_duplicates: bool = True
    similarity: float = number(0.75, least=0.5, most=1)
    duplicates: Literal["first", "keep"] = "first"
    conflicts: Literal["drop", "first", "keep"] = "drop"
    exclude: list[str] = field(default_factory=list)
    odd: OddConfig = field(default_factory=OddConfig)


@dataclass
class AuditReportConfig(AuditConfig):
    """An audit of its own: where its report goes, and which findings make the command fail."""

    output: str | None = None
    fail_on: str | None = None


FOLDED = ("kfold", "leave_one_out_by")  # methods of several runs


@dataclass
class SplitConfig:
    """How the images are divided into training, validation and test."""

    method: Literal["auto", "official", "holdout", "kfold", "leave_one_out_by"] = "auto"
    validation: float = number(0.2, above=0, below=1, kind="a share")
    test: float = number(0.2, above=0, below=1, kind="a share")
    group: Literal["auto", "lesion", "patient", "none"] = "auto"
    folds: int = number(5, least=2)
    fold: int | None = number(None, least=1)
    column: str | None = None
    file: str | None = None
    published_validation: Literal["drawn", "test"] = "drawn"


@dataclass
class ModelConfig:
    """A network; further keys are arguments of `_target_`."""

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
    """Mixing of pairs of training images; the value is the Beta distribution's alpha, 0 is off."""

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
    """What is done about unequal class sizes, on training rows only."""

    name: Literal["none", "class_weight", "oversample", "focal", "augmentor"] = MISSING
    gamma: float = number(2.0, least=0)
    images_per_class: int = number(500, least=1)
    operations: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerConfig:
    """A Keras optimizer; further keys are arguments of `_target_`."""

    _target_: str = MISSING
    learning_rate: float = number(1e-3, above=0, note=", and finite")
    weight_decay: float | None = number(None, least=0)
    clipnorm: float | None = number(None, above=0)


@dataclass
class ScheduleConfig:
    """A learning-rate schedule; further keys are arguments of `_target_`."""

    _target_: str = MISSING
    warmup_epochs: float = number(0.0, least=0)


@dataclass
class EarlyStoppingConfig:
    """Stop after `patience` epochs without a better `training.monitor`; null never stops early."""

    patience: int | None = number(None, least=1)
    min_delta: float = number(0.0, least=0)


@dataclass
class TrainingConfig:
    """The fit."""

    epochs: int = number(20, least=1)
    batch_size: int = number(32, least=1)
    monitor: Literal["val/loss", "val/accuracy", "val/balanced_accuracy", "val/auc"] = "val/loss"
    restore_best: bool = True
    early_stopping: EarlyStoppingConfig = field(default_factory=EarlyStoppingConfig)
    label_smoothing: float = number(0.0, least=0, below=1, kind="a share")
    ema: float | None = number(None, above=0, below=1)
    precision: Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"] = "auto"
    strategy: Literal["single", "mirrored", "multi_worker"] = "single"
    deterministic: bool = True
    jit_compile: bool | None = None


@dataclass
class OperatingPointConfig:
    """How the threshold of each binary task is chosen on validation."""

    rule: Literal["sensitivity", "youden", "cost", "fixed"] = "sensitivity"
    sensitivity: float = number(0.95, above=0, most=1)
    cost_ratio: float = number(20.0, above=0)
    threshold: float = number(0.5, least=0, most=1)


@dataclass
class EvaluationConfig:
    """How predictions are measured."""

    bootstrap: int = number(1000, least=0)
    confidence: float = number(0.95, above=0, below=1)
    batch_size: int = number(64, least=1)
    test_time_augmentation: Literal["none", "flips", "dihedral"] = "none"
    calibration: Literal["none", "temperature", "isotonic"] = "none"
    operating_point: OperatingPointConfig = field(default_factory=OperatingPointConfig)
    coverage: float = number(0.9, above=0, below=1, kind="a share")
    abstain: float = number(0.1, least=0, below=1, kind="a share")
    subgroups: list[str] = field(default_factory=list)
    subgroup_minimum: int = number(30, least=2)


@dataclass
class CardConfig:
    """What the model card cannot know by itself."""

    intended_use: str | None = None
    answers: dict[str, str] | None = None


@dataclass
class TrackingConfig:
    """The MLflow store; null takes MLFLOW_TRACKING_URI, else SQLite in the project's root."""

    uri: str | None = None
    experiment: str = "melanoma"
    run_name: str | None = None
    system_metrics: bool = True


@dataclass
class DebugConfig:
    """Composable shortcuts for debugging; null values change nothing."""

    name: str | None = None
    train_batches: int | None = number(None, least=1)
    overfit: bool = False
    profile: bool = False


@dataclass
class TrainConfig:
    """All of `melanoma train`."""

    seed: int = number(0, least=0, most=2**32 - 1)
    protocol: Literal["clean", "published", "both"] = "clean"
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
