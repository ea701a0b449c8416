"""Adam as one TensorFlow operation per variable; Keras 3 uses a dozen, each limited by memory bandwidth."""

import keras
import tensorflow as tf

from melanoma.training.compat import adam_moments

__all__ = ["Adam", "AdamW"]


class Adam(keras.optimizers.Adam):
    """keras.optimizers.Adam with TensorFlow's ResourceApplyAdam; same arguments, same results except for rounding."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Update a variable as keras.optimizers.Adam does."""
        if self.amsgrad or isinstance(gradient, tf.IndexedSlices):
            super().update_step(gradient, variable, learning_rate)
            return
        first, second = adam_moments(self, variable)
        step = tf.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=first.handle,
            v=second.handle,
            beta1_power=tf.cast(self.beta_1, variable.dtype) ** step,
            beta2_power=tf.cast(self.beta_2, variable.dtype) ** step,
            lr=tf.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.cast(gradient, variable.dtype),
        )


class AdamW(keras.optimizers.AdamW, Adam):
    """keras.optimizers.AdamW with the same operation; same arguments, same results except for rounding."""
