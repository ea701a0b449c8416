"""Audits of data sets: damaged files, copies, contradicting labels and data leaks, and how they are handled."""
