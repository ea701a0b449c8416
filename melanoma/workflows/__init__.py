"""The commands, each from a checked configuration to its result."""
