"""A console in the add-ons' interpreter: reads snippets, a JSON text in a line each, and answers with their `answer`.

Run by `addons_fleet.Addons`, with `django` for one that has Django set up; one process for all snippets of a test, as
its start takes a second. Each snippet has names of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from typing import Any


def main(*words: str) -> None:
    import celeriac.contrib.celery_names  # noqa: F401 - `import celery` is ours from here on

    if "django" in words:
        os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
        import django

        django.setup()
    for line in sys.stdin:
        names: dict[str, Any] = {"__name__": "__console__"}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                exec(compile(json.loads(line), "<console>", "exec"), names)
            said = {"answer": names.get("answer")}
        except BaseException:  # noqa: BLE001 - the test is told
            said = {"error": traceback.format_exc()}
        print(json.dumps(said, default=str), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
