"""The model card: a model's intended use, data, metrics and limitations."""
