"""Workflows as trees: what each is worth by plain recursion, and the signature that should bring the same.

A task returns `[number, argument]`, so that a value shows everything that led to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from celeriac import chain, chord, group

__all__ = ["FAILED", "Chain", "Chord", "Group", "Leaf", "Tree", "has_failed", "workflows"]

#: The value of what did not succeed.
FAILED = "failed"
#: No argument.
NOTHING: Any = object()

#: How a task ends: `twice` tries again once, `replaced` goes on as a chain, `spread` as a group.
GOOD = ("plain", "immutable", "twice")
REPLACED = ("replaced", "spread")
BAD = ("raises", "unknown", "expired", "ignores")


@dataclass(frozen=True, slots=True)
class Leaf:
    kind: str
    number: int

    def run(self, x: Any) -> Any:
        if self.kind in BAD:
            return FAILED
        given = [] if x is NOTHING or self.kind == "immutable" else [x]
        if self.kind == "replaced":
            return [-1, [self.number, *given]]
        if self.kind == "spread":
            return [[1, [self.number, *given]], [2, [self.number, *given]]]
        return [self.number, *given]

    def failed(self) -> Any:
        return FAILED

    def sig(self, app: Any) -> Any:
        name = "sim.unknown" if self.kind == "unknown" else f"sim.{self.kind}"
        sig = app.signature(name, (self.number,), immutable=self.kind == "immutable")
        if self.kind == "expired":
            sig.set(expires=-1)
        return sig

    def __str__(self) -> str:
        return f"{self.kind}({self.number})"


@dataclass(frozen=True, slots=True)
class Chain:
    steps: tuple[Tree, ...]

    def run(self, x: Any) -> Any:
        value = x
        for position, step in enumerate(self.steps):
            if position and has_failed(value):
                return self.failed()
            value = step.run(value)
        return value

    def failed(self) -> Any:
        return self.steps[-1].failed()

    def sig(self, app: Any) -> Any:
        return chain([step.sig(app) for step in self.steps])

    def __str__(self) -> str:
        return f"chain({', '.join(map(str, self.steps))})"


@dataclass(frozen=True, slots=True)
class Group:
    members: tuple[Tree, ...]

    def run(self, x: Any) -> Any:
        return _together(self.members, lambda member: member.run(x))

    def failed(self) -> Any:
        return _together(self.members, lambda member: member.failed())

    def sig(self, app: Any) -> Any:
        return group([member.sig(app) for member in self.members])

    def __str__(self) -> str:
        return f"group({', '.join(map(str, self.members))})"


@dataclass(frozen=True, slots=True)
class Chord:
    header: Group
    body: Tree

    def run(self, x: Any) -> Any:
        values = self.header.run(x)
        return self.body.failed() if has_failed(values) else self.body.run(values)

    def failed(self) -> Any:
        return self.body.failed()

    def sig(self, app: Any) -> Any:
        return chord([member.sig(app) for member in self.header.members], self.body.sig(app))

    def __str__(self) -> str:
        return f"chord([{', '.join(map(str, self.header.members))}], {self.body})"


Tree = Leaf | Chain | Group | Chord


def _together(members: tuple[Tree, ...], value: Any) -> list[Any]:
    """Groups in a group give their members."""
    values: list[Any] = []
    for member in members:
        if isinstance(member, Group):
            values += value(member)
        else:
            values.append(value(member))
    return values


def has_failed(value: Any) -> bool:
    return any(map(has_failed, value)) if isinstance(value, list) else value == FAILED


def _leaves() -> st.SearchStrategy[Tree]:
    kinds = st.sampled_from(("plain",) * 12 + GOOD * 2 + REPLACED + BAD)
    return st.builds(Leaf, kinds, st.integers(0, 99))


def _composite(part: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    some = st.lists(part, min_size=2, max_size=4).map(tuple)
    groups = st.builds(Group, some)
    return st.one_of(st.builds(Chain, some), groups, st.builds(Chord, groups, part))


def workflows(leaves: int = 14) -> st.SearchStrategy[Tree]:
    """Trees of so many tasks at most, as deep as they like."""
    return st.recursive(_leaves(), _composite, max_leaves=leaves)
