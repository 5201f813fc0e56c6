"""Testing code that uses Celeriac, under Celery's names (``celery.contrib.testing``): workers, apps, messages."""
