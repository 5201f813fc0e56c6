"""Real Celery as the peer; golden messages."""
