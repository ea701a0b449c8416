"""Speed against plain baselines that are measured in the same run. `make benchmark` runs all."""
