"""Protocol of a run (the shortcuts that it takes), and images that were used in earlier training."""
