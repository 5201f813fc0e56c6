"""Captures golden messages and results from real Celery on a private Redis into `golden/*.json`.

Run from the repository with the peer's interpreter, never with ours: `.venv-celery/bin/python -m tests.compat.capture`.
It wants, beside `celery[redis]`, the packages pyyaml, msgpack and backports.zstd; what is missing is left out with a
notice. Ids, times and process numbers are kept as they were; only the machine's name and paths are replaced.
`golden/README.md` describes the files.
"""

# mypy: ignore-errors

import argparse
import importlib
import importlib.metadata
import json
import os
from pathlib import Path

from tests.compat.golden.peer import client, private_redis

CAPTURES = ("messages", "workflows", "unacked", "results", "results_by_serializer", "chords", "control", "events")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="comma-separated names: " + ", ".join(CAPTURES))
    only = parser.parse_args().only
    names = only.split(",") if only else CAPTURES
    with private_redis() as url:
        os.environ["GOLDEN_URL"] = url
        for name in names:
            client().flushall()
            module = importlib.import_module(f"tests.compat.golden.{name.split('_')[0]}")
            save(name, getattr(module, name)())


def save(name: str, content: dict) -> None:
    about = {package: importlib.metadata.version(package) for package in ("celery", "kombu")}
    path = Path(__file__).parent / "golden" / f"{name}.json"
    path.write_text(json.dumps({"captured_from": about, **content}, indent=1) + "\n")
    print(f"{path.name}: {', '.join(f'{len(value)} {key}' for key, value in content.items())}")


if __name__ == "__main__":
    main()
