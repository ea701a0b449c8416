"""The Python API. `import melanoma` offers its functions; each does what the command of its name does."""
