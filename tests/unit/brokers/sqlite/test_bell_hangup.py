"""A bell that was rung by somebody who then left must fall silent again."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path

from celeriac.brokers.sqlite.bells import Bells


def test_a_waiter_sleeps_again_after_the_last_ringer_left(tmp_path: Path) -> None:
    path = str(tmp_path / "queue.db")
    Path(path).touch()
    bells = Bells(path)
    bell = bells.hang("topic")
    ring = "import sys; from celeriac.brokers.sqlite.bells import Bells; Bells(sys.argv[1]).ring(('topic',))"
    subprocess.run([sys.executable, "-c", ring, path], check=True)
    assert bell.wait(5.0), "it rang"
    poll = select.poll()
    assert bell.fd is not None
    poll.register(bell.fd, select.POLLIN)
    assert poll.poll(0) == [], "nothing is left to wake up for: neither a byte nor a hang-up"
    bell.close()
    bells.close()
