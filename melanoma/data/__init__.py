"""Data: sources, decoding, splitting, balancing and the input pipeline."""
