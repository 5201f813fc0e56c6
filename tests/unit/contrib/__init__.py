"""contrib, without a worker: the plug-in's fixtures are tried in tests/integration."""
