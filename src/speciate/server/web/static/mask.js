// A mask: a class for each pixel, painted and corrected with a brush by mouse, pen, finger or keys. It begins with the model's
// own answer. What is made stands in the form as a dataset has it: a class with COCO's run lengths each.
const form = document.getElementById("own"), area = document.getElementById("mask"), canvas = area.querySelector("canvas");
const [wide, high] = area.dataset.size.split(",").map(Number), begins = JSON.parse(area.dataset.mask);
const buttons = [...document.querySelectorAll("[data-class]")], names = buttons.map((each) => each.dataset.class);
const HUES = [[52, 120, 246], [245, 130, 32], [46, 174, 92], [226, 62, 87], [150, 86, 220], [0, 168, 181], [232, 190, 30], [214, 80, 178]];
const hue = (code) => HUES[(code - 1) % HUES.length];
const KEPT = Math.max(4, Math.min(60, Math.floor(96e6 / (wide * high))));
let pixels = new Uint8Array(wide * high), code = 1, erases = false, size = Math.max(2, Math.round(Math.max(wide, high) / 24));
let last = null, at = [wide / 2, high / 2], hidden = false, keys = false;
const before = [];

for (const name of begins.labels) if (!names.includes(name)) names.push(name); // of a class that no button has
{
  const [tall, across] = begins.size, runs = begins.rle, small = new Uint8Array(tall * across);
  const codes = begins.labels.map((name) => names.indexOf(name) + 1);
  for (let i = 0, place = 0; i < runs.length; i += 2) { small.fill(runs[i] ? codes[runs[i] - 1] : 0, place, place + runs[i + 1]); place += runs[i + 1]; }
  for (let y = 0; y < high && small.length; y++) {
    const row = Math.min(tall - 1, Math.floor((y + .5) * tall / high)) * across;
    for (let x = 0; x < wide; x++) pixels[y * wide + x] = small[row + Math.min(across - 1, Math.floor((x + .5) * across / wide))];
  }
}

canvas.width = wide; canvas.height = high;
const pen = canvas.getContext("2d"), shown = pen.createImageData(wide, high);
function draw(left = 0, top = 0, right = wide, bottom = high) { // within these bounds alone
  for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) {
    const place = y * wide + x, one = pixels[place], to = 4 * place;
    if (one && !hidden) { const [r, g, b] = hue(one); shown.data[to] = r; shown.data[to + 1] = g; shown.data[to + 2] = b; shown.data[to + 3] = 130; } else shown.data[to + 3] = 0;
  }
  pen.putImageData(shown, 0, 0, left, top, right - left, bottom - top);
  if (keys) { pen.strokeStyle = "#fff"; pen.lineWidth = Math.max(1, wide / 300); pen.beginPath(); pen.arc(...at, size / 2, 0, 7); pen.stroke(); }
}

// COCO's run lengths: column by column, outside first; each the difference to the one two before, five bits a character.
function packed(code) {
  const counts = [];
  let inside = 0, length = 0;
  for (let x = 0; x < wide; x++) for (let y = 0; y < high; y++) {
    const now = pixels[y * wide + x] === code ? 1 : 0;
    if (now === inside) length++; else { counts.push(length); inside = now; length = 1; }
  }
  counts.push(length);
  let text = "";
  counts.forEach((count, i) => {
    let value = i > 2 ? count - counts[i - 2] : count;
    for (let more = true; more;) {
      const five = value & 31;
      value >>= 5;
      more = five & 16 ? value !== -1 : value !== 0;
      text += String.fromCharCode((more ? five | 32 : five) + 48);
    }
  });
  return { size: [high, wide], counts: text };
}
function keep() {
  const many = new Uint32Array(names.length + 1);
  for (const one of pixels) many[one]++;
  const there = names.map((name, i) => [name, i + 1]).filter(([, one]) => many[one]);
  form.elements.label.value = JSON.stringify(there.map(([category, one]) => ({ category, segmentation: packed(one) })));
  const share = (one) => `${(100 * many[one] / pixels.length).toPrecision(2).replace(/\.0$/, "")} %`;
  document.getElementById("covers").textContent = there.length ? there.map(([name, one]) => `${name} ${share(one)}`).join(" · ") : "Nothing is marked.";
  document.getElementById("unpaint").disabled = !before.length;
}

