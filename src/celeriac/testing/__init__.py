"""The test kit that is shipped: a virtual clock, and the conformance suite for those who write adapters."""
