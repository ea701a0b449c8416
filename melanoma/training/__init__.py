"""Fitting a model."""
