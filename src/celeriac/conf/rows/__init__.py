"""The rows of the settings table, a file for each family of names. Gathered by ``table.py``, used by nobody else."""
