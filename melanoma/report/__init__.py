"""Reports that are generated from the tracking store."""
