"""Helpers for the audit's tests: drawn lesions, and audits of folders."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from melanoma.auditing.audit import audit_source
from melanoma.auditing.findings import Audit
from melanoma.config.schema import AuditConfig
from melanoma.data.lesions import SKIN_TONES, class_names, draw_lesion, lesion_style
from melanoma.data.sources import class_folders


@pytest.fixture
def audit(cache: Path) -> Callable[..., Audit]:
    """`audit(folder)` audits class folders, or another source; further arguments are settings."""

    def call(source: Any, **settings: Any) -> Audit:
        if isinstance(source, Path):
            source = class_folders(source)
        return audit_source(source, AuditConfig(**settings), max_megapixels=50)

    return call


@pytest.fixture(scope="session")
def lesions() -> NDArray[np.uint8]:
    """300 drawn lesions, grey, of 128 pixels a side."""
    tones, names = list(SKIN_TONES), class_names(9)
    drawings = []
    for i in range(300):
        lesion, view = (np.random.default_rng([i, stream]) for stream in (0, 1))
        pixels = draw_lesion(lesion_style(names[i % 9], i % 9), tones[i % 6], 128, lesion, view)
        drawings.append(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))
    return np.stack(drawings)


@pytest.fixture(scope="session")
def thumbnails(lesions) -> NDArray[np.uint8]:
    """The same lesions at 64 pixels."""
    return np.stack([cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA) for image in lesions])
