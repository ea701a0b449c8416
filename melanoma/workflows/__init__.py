"""Implementations of the commands, from a checked configuration to the result."""
