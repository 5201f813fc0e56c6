"""The worker's own services under virtual time, thousands of times: random work, random faults, what must always hold.

`./dev simulate --seeds 100000` runs any number; a failure prints its seed, and `--first SEED --seeds 1` repeats it.
"""
