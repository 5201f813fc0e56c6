"""The shipped conformance suite, run against every adapter on real servers."""
