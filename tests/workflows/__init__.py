"""Random workflows on a simulated fleet, against a plain recursive evaluation."""
