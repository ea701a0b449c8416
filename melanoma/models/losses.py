"""Losses on logits, for binary labels of one column (two classes) or one-hot labels."""

import keras

__all__ = ["training_loss"]


def training_loss(classes: int, *, label_smoothing: float = 0.0, focal_gamma: float | None = None) -> keras.losses.Loss:
    """Return cross-entropy, or the focal loss (Lin et al. 2017, arXiv:1708.02002) if `focal_gamma` is given."""
    options: dict = {"from_logits": True, "label_smoothing": label_smoothing}
    if focal_gamma is not None:
        options["gamma"] = focal_gamma
    binary = classes == 2
    if focal_gamma is None:
        return (keras.losses.BinaryCrossentropy if binary else keras.losses.CategoricalCrossentropy)(**options)
    if binary:
        return keras.losses.BinaryFocalCrossentropy(**options)
    return keras.losses.CategoricalFocalCrossentropy(alpha=1.0, **options)  # Keras's default scales it by 0.25
