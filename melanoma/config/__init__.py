"""Composition, validation and launch of configurations. This package never imports TensorFlow."""
