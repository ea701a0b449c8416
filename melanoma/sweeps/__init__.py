"""Sweeps: many trials of one experiment, each in a separate process, under one parent run."""
