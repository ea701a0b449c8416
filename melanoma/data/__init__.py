"""Data sources, decoding, splitting, class balancing and the input pipeline."""