function begin() { before.push(pixels.slice()); if (before.length > KEPT) before.shift(); }
function dab([x, y], [ox, oy]) { // a disc along the line from where the brush was
  const radius = size / 2, steps = Math.max(1, Math.ceil(Math.hypot(x - ox, y - oy) / Math.max(.5, radius / 2))), ink = erases ? 0 : code;
  const top = Math.max(0, Math.floor(Math.min(y, oy) - radius)), bottom = Math.min(high, Math.ceil(Math.max(y, oy) + radius) + 1);
  const left = Math.max(0, Math.floor(Math.min(x, ox) - radius)), right = Math.min(wide, Math.ceil(Math.max(x, ox) + radius) + 1);
  for (let step = 0; step <= steps; step++) {
    const cx = ox + (x - ox) * step / steps, cy = oy + (y - oy) * step / steps;
    for (let py = Math.max(top, Math.floor(cy - radius)); py < Math.min(bottom, cy + radius); py++)
      for (let px = Math.max(left, Math.floor(cx - radius)); px < Math.min(right, cx + radius); px++)
        if ((px + .5 - cx) ** 2 + (py + .5 - cy) ** 2 <= radius ** 2 || (px === Math.floor(cx) && py === Math.floor(cy))) pixels[py * wide + px] = ink;
  }
  if (keys) draw(); else draw(left, top, right, bottom);
}
const point = (event) => { const box = canvas.getBoundingClientRect(); return [(event.clientX - box.left) / box.width * wide, (event.clientY - box.top) / box.height * high]; };
canvas.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary || event.button > 0) return;
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
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { if (last) { last = null; keep(); } });

const brush = document.getElementById("brush"), eraser = document.getElementById("eraser"), hide = document.getElementById("hide"), slider = document.getElementById("size");
function press() {
  brush.setAttribute("aria-pressed", !erases); eraser.setAttribute("aria-pressed", erases); hide.setAttribute("aria-pressed", hidden);
  buttons.forEach((each, i) => each.setAttribute("aria-pressed", !erases && i + 1 === code));
}
const sized = (wanted) => { size = Math.max(1, Math.min(Number(slider.max), Math.round(wanted))); slider.value = size; if (keys) draw(); };
slider.max = Math.round(Math.max(wide, high) / 3); sized(size);
slider.addEventListener("input", () => sized(Number(slider.value)));
brush.addEventListener("click", () => { erases = false; press(); });
eraser.addEventListener("click", () => { erases = true; press(); });
hide.addEventListener("click", () => { hidden = !hidden; press(); draw(); });
document.getElementById("unpaint").addEventListener("click", () => { const old = before.pop(); if (old) { pixels = old; draw(); keep(); } });
buttons.forEach((each, i) => {
  const mark = document.createElement("canvas"); // its colour: a style of an element is refused by the policy
  mark.width = mark.height = 12; mark.className = "hue";
  const ink = mark.getContext("2d"); ink.fillStyle = `rgb(${hue(i + 1)})`; ink.fillRect(0, 0, 12, 12);
  each.append(mark);
  each.addEventListener("click", () => { code = i + 1; erases = false; press(); });
});
canvas.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (!step && event.key !== " ") return;
  event.preventDefault();
  const old = at;
  keys = true;
  if (step) at = [Math.max(0, Math.min(wide - 1, at[0] + step[0] * Math.max(1, size / 2))), Math.max(0, Math.min(high - 1, at[1] + step[1] * Math.max(1, size / 2)))];
  if (event.key === " " || event.shiftKey) { if (!event.repeat) begin(); dab(at, event.key === " " ? at : old); keep(); } else draw();
});
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input:not([type=range]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "[") sized(size / 1.25 - .5); else if (event.key === "]") sized(size * 1.25 + .5);
});
press(); draw(); keep();
