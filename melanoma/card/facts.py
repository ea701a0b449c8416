"""What a model card tells: its facts, typed, by the names that its template uses."""

from dataclasses import dataclass
from typing import Any

__all__ = ["CardFacts", "Column", "Point", "SubgroupRow"]


@dataclass(frozen=True)
class Column:
    """A column of the table of results: its title, and of how many images it is."""

    title: str
    images: int


@dataclass(frozen=True)
class Point:
    """An operating point and what it costs on test, as texts."""

    binary_task: str
    rule: str
    threshold: str
    sensitivity: str
    specificity: str
    referrals: str
    missed: str


@dataclass(frozen=True)
class SubgroupRow:
    """A subgroup: its name, number of images, and metric with interval, or that it was not assessed."""

    name: str
    images: str
    text: str
    assessed: bool


@dataclass(frozen=True)
class CardFacts:
    """The facts of a model card, by the names that its template uses.

    The trained run is that of the model, the evaluated run the same or one that evaluates the model on other images.

    Attributes:
        protocol: of the trained run.
        intended_use: what the user has stated.
        synthetic: the images are drawn by this project.
        images: by class, the number in each part.
        totals: by part.
        audit_images: images that the audit has looked at.
        audit_found: its findings, in words.
        split: the `split` section of the configuration.
        leaks: a sentence.
        test_unused: no choice rested on the test images.
        confidence: of the intervals, in percent.
        averaged_over: the mirrored copies that the model averages over; None for none.
        grouped: the bootstrap draws groups of more than one image.
        columns: of the table of results.
        results: by metric, a text for each column.
        sets: of prediction sets, the `wanted` coverage, `coverage` and `size`, as texts.
        abstention: the `wanted` share, `share`, `accuracy` and `threshold`, as texts.
        subgroup_metric: that `subgroups` shows.
        worst: the worst subgroup, in words.
        metadata_columns: that are known.
        tone_estimated: skin tone was estimated from the images.
        external: the evaluated run is another than the trained one.
        seen: the evaluated run includes images that the model was trained or tuned on.
        seen_unknown: it is not fully known whether it does.
        external_name: of the evaluated run's data.
        external_path: of the evaluated run's data.
        limits: a sentence each.
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
    points: list[Point]
    sets: dict[str, str]
    abstention: dict[str, str]
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
    limits: list[str]

    @property
    def assessed(self) -> int:
        """Subgroups with enough images."""
        return sum(one.assessed for one in self.subgroups)
