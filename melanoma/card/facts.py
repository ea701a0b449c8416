"""The typed facts of a model card, under the names that its template uses."""

from dataclasses import dataclass
from typing import Any

__all__ = ["CardFacts", "Column", "Point", "SubgroupRow"]


@dataclass(frozen=True)
class Column:
    """A column of the results table: its title, and how many images, lesions or patients it has."""

    title: str
    count: int
    unit: str = "images"


@dataclass(frozen=True)
class Point:
    """An operating point and its rates on the test set, as text."""

    binary_task: str
    rule: str
    threshold: str
    sensitivity: str
    specificity: str
    referrals: str
    missed: str


@dataclass(frozen=True)
class SubgroupRow:
    """A subgroup, as texts.

    Attributes:
        name: Column and value.
        images: Number of images.
        text: Metric with its interval, or why it was not assessed.
        difference: Difference from the other images with its interval; empty if it was not measured.
        assessed: Whether it was assessed.
    """

    name: str
    images: str
    text: str
    difference: str
    assessed: bool


@dataclass(frozen=True)
class CardFacts:
    """The facts of a model card, under the names that its template uses.

    The trained run is the run that trained the model. The evaluated run is the same run, or a run that evaluated the
    model on other images.

    Attributes:
        protocol: Protocol of the trained run.
        intended_use: Intended use as stated by the user.
        synthetic: Whether the images are synthetic.
        primary_metric: Metric that selects models.
        positive: Positive classes of each binary task; with two classes, the positive class under its own name.
        images: Number of images by class and part.
        totals: Number of images by part.
        audit_images: Number of audited images.
        audit_found: Findings of the audit, as text.
        split: The `split` section of the configuration.
        leaks: A sentence about data leaks.
        test_unused: Whether the test images were not used for model selection.
        confidence: Confidence level of the intervals, in percent.
        averaged_over: Description of the copies of each image over which predictions are averaged; None if there are
            none.
        grouped: Whether the test set has groups of more than one image, which the bootstrap draws as a whole.
        columns: Columns of the results table.
        results: For each metric, a text for each column.
        findings: What the result says about the training.
        sets: The `wanted` coverage, the `coverage` and the `size` of prediction sets, as text.
        ood: The `share` of flagged images, and the `wanted` one among images like the training images, as text; None
            without out-of-distribution scores.
        abstention: The `wanted` share, the `share`, the `accuracy` and the `threshold` of abstention, as text.
        subgroup_metric: The metric of `subgroups`.
        worst: Description of the worst subgroup.
        metadata_columns: Metadata columns that the data has.
        tone_estimated: Whether skin tone was estimated from the images.
        external: Whether the evaluated run differs from the trained run.
        seen: Whether the evaluated run includes images that the model was trained or tuned on.
        seen_unknown: Whether the protocol of an external evaluated run is not clean.
        external_name: Name of the evaluated run's data.
        external_path: Path of the evaluated run's data.
        recalibrated: Number of images on which the evaluated run recalibrated the model; 0 if it did not.
        limits: Limitations, one sentence each.
    """

    run_id: str
    run_name: str
    date: str
    task: str
    protocol: str
    model: str
    parameters: str
    image_size: int
    resize: str
    classes: list[str]
    commit: str
    versions: str
    intended_use: str | None
    data_name: str
    data_path: str | None
    synthetic: bool
    fingerprint: str
    images: dict[str, dict[str, int]]
    totals: dict[str, int]
    augmented: int
    removed: int
    quarantined: int
    audit_images: int
    audit_found: list[str]
    split: dict[str, Any]
    split_hash: str
    leaks: str
    test_unused: bool
    seed: int
    monitor: str
    primary_metric: str
    positive: dict[str, list[str]]
    epochs: int
    optimizer: str
    balance: str
    pretrained: str | None
    fit_time: str
    confidence: str
    resamples: int
    calibration: str
    averaged_over: str | None
    grouped: bool
    columns: list[Column]
    results: list[tuple[str, list[str]]]
    remarks: str
    findings: list[str]
    points: list[Point]
    sets: dict[str, str]
    abstention: dict[str, str]
    ood: dict[str, str] | None
    subgroups: list[SubgroupRow]
    subgroup_metric: str
    worst: str | None
    metadata_columns: list[str]
    tone_estimated: bool
    external: bool
    seen: bool
    seen_unknown: bool
    external_name: str | None
    external_path: str | None
    recalibrated: int
    limits: list[str]

    @property
    def assessed(self) -> int:
        """Number of subgroups with enough images to assess."""
        return sum(one.assessed for one in self.subgroups)
