"""Celeriac against real Celery: `./dev bench`. Nothing is imported here, for both peers import `bench.app`."""
