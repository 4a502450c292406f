// A class for each pixel of an image, or voxel of a volume, slice by slice; it begins with the model's own answer. What is
// given is what a dataset has (modalities/segmentation_masks.py).
import { ARROWS, bound, buttons, elsewhere, giveBy, names, onClass, place } from "./classes.js";
import { zoomable } from "./zoom.js";
const $ = (name) => document.getElementById(name), area = $("mask"), canvas = area.querySelector("canvas.on");
const [wide, high, deep] = area.dataset.size.split(",").map(Number), begins = JSON.parse(area.dataset.mask), plane = wide * high;
const HUES = [[52, 120, 246], [245, 130, 32], [46, 174, 92], [226, 62, 87], [150, 86, 220], [0, 168, 181], [232, 190, 30], [214, 80, 178]];
const hue = (code) => HUES[(code - 1) % HUES.length];
const KEPT = bound(Math.floor(96e6 / plane), 4, 60), pixels = new Uint8Array(plane * deep), before = [];
let code = 1, erases = false, size = Math.max(2, Math.round(Math.max(wide, high) / 24)), slice = deep >> 1;
let last = null, at = [wide / 2, high / 2], hidden = false, keys = false;
const seen = () => pixels.subarray(slice * plane, (slice + 1) * plane);

for (const name of begins.labels) if (!names.includes(name)) names.push(name); // of a class that no button has
if (begins.rle.length) { // the model's own, stretched: each place as the one that its centre lies in
  const [thick, tall, across] = begins.size.length > 2 ? begins.size : [1, ...begins.size], small = new Uint8Array(thick * tall * across);
  const codes = begins.labels.map((name) => names.indexOf(name) + 1), nearest = (i, now, then) => Math.min(then - 1, Math.floor((i + .5) * then / now));
  for (let i = 0, to = 0; i < begins.rle.length; i += 2) { small.fill(begins.rle[i] ? codes[begins.rle[i] - 1] : 0, to, to + begins.rle[i + 1]); to += begins.rle[i + 1]; }
  const columns = Array.from({ length: wide }, (_, x) => nearest(x, wide, across));
  for (let z = 0, to = 0; z < deep; z++) for (let y = 0; y < high; y++) {
    const row = (nearest(z, deep, thick) * tall + nearest(y, high, tall)) * across;
    for (let x = 0; x < wide; x++) pixels[to++] = small[row + columns[x]];
  }
}
const many = new Uint32Array(names.length + 1);
const count = (by) => { for (const one of seen()) many[one] += by; };
for (const one of pixels) many[one]++;

canvas.width = wide; canvas.height = high;
const pen = canvas.getContext("2d"), shown = pen.createImageData(wide, high);
function draw(left = 0, top = 0, right = wide, bottom = high) { // within these bounds alone
  const now = seen();
  for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) {
    const one = now[y * wide + x], to = 4 * (y * wide + x);
    if (one && !hidden) { const [r, g, b] = hue(one); shown.data[to] = r; shown.data[to + 1] = g; shown.data[to + 2] = b; shown.data[to + 3] = 130; } else shown.data[to + 3] = 0;
  }
  pen.putImageData(shown, 0, 0, left, top, right - left, bottom - top);
  if (keys) { pen.strokeStyle = "#fff"; pen.lineWidth = Math.max(1, wide / 300); pen.beginPath(); pen.arc(...at, size / 2, 0, 7); pen.stroke(); }
}
function tell() {
  const there = names.flatMap((name, i) => many[i + 1] ? [`${name} ${(100 * many[i + 1] / pixels.length).toPrecision(2).replace(/\.0$/, "")} %`] : []);
  $("covers").textContent = there.join(" · ") || "Nothing is marked.";
  $("unpaint").disabled = !before.length;
}

// COCO's run lengths: column by column, outside first; each the difference to the one two before, five bits a character.
function packed(wanted) {
  const counts = [];
  let inside = 0, length = 0;
  for (let x = 0; x < wide; x++) for (let y = 0; y < high; y++) {
    const now = pixels[y * wide + x] === wanted ? 1 : 0;
    if (now === inside) length++; else { counts.push(length); inside = now; length = 1; }
  }
  counts.push(length);
  let text = "";
  counts.forEach((one, i) => {
    let value = i > 2 ? one - counts[i - 2] : one;
    for (let more = true; more;) {
      const five = value & 31;
      value >>= 5;
      more = five & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? five | 32 : five) + 48);
    }
  });
  return { size: [high, wide], counts: text };
}
async function ofVolume(there) { // places of labels and how many voxels have each
  const labels = names.filter((_, i) => there.has(i + 1)), places = [0, ...names.map((name) => labels.indexOf(name) + 1)], runs = [];
  for (let i = 0, begun = 0; i < pixels.length; i++) if (i + 1 === pixels.length || pixels[i + 1] !== pixels[i]) { runs.push(places[pixels[i]], i + 1 - begun); begun = i + 1; }
  const zipped = new Blob([new Int32Array(runs)]).stream().pipeThrough(new CompressionStream("deflate"));
  let text = "";
  for (const byte of new Uint8Array(await new Response(zipped).arrayBuffer())) text += String.fromCharCode(byte);
  return JSON.stringify({ labels, size: [deep, high, wide], runs: btoa(text) });
}
giveBy(() => {
  if (last) end(); // a stroke, which the label has
  const there = new Set(pixels);
  return "src" in area.dataset ? ofVolume(there) : names.flatMap((category, i) => there.has(i + 1) ? [{ category, segmentation: packed(i + 1) }] : []);
});

