// A protein.
import { canvas, turning } from "./viewers.js";

export function show(at, data) { // the trace of alpha carbons as a tube, from blue to red; the far end first
  const [count] = new Uint32Array(data, 0, 1), xyz = new Float32Array(data, 4, count * 3), chain = new Uint8Array(data, 4 + count * 12, count);
  const made = canvas(at, `Structure of ${count} residues; drag or arrow keys turn it`), g = made.getContext("2d");
  turning(at, made, (view) => {
    g.clearRect(0, 0, made.width, made.height); g.lineCap = "round";
    const s = Math.min(made.width, made.height) * .42 * view.zoom, [sa, ca, sb, cb] = [Math.sin(view.a), Math.cos(view.a), Math.sin(view.b), Math.cos(view.b)];
    const place = (i) => { const [x, y, z] = xyz.subarray(3 * i, 3 * i + 3), q = x * ca + z * sa, r = z * ca - x * sa; return [made.width / 2 + s * q, made.height / 2 - s * (y * cb - r * sb), r * cb + y * sb]; };
    const pieces = [];
    for (let i = 0; i + 1 < count; i++) if (chain[i] === chain[i + 1]) pieces.push([place(i), place(i + 1), i / count]);
    pieces.sort((p, q) => p[0][2] - q[0][2]);
    for (const [p, q, share] of pieces) { g.strokeStyle = `hsl(${230 - 220 * share} 70% ${48 + 18 * p[2]}%)`; g.beginPath(); g.lineWidth = s / 24 * (1 + .3 * p[2]); g.moveTo(p[0], p[1]); g.lineTo(q[0], q[1]); g.stroke(); }
  });
}
