"""Where the kernel counts the processes it has killed for want of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from celeriac.supervisor.oom import OomKills


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sys/fs/cgroup/jobs/w1/memory.events", "low 0\nhigh 3\nmax 9\noom 2\noom_kill {}\noom_group_kill 0\n"),
        ("sys/fs/cgroup/memory.events", "oom 2\noom_kill {}\n"),
        ("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"),
        ("proc/vmstat", "nr_free_pages 7\noom_kill {}\n"),
    ],
)
def test_it_counts_from_its_own_start(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", "1:name=systemd:/x\n0::/jobs/w1\n")
    path = write(tmp_path, name, text.format(5))
    kills = OomKills(tmp_path)
    assert not kills.grown()
    path.write_text(text.format(6))
    assert kills.grown()
    assert not kills.grown(), "since the last call"


def test_the_nearest_count(tmp_path: Path) -> None:
    """What happens elsewhere on the machine is not about this node."""
    write(tmp_path, "proc/self/cgroup", "0::/w1\n")
    write(tmp_path, "sys/fs/cgroup/w1/memory.events", "oom_kill 0\n")
    machine = write(tmp_path, "proc/vmstat", "oom_kill 0\n")
    kills = OomKills(tmp_path)
    machine.write_text("oom_kill 1\n")
    assert not kills.grown()


def test_without_any_count_nothing_is_claimed(tmp_path: Path) -> None:
    kills = OomKills(tmp_path)
    assert not kills.grown()
    gone = write(tmp_path, "proc/vmstat", "oom_kill 4\n")
    kills = OomKills(tmp_path)
    gone.unlink()
    assert not kills.grown()
