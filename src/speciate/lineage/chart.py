"""A lineage graph as a chart (SVG or PNG), origins at the left. Pure; PNG needs Pillow.

A node's layer is its longest path from an origin. Within a layer, nodes stand near their sources, and an edge has a
place of its own in each layer that it passes (Sugiyama, Tagawa and Toda 1981; barycentres, one pass). Large graphs
show the nodes nearest to the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple, TypedDict

from speciate.lineage.graph import Edge, Graph, Node

MOST = 60
"""Nodes of a chart; for more, read the text."""
WIDE, HIGH = 184, 40
"""Pixels of a box."""
_ACROSS, _DOWN, _MARGIN = 44, 14, 16
_LONGEST = 28
_COLOURS = {
    "dataset": "#d6e9f8", "model": "#d9f2d9", "base": "#eef7e4", "job": "#f1f1f1", "code": "#e8e4f3",
    "evaluation": "#fff3cf", "decision": "#ffe3c2", "move": "#fbd5d5", "approval": "#fce4f0", "person": "#f6eee3",
    "actor": "#f6eee3", "answer": "#cdeeea", "answers": "#cdeeea",
}  # fmt: skip


Point = tuple[int, int]


class Box(NamedTuple):
    node: Node
    x: int
    y: int


class Line(NamedTuple):
    edge: Edge
    points: tuple[Point, ...]
    """From the right side of one box to the left side of another, between all that stand between them."""


class Layout(NamedTuple):
    boxes: dict[str, Box]
    lines: tuple[Line, ...]
    width: int
    height: int
    left_out: int
    """Nodes that are not shown."""


def lay_out(graph: Graph, start: Sequence[str], most: int = MOST) -> Layout:
    shown = graph.nearest(start, most)
    layer_of = _layers(shown)
    ways, steps = {edge: _route(edge, layer_of) for edge in shown.edges}, dict[str, list[str]]()
    for way in ways.values():
        for before, after in pairwise(way):
            steps.setdefault(after, []).append(before)
    layers: dict[int, list[str]] = {}
    for name, layer in layer_of.items():
        layers.setdefault(layer, []).append(name)
    for edge, way in ways.items():
        for offset, name in enumerate(way[1:-1], 1):
            layers[layer_of[edge.source] + offset].append(name)
    place: dict[str, Point] = {}
    for layer, names in sorted(layers.items()):
        names.sort(key=lambda name: (_mean(place[each][1] for each in steps.get(name, []) if each in place), name))
        for row, name in enumerate(names):
            place[name] = (_MARGIN + layer * (WIDE + _ACROSS), _MARGIN + row * (HIGH + _DOWN))
    boxes = {name: Box(node, *place[name]) for name, node in shown.nodes.items()}
    right = max((x for x, _ in place.values()), default=0) + WIDE + _MARGIN
    below = max((y for _, y in place.values()), default=0) + HIGH + _MARGIN
    lines = tuple(Line(edge, tuple(_points(way, place))) for edge, way in ways.items())
    return Layout(boxes, lines, right, below, len(graph.nodes) - len(boxes))


def _route(edge: Edge, layer_of: Mapping[str, int]) -> list[str]:
    """The ends of an edge, and a place of its own in each layer between them."""
    between = range(layer_of[edge.source] + 1, layer_of[edge.target])
    return [edge.source, *(f"{edge.source} {edge.target} {edge.how} {layer}" for layer in between), edge.target]


def _points(way: Sequence[str], place: Mapping[str, Point]) -> Iterator[Point]:
    for number, name in enumerate(way):
        x, y = place[name]
        if number > 0:
            yield x, y + HIGH // 2
        if number < len(way) - 1:
            yield x + WIDE, y + HIGH // 2


def svg(graph: Graph, start: Sequence[str]) -> str:
    """The graph as one SVG file without scripts; every text of it is escaped."""
    layout = lay_out(graph, start)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{layout.width}" height="{layout.height}" '
        f'viewBox="0 0 {layout.width} {layout.height}" font-family="sans-serif" font-size="11">',
        f"<title>{escape(', '.join(start))}: what came from what</title>",
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
        '<path d="M0,0 L7,3 L0,6 z" fill="#777"/></marker></defs>',
    ]
    for edge, points in layout.lines:
        lines.append(
            f'<path d="{curve(points)}" fill="none" stroke="#777" marker-end="url(#tip)">'
            f"<title>{escape(edge.how)}</title></path>"
        )
    for name, box in layout.boxes.items():
        heavy = ' stroke-width="2.5"' if name in start else ""
        facts = "; ".join(f"{key} {value}" for key, value in box.node.facts.items())
        lines.append(
            f'<g><title>{escape(f"{name} {facts}".strip())}</title><rect x="{box.x}" y="{box.y}" width="{WIDE}" '
            f'height="{HIGH}" rx="5" fill="{_COLOURS[box.node.kind]}" stroke="#555"{heavy}/>'
            f'<text x="{box.x + 8}" y="{box.y + 15}" fill="#666">{escape(node_label(box.node))}</text>'
            f'<text x="{box.x + 8}" y="{box.y + 31}">{escape(short_name(box.node.name))}</text></g>'
        )
    if layout.left_out:
        lines.append(f'<text x="{_MARGIN}" y="14" fill="#a00">and {layout.left_out} more</text>')
    return "\n".join([*lines, "</svg>", ""])


def curve(points: Sequence[Point]) -> str:
    """The `d` of a path through the points, level at each."""
    (x, y), path = points[0], [f"M{points[0][0]},{points[0][1]}"]
    for right, below in points[1:]:
        bend = (right - x) // 2
        path.append(f"C{x + bend},{y} {right - bend},{below} {right},{below}")
        x, y = right, below
    return " ".join(path)


class DrawRequest(TypedDict):
    """A graph as JSON: the fields of its nodes and edges in order."""

    nodes: Sequence[Sequence[Any]]
    edges: Sequence[Sequence[Any]]
    start: Sequence[str]


class DrawnFile(TypedDict):
    file: str


def draw(payload: DrawRequest) -> DrawnFile:
    """{nodes, edges, start} -> {file}: the same as a PNG. Runs in a service process."""
    from PIL import Image, ImageDraw

    graph = Graph(
        {each[0]: Node(*each) for each in payload["nodes"]}, tuple(Edge(*each) for each in payload["edges"])
    )  # fmt: skip
    start = payload["start"]
    layout = lay_out(graph, start)
    image = Image.new("RGB", (layout.width, layout.height), "white")
    pen = ImageDraw.Draw(image)
    for _, points in layout.lines:
        pen.line(points, fill="#999999", width=1)
        x, y = points[-1]
        pen.polygon([(x, y), (x - 6, y - 3), (x - 6, y + 3)], fill="#777777")
    for name, box in layout.boxes.items():
        frame = [(box.x, box.y), (box.x + WIDE, box.y + HIGH)]
        pen.rectangle(frame, fill=_COLOURS[box.node.kind], outline="#555555", width=3 if name in start else 1)
        pen.text((box.x + 7, box.y + 5), _ascii(node_label(box.node)), fill="#666666")
        pen.text((box.x + 7, box.y + 21), _ascii(short_name(box.node.name)), fill="black")
    if layout.left_out:
        pen.text((_MARGIN, 4), f"and {layout.left_out} more", fill="#aa0000")
    image.save("lineage.png")
    return {"file": "lineage.png"}


def payload(graph: Graph, start: Sequence[str]) -> DrawRequest:
    """What `draw` is asked with: the nodes that it may show."""
    shown = graph.nearest(start, 4 * MOST)
    return {"nodes": [list(node) for node in shown.nodes.values()], "edges": [list(edge) for edge in shown.edges],
            "start": list(start)}  # fmt: skip


def _layers(graph: Graph) -> dict[str, int]:
    """The longest way to each node; circles, which lineage has none of, would be cut."""
    sources: dict[str, list[str]] = {}
    for edge in graph.edges:
        sources.setdefault(edge.target, []).append(edge.source)
    found: dict[str, int] = {}

    def depth(name: str, trail: frozenset[str]) -> int:
        if name not in found:
            before = [depth(each, trail | {name}) for each in sources.get(name, []) if each not in trail | {name}]
            found[name] = 1 + max(before, default=-1)
        return found[name]

    for name in graph.nodes:
        depth(name, frozenset())
    for edge in graph.edges:  # what came from nothing stands beside the first that came of it
        if edge.source not in sources:
            targets = [found[each.target] for each in graph.edges if each.source == edge.source]
            found[edge.source] = max(0, min(targets) - 1)
    return found


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def node_label(node: Node) -> str:
    first = next((str(value) for value in node.facts.values() if isinstance(value, str | int)), None)
    return short_name(node.kind if first is None else f"{node.kind}: {first}")


def short_name(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 11]}...{text[-8:]}"


def _ascii(text: str) -> str:
    """Pillow's own font knows no more."""
    return text.encode("ascii", "replace").decode()
