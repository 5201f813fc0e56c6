"""Faults: kills, restarts, partitions; seeded."""
