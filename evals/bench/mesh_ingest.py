"""Meshes judged as ingest does beside a bare loop over trimesh with the same checks: what it costs to be sure.

Both read the same bytes and say the same: counts, parts, closed or not, area, volume, extents, and a hash of the
triangles. `checked` of ours is that; `judge` adds the sketch that finds near-duplicates, which the loop has not. Parts
of six families in five formats, rounds interleaved in an order that turns; times of the processor, medians.

    python evals/bench/mesh_ingest.py [--parts 120] [--rounds 5]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh

from speciate.modalities.geometry.mesh import MESH

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.domains.machine_parts import FAMILIES, rough, turned
from tests.modalities.mesh_samples import exported

KINDS = ("stl", "obj", "ply", "off", "glb")


def files(count: int) -> list[tuple[str, bytes]]:
    """(format, bytes): a part has some thousand triangles, as those that are scanned or drawn have."""
    chance, names, made = np.random.default_rng(0), list(FAMILIES), []
    for place in range(count):
        part = rough(FAMILIES[names[place % len(names)]](chance), chance)
        while len(part.faces) < 4000:
            part = part.subdivide()
        kind = KINDS[place % len(KINDS)]
        made.append((kind, exported(turned(part, chance, chance.uniform(0.5, 2)), kind)))
    return made


def bare(kind: str, data: bytes) -> tuple[object, ...]:
    """What a careful loop over trimesh computes."""
    mesh = trimesh.load(io.BytesIO(data), file_type=kind, force="mesh", process=False)
    if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        raise ValueError("no mesh")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise ValueError("faces that point outside")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    closed = mesh.is_watertight
    corners = np.sort(np.round(mesh.triangles / max(mesh.extents) * 65536).astype(np.int64).reshape(-1, 9), axis=0)
    return (
        len(mesh.vertices), len(mesh.faces), mesh.body_count, closed, mesh.area, mesh.volume if closed else None,
        mesh.bounds.tolist(), hashlib.sha256(corners.tobytes()).hexdigest(),
    )  # fmt: skip


def checked(data: bytes) -> None:
    media = MESH.decode(data)
    MESH.inspect(data)
    MESH.measure(media)
    MESH.fingerprint(media)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    made = files(arguments.parts)
    arms: dict[str, Callable[[str, bytes], object]] = {
        "bare": bare, "checked": lambda kind, data: checked(data), "judge": lambda kind, data: MESH.judge(data),
    }  # fmt: skip
    for kind, data in made[:5]:  # imports
        for arm in arms.values():
            arm(kind, data)
    spent: dict[tuple[str, str], list[float]] = {}
    for number in range(arguments.rounds):
        order = list(arms)[number % 3 :] + list(arms)[: number % 3]
        for name in order:
            times = dict.fromkeys(KINDS, 0.0)
            for kind, data in made:
                began = time.process_time()
                arms[name](kind, data)
                times[kind] += time.process_time() - began
            for kind in KINDS:
                spent.setdefault((name, kind), []).append(times[kind])
            spent.setdefault((name, "all"), []).append(sum(times.values()))
    megabytes = sum(len(data) for _, data in made) / 1e6
    print(f"{len(made)} parts, {megabytes:.0f} MB, {arguments.rounds} rounds, load {os.getloadavg()[0]:.1f}")
    print("| | bare ms | checked ms | judge ms | bare / checked | bare / judge |\n|---|---|---|---|---|---|")
    for kind in (*KINDS, "all"):
        count = len(made) if kind == "all" else sum(one == kind for one, _ in made)
        each = {name: statistics.median(spent[name, kind]) / count * 1000 for name in arms}
        rates = [
            statistics.median(b / o for b, o in zip(spent["bare", kind], spent[name, kind], strict=True))
            for name in ("checked", "judge")
        ]
        print(
            f"| {kind} | "
            + " | ".join(f"{value:.1f}" for value in each.values())
            + f" | {rates[0]:.2f} | {rates[1]:.2f} |"
        )


if __name__ == "__main__":
    main()
