"""Initial weights of a network."""

import logging

import keras

from melanoma.errors import ModelError
from melanoma.models.backbone import imagenet_weights
from melanoma.models.build import copy_weights, load_weights_file
from melanoma.paths import user_path

__all__ = ["initial_weights"]

log = logging.getLogger("melanoma")


def initial_weights(
    network: keras.Model,
    *,
    weights: str | None,
    family: str | None,
    image_size: int,
    saved: keras.Model | None = None,
    with_head: bool = True,
) -> None:
    """Load the weights that `model.weights` specifies into a new network.

    Args:
        network: Network, changed in place.
        weights: None or `none` (random initialization), `imagenet`, a file, or the URI of a saved model.
        family: Family in keras.applications, for `imagenet`.
        image_size: Side of the input in pixels.
        saved: Model that was loaded from the URI.
        with_head: Whether `saved` has the classes of the network, so that its head can be kept.

    Raises:
        ModelError: If the weights are not available or are those of another network.
    """
    if weights is None or weights == "none":
        return
    if weights == "imagenet":
        if family is None:
            raise ModelError(f"ImageNet weights exist for model=backbone only. Received: model.weights={weights}")
        imagenet_weights(network, family=family, image_size=image_size)
    elif saved is not None:
        kept = copy_weights(saved, network, with_head)
        log.info("initial weights from %s, head %s", weights, "kept" if kept else "new: other classes")
    else:
        load_weights_file(network, user_path(weights))
        log.info("weights from %s", weights)
