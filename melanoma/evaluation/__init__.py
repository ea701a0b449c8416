"""Prediction, metrics and figures."""
