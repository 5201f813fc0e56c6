"""What a scenario is: one function that measures one peer, the peers it is for, the bars."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.bars import Bar
from bench.peers import Peer, Station

Sample = dict[str, float]  # metric → value


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much work a measurement may be: everything, or a quick look."""

    quick: bool

    def count(self, full: int) -> int:
        return max(200, full // 5) if self.quick else full

    def seconds(self, full: float) -> float:
        return full / 3 if self.quick else full


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """`units` names the metrics, in the order of the table. `once`: too long to be repeated round by round."""

    name: str
    about: str
    units: dict[str, str]
    peers: tuple[Peer, ...]
    measure: Callable[[Station, Size], Sample]
    bars: tuple[Bar, ...] = ()
    once: bool = False
