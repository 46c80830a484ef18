"""What SplineCam asks of graph-tool, over dicts: for machines without it, for pip does not install it.

It is Python where graph-tool is C++, so its time is another. It knows no more of the interface than SplineCam's search
for faces and igraph's ``to_graph_tool`` use: vertices are their numbers, there are no parallel edges, and edges have a
direction from the start, for SplineCam asks nothing about a graph before ``set_directed(True)``. Of equally short paths
graph-tool may take another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any


class Edge:
    """An edge: unpacks to source and target, and is itself the key of its properties."""

    __slots__ = ("source", "target")

    def __init__(self, source: int, target: int) -> None:
        self.source, self.target = source, target

    def __iter__(self) -> Iterator[int]:
        return iter((self.source, self.target))


class PropertyMap(dict[Hashable, Any]):
    """Values of one type by vertex or edge; the type's default where none was set."""

    def __init__(self, convert: Callable[..., Any]) -> None:
        super().__init__()
        self.convert = convert

    def __setitem__(self, key: Hashable, value: Any) -> None:
        super().__setitem__(key, self.convert(value))

    def __missing__(self, key: Hashable) -> Any:
        return self.convert()

    def copy(self) -> PropertyMap:
        found = PropertyMap(self.convert)
        found.update(self)
        return found


def _vector(values: Iterable[Any] = ()) -> list[float]:
    return [float(value) for value in values]


TYPES: dict[str, Callable[..., Any]] = {"int": int, "vector<float>": _vector}  # graph-tool's float is a double


class Graph:
    """A graph that is asked about as a directed one."""

    def __init__(self, other: Graph | None = None, directed: bool = True) -> None:
        self.directed = directed
        self._out: list[dict[int, Edge]] = []
        self._in_degrees: list[int] = []
        self.vp: dict[str, PropertyMap] = {}
        self.ep: dict[str, PropertyMap] = {}
        if other is not None:  # edges are shared: nobody changes them
            self.directed = other.directed
            self._out = [edges.copy() for edges in other._out]
            self._in_degrees = other._in_degrees.copy()
            self.vp = {name: values.copy() for name, values in other.vp.items()}
            self.ep = {name: values.copy() for name, values in other.ep.items()}

    @property
    def vertex_properties(self) -> dict[str, PropertyMap]:
        return self.vp

    @property
    def edge_properties(self) -> dict[str, PropertyMap]:
        return self.ep

    @property
    def vertex_index(self) -> range:
        return range(len(self._out))

    def new_vertex_property(self, type_name: str) -> PropertyMap:
        return PropertyMap(TYPES[type_name])

    def new_edge_property(self, type_name: str) -> PropertyMap:
        return PropertyMap(TYPES[type_name])

    def set_directed(self, directed: bool) -> None:
        self.directed = directed

    def set_fast_edge_removal(self, fast: bool = True) -> None:
        """Removing is fast."""

    def add_vertex(self, count: int) -> None:
        self._out += [{} for _ in range(count)]
        self._in_degrees += [0] * count

    def vertex(self, number: int) -> int:
        return self.vertex_index[number]

    def add_edge(self, source: int, target: int) -> Edge:
        if target in self._out[source]:
            raise ValueError(f"there is an edge from {source} to {target} already")
        edge = self._out[source][target] = Edge(source, target)
        self._in_degrees[target] += 1
        return edge

    def remove_edge(self, edge: Edge) -> None:
        if self.edge(edge.source, edge.target) is not edge:
            raise ValueError(f"the edge from {edge.source} to {edge.target} is not in the graph")
        del self._out[edge.source][edge.target]
        self._in_degrees[edge.target] -= 1

    def edge(self, source: int, target: int) -> Edge | None:
        return self._out[source].get(target)

    def edges(self) -> Iterator[Edge]:
        return (edge for edges in self._out for edge in edges.values())

    def get_edges(self) -> list[tuple[int, int]]:
        return [(edge.source, edge.target) for edge in self.edges()]

    def get_in_degrees(self, vertices: list[int]) -> list[int]:
        return [self._in_degrees[vertex] for vertex in vertices]

    def get_out_degrees(self, vertices: list[int]) -> list[int]:
        return [len(self._out[vertex]) for vertex in vertices]


def shortest_path(g: Graph, source: int, target: int) -> tuple[list[int], list[Edge]]:
    """The vertices and edges of a path with the fewest edges; none of either if there is no path."""
    came_by: dict[int, Edge | None] = {source: None}
    waiting = deque([source])
    while waiting and target not in came_by:
        for vertex, edge in g._out[waiting.popleft()].items():
            if vertex not in came_by:
                came_by[vertex] = edge
                waiting.append(vertex)
    if target not in came_by:
        return [], []
    edges: list[Edge] = []
    edge = came_by[target]
    while edge is not None:
        edges.append(edge)
        edge = came_by[edge.source]
    edges.reverse()
    return [source, *(edge.target for edge in edges)], edges


topology = SimpleNamespace(shortest_path=shortest_path)
