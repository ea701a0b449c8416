"""Predicting, measuring and drawing."""
