"""The model registry: gates, promotion, the packaged model (images in, decisions out), and serving it."""
