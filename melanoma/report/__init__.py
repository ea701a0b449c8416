"""Reports that are written from the tracking store, never by hand."""
