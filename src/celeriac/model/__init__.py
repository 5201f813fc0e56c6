"""Pure values and decisions: what a message is, how a run ended, what follows. No I/O, clock, randomness or threads."""
