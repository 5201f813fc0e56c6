"""A Django project as Celery's users have it: `shop/celery.py`, tasks, periodic tasks in the database."""

from __future__ import annotations

from shop.celery import app as celery_app

__all__ = ["celery_app"]
