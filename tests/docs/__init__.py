"""The docs tell the truth: examples run, named files exist."""
