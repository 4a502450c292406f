// The slices of a volume below its mask, one at a time, with window and level as the viewer has them.
import { bound, elsewhere } from "./classes.js";
import { paint, read } from "./voxels.js";
const $ = (name) => document.getElementById(name);

// `at`: goes to a slice where it may, and says which one is seen. Returns how to go to another.
export async function slices(area, at) {
  const answer = await fetch(area.dataset.src);
  if (!answer.ok) throw new Error(await answer.text());
  const { size: [deep, high, wide], mm, low, high: most, centre, width, voxels } = read(await answer.arrayBuffer()), range = most - low || 1;
  const under = area.querySelector("canvas.under"), pen = under.getContext("2d"), image = pen.createImageData(wide, high);
  under.width = wide; under.height = high;
  area.style.setProperty("--ratio", wide * mm[2] / (high * mm[1]));
  $("window").value = width / range; $("level").value = (centre - low) / range;
  const go = (wanted) => {
    const slice = at(wanted), span = Math.max(.001, Number($("window").value)), level = Number($("level").value);
    paint(image, voxels, slice * wide * high, 1, wide, level, span);
    pen.putImageData(image, 0, 0);
    $("slice").value = slice + 1;
    area.dataset.drawn = $("where").textContent = `axial ${slice + 1}/${deep}  window ${(span * range).toPrecision(4)}  level ${(low + level * range).toPrecision(4)}`;
  };
  const now = () => Number($("slice").value) - 1;
  for (const each of ["slice", "window", "level"]) $(each).addEventListener("input", () => go(now()));
  area.addEventListener("wheel", (event) => { if (!event.ctrlKey) { event.preventDefault(); go(now() + Math.sign(event.deltaY)); } }, { passive: false });
  document.addEventListener("keydown", (event) => {
    const by = { PageUp: 1, PageDown: -1 }[event.key];
    if (by && !elsewhere(event)) { event.preventDefault(); go(now() + by * (event.shiftKey ? 10 : 1)); }
  });
  area.addEventListener("pointermove", (event) => { // with Shift, a drag sets the window across and the level up
    if (!event.shiftKey || !event.buttons) return;
    $("window").value = bound(Number($("window").value) + event.movementX / 400, .001, 1); $("level").value = bound(Number($("level").value) - event.movementY / 400, 0, 1);
    go(now());
  });
  return go;
}
