"""A piece of CPU work, and the bare loop around it: `python -m bench.spin TURNS COUNT` (a line on stdin starts it)."""

import sys
import time


def spin(turns: int) -> int:
    """Pure Python that holds the CPU."""
    total = 0
    for turn in range(turns):
        total += turn & 7
    return total


def timed(turns: int, count: int) -> float:
    """Seconds that `count` calls take."""
    started = time.perf_counter()
    for _ in range(count):
        spin(turns)
    return time.perf_counter() - started


def main(turns: int, count: int) -> None:
    timed(turns, 50)
    print("ready", flush=True)
    sys.stdin.readline()
    print(count / timed(turns, count))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
