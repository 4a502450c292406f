import { canvas } from "./viewers.js";
import { paint, read } from "./voxels.js";

export function show(at, data) { // axial, coronal and sagittal side by side; the plane under the pointer scrolls; a drag sets window and level
  const { size, mm, low, high, centre, width, voxels } = read(data), [D, H, W] = size, stride = [H * W, W, 1], now = [D >> 1, H >> 1, W >> 1];
  const planes = [[2, 1, 0, false], [2, 0, 1, true], [1, 0, 2, true]]; // across, down, through, and whether down is turned: the head is up
  const made = canvas(at, `Volume of ${D} by ${H} by ${W} voxels; the wheel or arrow keys scroll, a drag sets window and level`), g = made.getContext("2d");
  const names = ["axial", "coronal", "sagittal"], seen = { centre, width };
  let under = 0;
  const draw = () => {
    g.clearRect(0, 0, made.width, made.height); g.font = `${12 * (devicePixelRatio || 1)}px system-ui`;
    planes.forEach(([a, b, through, turned], place) => {
      const w = size[a], h = size[b], image = new ImageData(w, h), from = now[through] * stride[through];
      paint(image, voxels, turned ? from + (h - 1) * stride[b] : from, stride[a], turned ? -stride[b] : stride[b], (seen.centre - low) / (high - low || 1), seen.width / (high - low || 1));
      const off = new OffscreenCanvas(w, h); off.getContext("2d").putImageData(image, 0, 0);
      const wide = made.width / 3 - 4, k = Math.min(wide / (w * mm[a]), made.height / (h * mm[b])), left = place * (wide + 6);
      g.drawImage(off, left + (wide - w * mm[a] * k) / 2, (made.height - h * mm[b] * k) / 2, w * mm[a] * k, h * mm[b] * k);
      g.fillStyle = place === under ? "#8ba6ff" : "#9aa2b1"; g.fillText(`${names[place]} ${now[through] + 1}/${size[through]}`, left + 8, 18 * (devicePixelRatio || 1));
    });
    g.fillStyle = "#9aa2b1"; g.fillText(`window ${seen.width.toPrecision(4)}  level ${seen.centre.toPrecision(4)}`, 8, made.height - 10);
    at.dataset.drawn = [...now, seen.width.toPrecision(4), seen.centre.toPrecision(4)].join();
  };
  const scroll = (by) => { const through = planes[under][2]; now[through] = Math.max(0, Math.min(size[through] - 1, now[through] + by)); draw(); };
  const point = (event) => { const place = Math.min(2, Math.max(0, Math.floor(3 * event.offsetX / made.clientWidth))); if (place !== under) { under = place; draw(); } };
  made.onpointerdown = (event) => { point(event); made.setPointerCapture(event.pointerId); };
  made.onpointermove = (event) => {
    if (!event.buttons) return point(event);
    seen.width = Math.max((high - low) / 1000, seen.width + event.movementX * (high - low) / 400); seen.centre -= event.movementY * (high - low) / 400; draw();
  };
  made.addEventListener("wheel", (event) => { event.preventDefault(); scroll(Math.sign(event.deltaY)); }, { passive: false });
  made.onkeydown = (event) => {
    const by = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (by) { event.preventDefault(); scroll(by); } else if (event.key === "ArrowRight" || event.key === "ArrowLeft") { under = (under + (event.key === "ArrowRight" ? 1 : 2)) % 3; draw(); }
  };
  draw();
}
