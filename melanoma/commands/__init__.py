"""Commands that read their command line themselves; `melanoma.cli` has the table of all."""
