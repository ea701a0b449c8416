"""MLflow: the run, what is logged in it and under which name."""
