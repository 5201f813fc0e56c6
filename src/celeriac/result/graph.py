"""What was sent by what: the tree of a result as a graph, for drawing. Celery's ``result.graph``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TextIO

__all__ = ["DependencyGraph"]


class DependencyGraph:
    """Nodes and, for each, the nodes it has sent. Made by ``AsyncResult.build_graph``."""

    def __init__(self) -> None:
        self.adjacent: dict[Any, list[Any]] = {}

    def add_arc(self, node: Any) -> None:
        """Add a node."""
        self.adjacent.setdefault(node, [])

    def add_edge(self, sender: Any, sent: Any) -> None:
        """``sender`` has sent ``sent``; both are nodes."""
        self.adjacent[sender].append(sent)

    def edges(self) -> list[Any]:
        """All nodes that have sent something."""
        return [node for node, sent in self.adjacent.items() if sent]

    def to_dot(self, stream: TextIO) -> None:
        """Write it in Graphviz's language: ``result.graph.to_dot(file)``, then ``dot -Tsvg``."""
        stream.write("digraph workflow {\n  node [shape=box, fontname=sans];\n")
        for node, children in self.adjacent.items():
            stream.write(f"  {_quoted(node)};\n")
            stream.writelines(f"  {_quoted(node)} -> {_quoted(child)};\n" for child in children)
        stream.write("}\n")

    def items(self) -> Any:
        """``(node, nodes it has sent)``."""
        return self.adjacent.items()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.adjacent)

    def __getitem__(self, node: Any) -> list[Any]:
        return self.adjacent[node]

    def __contains__(self, node: object) -> bool:
        return node in self.adjacent

    def __len__(self) -> int:
        return len(self.adjacent)

    def __repr__(self) -> str:
        return "\n".join(f"{node}: {', '.join(map(str, sent))}" for node, sent in self.adjacent.items())


def _quoted(node: Any) -> str:
    text = str(node).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
