"""A graph of lineage as a picture: what was first stands left, what came of it right. Pure; PNG needs Pillow.

Layers are by the longest way from where nothing came before; within a layer, nodes stand near what they came from
(barycentre of Sugiyama, Tagawa and Toda 1981, one pass). Large graphs show the nodes nearest to the start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from speciate.production.lineage import Edge, Graph, Node

MOST = 60
"""Nodes of a picture; who wants more reads the text."""
_WIDE, _HIGH, _ACROSS, _DOWN, _MARGIN = 190, 40, 70, 16, 20
_LONGEST = 28
_COLOURS = {
    "dataset": "#d6e9f8", "model": "#d9f2d9", "base": "#eef7e4", "job": "#f1f1f1", "code": "#e8e4f3",
    "evaluation": "#fff3cf", "decision": "#ffe3c2", "move": "#fbd5d5", "approval": "#fce4f0", "person": "#f6eee3",
    "answer": "#cdeeea", "answers": "#cdeeea",
}  # fmt: skip


class Box(NamedTuple):
    node: Node
    x: int
    y: int


class Laid(NamedTuple):
    boxes: dict[str, Box]
    edges: tuple[Edge, ...]
    width: int
    height: int
    left_out: int
    """Nodes that are not shown."""


def lay_out(graph: Graph, start: Sequence[str], most: int = MOST) -> Laid:
    shown = graph.nearest(start, most)
    layers: dict[int, list[str]] = {}
    for name, layer in _layers(shown).items():
        layers.setdefault(layer, []).append(name)
    sources: dict[str, list[str]] = {}
    for edge in shown.edges:
        sources.setdefault(edge.target, []).append(edge.source)
    place: dict[str, float] = {}
    boxes: dict[str, Box] = {}
    for layer, names in sorted(layers.items()):
        names.sort(key=lambda name: (_mean(place[each] for each in sources.get(name, []) if each in place), name))
        for row, name in enumerate(names):
            place[name] = float(row)
            boxes[name] = Box(shown.nodes[name], _MARGIN + layer * (_WIDE + _ACROSS), _MARGIN + row * (_HIGH + _DOWN))
    right = max((box.x for box in boxes.values()), default=0) + _WIDE + _MARGIN
    below = max((box.y for box in boxes.values()), default=0) + _HIGH + _MARGIN
    return Laid(boxes, shown.edges, right, below, len(graph.nodes) - len(boxes))


def svg(graph: Graph, start: Sequence[str]) -> str:
    """As one SVG file without scripts; every text of it is escaped."""
    laid = lay_out(graph, start)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{laid.width}" height="{laid.height}" '
        f'viewBox="0 0 {laid.width} {laid.height}" font-family="sans-serif" font-size="11">',
        f"<title>{escape(', '.join(start))}: what came from what</title>",
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="3" orient="auto">'
        '<path d="M0,0 L7,3 L0,6 z" fill="#777"/></marker></defs>',
    ]
    for edge in laid.edges:
        one, other = laid.boxes[edge.source], laid.boxes[edge.target]
        x1, y1, x2, y2 = one.x + _WIDE, one.y + _HIGH // 2, other.x, other.y + _HIGH // 2
        bend = max(30, (x2 - x1) // 2)
        lines.append(
            f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}" fill="none" stroke="#777" '
            f'marker-end="url(#tip)"><title>{escape(edge.how)}</title></path>'
        )
    for name, box in laid.boxes.items():
        heavy = ' stroke-width="2.5"' if name in start else ""
        facts = "; ".join(f"{key} {value}" for key, value in box.node.facts.items())
        lines.append(
            f'<g><title>{escape(f"{name} {facts}".strip())}</title><rect x="{box.x}" y="{box.y}" width="{_WIDE}" '
            f'height="{_HIGH}" rx="5" fill="{_COLOURS[box.node.kind]}" stroke="#555"{heavy}/>'
            f'<text x="{box.x + 8}" y="{box.y + 15}" fill="#666">{escape(_about(box.node))}</text>'
            f'<text x="{box.x + 8}" y="{box.y + 31}">{escape(_short(box.node.name))}</text></g>'
        )
    if laid.left_out:
        lines.append(f'<text x="{_MARGIN}" y="14" fill="#a00">and {laid.left_out} more</text>')
    return "\n".join([*lines, "</svg>", ""])


def draw(payload: dict[str, Any]) -> dict[str, Any]:
    """{nodes, edges, start} -> {file}: the same as a PNG. Runs in a service process."""
    from PIL import Image, ImageDraw

    graph = Graph(
        {each[0]: Node(*each) for each in payload["nodes"]}, tuple(Edge(*each) for each in payload["edges"])
    )  # fmt: skip
    start = payload["start"]
    laid = lay_out(graph, start)
    picture = Image.new("RGB", (laid.width, laid.height), "white")
    pen = ImageDraw.Draw(picture)
    for edge in laid.edges:
        one, other = laid.boxes[edge.source], laid.boxes[edge.target]
        end = (other.x, other.y + _HIGH // 2)
        pen.line([(one.x + _WIDE, one.y + _HIGH // 2), end], fill="#999999", width=1)
        pen.polygon([end, (end[0] - 6, end[1] - 3), (end[0] - 6, end[1] + 3)], fill="#777777")
    for name, box in laid.boxes.items():
        frame = [(box.x, box.y), (box.x + _WIDE, box.y + _HIGH)]
        pen.rectangle(frame, fill=_COLOURS[box.node.kind], outline="#555555", width=3 if name in start else 1)
        pen.text((box.x + 7, box.y + 5), _ascii(_about(box.node)), fill="#666666")
        pen.text((box.x + 7, box.y + 21), _ascii(_short(box.node.name)), fill="black")
    if laid.left_out:
        pen.text((_MARGIN, 4), f"and {laid.left_out} more", fill="#aa0000")
    picture.save("lineage.png")
    return {"file": "lineage.png"}


def payload(graph: Graph, start: Sequence[str]) -> dict[str, Any]:
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
    return found


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed) if listed else 0.0


def _about(node: Node) -> str:
    first = next((f"{key} {value}" for key, value in node.facts.items() if isinstance(value, str | int)), "")
    return _short(f"{node.kind} {first}".strip())


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 11]}...{text[-8:]}"


def _ascii(text: str) -> str:
    """Pillow's own font knows no more."""
    return text.encode("ascii", "replace").decode()


__all__ = ["Laid", "draw", "lay_out", "payload", "svg"]
