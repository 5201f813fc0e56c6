"""One app for both sides, and the processes that the tests of mixed fleets share."""
