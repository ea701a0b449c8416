"""Sweeps: many trials of one experiment, each in a process of its own, under one parent run."""
