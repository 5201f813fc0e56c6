"""Beat by Celery's `Service`, under Celery's names: `beat_runner.py APP`. SIGTERM ends it."""

from __future__ import annotations

import logging
import signal
import sys
from threading import Thread
from typing import Any

import celeriac.contrib.celery_names  # noqa: F401 - before the app
from celeriac.app.discovery import find_app
from celeriac.beat import Service


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    app = find_app(sys.argv[1])
    app.loader.import_default_modules()
    app.finalize()
    service = Service(app)

    def stop(*_: Any) -> None:
        Thread(target=service.stop).start()  # its lock may be held by the main thread, which a signal interrupts

    signal.signal(signal.SIGTERM, stop)
    service.start()


if __name__ == "__main__":
    main()
