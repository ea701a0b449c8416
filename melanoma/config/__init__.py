"""Composing, checking and launching a configuration; TensorFlow is never imported here."""
