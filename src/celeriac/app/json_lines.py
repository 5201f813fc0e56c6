"""Log lines as JSON objects, one a line, for machines that read logs: ``--log-format json``.

Set up by ``log.py`` in the place of ``LineFormatter``. A line break or control character in a field is escaped by JSON.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime

from celeriac.app.lines import process_name
from celeriac.client.current import request_var

__all__ = ["JsonFormatter"]


class JsonFormatter(logging.Formatter):
    """Time (ISO 8601, UTC), level, logger, process, pid, message; id and name of the task that runs; the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": process_name(record.processName),
            "pid": os.getpid(),
            "message": record.getMessage(),
        }
        request = request_var.get()
        if request is not None:
            fields["task_id"], fields["task_name"] = request.id, request._task.name
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        return json.dumps(fields, default=str)
