"""The positive class of two classes: configured or inferred from its name, never from the order of the names."""

import shlex
from collections.abc import Sequence
from dataclasses import replace

from melanoma.data.sources import Source
from melanoma.errors import ConfigError

__all__ = ["positive_class", "with_positive"]

# Lower case, with spaces for - and _. The last line has the usual values of a column for the diagnosis.
_POSITIVE = {
    "melanoma", "mel", "malignant", "malign", "malignancy", "cancer", "carcinoma", "basal cell carcinoma", "bcc",
    "squamous cell carcinoma", "scc",
    "positive", "1", "true", "yes",
}  # fmt: skip


def with_positive(source: Source, configured: str | None, left_out: Sequence[str] = ()) -> tuple[Source, str | None]:
    """Put the positive class last, where the metrics expect it, and return it; None with more than two classes.

    Args:
        source: Images with their classes.
        configured: `data.positive`.
        left_out: Classes that are not trained, `data.leave_out`.

    Raises:
        ConfigError: See `positive_class`.
    """
    kept = [label for label in source.classes if label not in left_out]
    positive = positive_class(kept, configured)
    if positive is None:
        return source, None
    return replace(source, classes=[label for label in source.classes if label != positive] + [positive]), positive


def positive_class(classes: Sequence[str], configured: str | None) -> str | None:
    """Return the positive class of two classes; None for another number of classes.

    Raises:
        ConfigError: If `configured` is not one of two classes, or if it is None and the names do not tell.
    """
    listed = " and ".join(map(repr, classes))
    if len(classes) != 2:
        if configured is not None:
            raise ConfigError(
                [
                    f"data.positive is for two classes; with {len(classes)}, name the positive classes of each binary "
                    f"task, as in 'data.binary_tasks={{malignant: [{configured}]}}'. "
                    f"Received: data.positive={configured}"
                ]
            )
        return None
    if configured is not None:
        if configured not in classes:
            raise ConfigError([f"data.positive must be one of {listed}. Received: data.positive={configured}"])
        return configured
    known = [label for label in classes if label.casefold().replace("_", " ").replace("-", " ") in _POSITIVE]
    if len(known) != 1:
        typed = [shlex.quote(f"data.positive={label}") for label in classes]
        raise ConfigError(
            [
                "Which of the two classes is the positive one, the disease to find? AUC, sensitivity and the operating "
                f"point depend on it, and the names do not tell. Add {' or '.join(typed)}. Received: classes {listed}"
            ]
        )
    return known[0]