let go = () => {}; // to a slice
const begin = () => { if (last) end(); before.push([slice, seen().slice()]); if (before.length > KEPT) before.shift(); count(-1); };
const end = () => { last = null; count(1); tell(); };
function back() {
  const [there, old] = before.pop();
  go(there);
  count(-1); seen().set(old); count(1);
  draw(); tell();
}
const drop = () => { if (last) { end(); back(); } };
function dab([x, y], [ox, oy]) { // a disc along the line from where the brush was
  const now = seen(), radius = size / 2, steps = Math.max(1, Math.ceil(Math.hypot(x - ox, y - oy) / Math.max(.5, radius / 2))), ink = erases ? 0 : code;
  const top = Math.max(0, Math.floor(Math.min(y, oy) - radius)), bottom = Math.min(high, Math.ceil(Math.max(y, oy) + radius) + 1);
  const left = Math.max(0, Math.floor(Math.min(x, ox) - radius)), right = Math.min(wide, Math.ceil(Math.max(x, ox) + radius) + 1);
  for (let step = 0; step <= steps; step++) {
    const cx = ox + (x - ox) * step / steps, cy = oy + (y - oy) * step / steps;
    for (let py = Math.max(top, Math.floor(cy - radius)); py < Math.min(bottom, cy + radius); py++)
      for (let px = Math.max(left, Math.floor(cx - radius)); px < Math.min(right, cx + radius); px++)
        if ((px + .5 - cx) ** 2 + (py + .5 - cy) ** 2 <= radius ** 2 || (px === Math.floor(cx) && py === Math.floor(cy))) now[py * wide + px] = ink;
  }
  if (keys) draw(); else draw(left, top, right, bottom);
}
const point = (event) => place(event, canvas, wide, high);
canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button > 0 || event.shiftKey) return;
  event.preventDefault(); // which would take the focus, too
  canvas.focus({ preventScroll: true });
  if (keys || hidden) { keys = hidden = false; press(); draw(); }
  canvas.setPointerCapture(event.pointerId);
  begin(); last = point(event); dab(last, last);
});
canvas.addEventListener("pointermove", (event) => {
  if (!last || !event.isPrimary) return;
  for (const each of event.getCoalescedEvents?.() ?? [event]) { const next = point(each); dab(next, last); last = next; }
});
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { if (last) end(); });

const slider = $("size");
function press() {
  $("brush").setAttribute("aria-pressed", !erases); $("eraser").setAttribute("aria-pressed", erases); $("hide").setAttribute("aria-pressed", hidden);
  buttons.forEach((each, i) => each.setAttribute("aria-pressed", !erases && i + 1 === code));
}
const sized = (wanted) => { size = bound(Math.round(wanted), 1, Number(slider.max)); slider.value = size; if (keys) draw(); };
slider.max = Math.round(Math.max(wide, high) / 3); sized(size);
slider.addEventListener("input", () => sized(Number(slider.value)));
$("brush").addEventListener("click", () => { erases = false; press(); });
$("eraser").addEventListener("click", () => { erases = true; press(); });
$("hide").addEventListener("click", () => { hidden = !hidden; press(); draw(); });
$("unpaint").addEventListener("click", () => { if (before.length && !last) back(); });
buttons.forEach((each, i) => {
  const mark = document.createElement("canvas"); // its colour
  mark.width = mark.height = 12; mark.className = "hue";
  const ink = mark.getContext("2d"); ink.fillStyle = `rgb(${hue(i + 1)})`; ink.fillRect(0, 0, 12, 12);
  each.append(mark);
});
onClass((name) => { code = names.indexOf(name) + 1; erases = false; press(); });
canvas.addEventListener("keydown", (event) => {
  const step = ARROWS[event.key];
  if (elsewhere(event) || (!step && event.key !== " ")) return;
  event.preventDefault();
  if (last) return;
  const old = at, by = Math.max(1, size / 2);
  keys = true;
  if (step) at = [bound(at[0] + step[0] * by, 0, wide - 1), bound(at[1] + step[1] * by, 0, high - 1)];
  if (event.key !== " " && !event.shiftKey) { draw(); return; }
  if (event.repeat) count(-1); else begin(); // a key that is held down is one stroke
  dab(at, event.key === " " ? at : old); end();
});
document.addEventListener("keydown", (event) => {
  if (elsewhere(event)) return;
  if (event.key === "[") sized(size / 1.25 - .5); else if (event.key === "]") sized(size * 1.25 + .5);
});

if ("src" in area.dataset) import("./slices.js").then(({ slices }) => slices(area, (wanted) => { if (!last) { slice = bound(wanted, 0, deep - 1); draw(); } return slice; })).then((show) => { go = show; go(slice); }).catch((error) => { $("where").textContent = `Not shown: ${error.message}`; });
zoomable(area, drop);
press(); draw(); tell();
