"""Integrations with what stands beside a task queue: test runners, frameworks. Nothing in Celeriac imports them."""
