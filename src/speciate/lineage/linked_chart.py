"""A lineage graph as a chart of a page: inline SVG whose boxes are links, in the colours of the page's classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from speciate.evaluation.pages.inline_charts import join, svg, tag
from speciate.lineage import chart
from speciate.lineage.graph import Graph, Node


def linked_chart(graph: Graph, start: Sequence[str], page_of: Callable[[Node], str | None]) -> Markup:
    """What came from what, origins at the left; a box leads to the page of what it names, if it has one."""
    layout = chart.lay_out(graph, start)
    lines = [tag("path", tag("title", edge.how), d=chart.curve(points)) for edge, points in layout.lines]
    boxes = []
    for name, box in layout.boxes.items():
        facts = "; ".join(f"{key} {value}" for key, value in box.node.facts.items())
        drawn = join([
            tag("title", f"{name} {facts}".strip()),
            tag("rect", x=box.x, y=box.y, width=chart.WIDE, height=chart.HIGH, rx=8),
            tag("text", chart.node_label(box.node), x=box.x + 10, y=box.y + 15, class_="kind"),
            tag("text", chart.short_name(box.node.name), x=box.x + 10, y=box.y + 31),
        ])  # fmt: skip
        href = page_of(box.node)
        inside = tag("a", drawn, href=href) if href and name not in start else drawn
        boxes.append(tag("g", inside, class_=f"node {box.node.kind}{' start' if name in start else ''}"))
    told = f"{len(layout.boxes)} things that {', '.join(start)} came from or led to; the same as text is below"
    return svg([*lines, *boxes], layout.width, layout.height, told, role="group")
