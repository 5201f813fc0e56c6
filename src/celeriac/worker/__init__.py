"""What runs tasks: a child and its parts (fetcher, runner, completer, leases), and the agent of a node."""
