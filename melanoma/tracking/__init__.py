"""Tracking with MLflow: runs, their logged content, and the names in the store."""
