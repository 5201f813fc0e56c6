"""For Django: ``'celeriac.contrib.django'`` in INSTALLED_APPS makes the outbox's table by ``manage.py migrate``.

``DjangoTask`` is the base class with ``delay_on_commit``, Celery's name: ``Celery("proj", task_cls=DjangoTask)``.
"""

from __future__ import annotations

from celeriac.contrib.django.task import DjangoTask

__all__ = ["DjangoTask"]
