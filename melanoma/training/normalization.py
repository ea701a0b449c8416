"""Batch normalisation as one TensorFlow operation; Keras 3 uses several, each limited by memory bandwidth."""

import keras
import tensorflow as tf

from melanoma.training.compat import all_layers, is_called_by_the_graph

__all__ = ["with_fused_normalization"]


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """A keras.layers.BatchNormalization layer that uses FusedBatchNormV3 for the training step over NHWC images.

    The moving variance uses the sample variance (divided by n - 1), as in Keras of TensorFlow 2.
    """

    def call(
        self, inputs: keras.KerasTensor, training: bool | None = None, mask: keras.KerasTensor | None = None
    ) -> keras.KerasTensor:
        """Normalise the inputs as keras.layers.BatchNormalization does."""
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.cast(self.gamma, tf.float32),
            offset=tf.cast(self.beta, tf.float32),
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        for stored, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            stored.assign(self.momentum * stored + (1 - self.momentum) * tf.cast(new, stored.dtype))
        return outputs


def with_fused_normalization(network: keras.Model) -> keras.Model:
    """Return a copy of a network, with the same weights, whose batch normalisation is fused.

    A network without batch normalisation that can be fused is returned unchanged.
    """
    if not any(_can_be_fused(layer) for layer in all_layers(network)):
        return network
    fused = keras.models.clone_model(network, clone_function=_fused, recursive=True)
    fused.set_weights(network.get_weights())
    return fused


def _fused(layer: keras.layers.Layer) -> keras.layers.Layer:
    kind = FusedBatchNormalization if _can_be_fused(layer) else type(layer)
    return kind.from_config(layer.get_config())


def _can_be_fused(layer: keras.layers.Layer) -> bool:
    return bool(
        type(layer) is keras.layers.BatchNormalization
        and layer.trainable
        and is_called_by_the_graph(layer)
        and len(layer.input.shape) == 4
        and layer.axis in (-1, 3)
        and layer.center
        and layer.scale
        and not (layer.renorm or layer.synchronized)
    )
