"""The model registry: candidates, gates, promotion and the decision trail."""
