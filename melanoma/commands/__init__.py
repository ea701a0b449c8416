"""Commands that parse their own arguments; `melanoma.cli` has the table of all commands."""
