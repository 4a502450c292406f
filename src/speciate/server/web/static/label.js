// Labels that are lists: a tag for each word, or boxes with a class each. What is made stands in the form, which page.js sends.
const form = document.getElementById("own"), tags = document.getElementById("tags"), boxes = document.getElementById("boxes");
const classes = [...document.querySelectorAll("[data-class]")];
let chosen = classes[0]?.dataset.class;
const choose = (name) => {
  chosen = name;
  for (const each of classes) each.setAttribute("aria-pressed", each.dataset.class === name);
};
const keep = (label) => { form.elements.label.value = JSON.stringify(label); };

if (tags) {
  const words = [...tags.querySelectorAll("[role=option]")];
  let from = 0, to = 0, held = false;
  const show = () => words.forEach((each, place) => {
    each.setAttribute("aria-selected", place >= Math.min(from, to) && place <= Math.max(from, to));
    each.tabIndex = place === to ? 0 : -1;
  });
  const tell = () => keep(words.map((each) => each.dataset.tag));
  const name = (tag) => {
    for (const each of words.slice(Math.min(from, to), Math.max(from, to) + 1)) {
      each.dataset.tag = tag;
      each.querySelector("small").textContent = tag;
    }
    tell();
  };
  const at = (event) => words.indexOf(event.target.closest("[role=option]"));
  tags.addEventListener("pointerdown", (event) => { const place = at(event); if (place >= 0) { from = to = place; held = true; show(); words[place].focus(); event.preventDefault(); } });
  tags.addEventListener("pointermove", (event) => { // by what lies under it: a finger's events go to where it began
    const place = held ? words.indexOf(document.elementFromPoint(event.clientX, event.clientY)?.closest("[role=option]")) : -1;
    if (place >= 0 && place !== to) { to = place; show(); }
  });
  for (const kind of ["pointerup", "pointercancel"]) document.addEventListener(kind, () => { held = false; });
  tags.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    to = Math.max(0, Math.min(words.length - 1, to + step));
    if (!event.shiftKey) from = to;
    show();
    words[to].focus();
  });
  classes.forEach((each) => each.addEventListener("click", () => { choose(each.dataset.class); name(chosen); }));
  tell();
}

if (boxes) {
  const svg = boxes.querySelector("svg"), [, , wide, high] = svg.getAttribute("viewBox").split(" ").map(Number);
  const made = JSON.parse(boxes.dataset.boxes);
  const tag = (name, given) => { const each = document.createElementNS("http://www.w3.org/2000/svg", name); for (const key in given) each.setAttribute(key, given[key]); return each; };
  const round = (x) => Math.round(x * 100) / 100;
  let picked = -1, start = null, moved = null;
  const show = () => {
    svg.replaceChildren(...made.flatMap(({ label, box: [x, y, width, height] }, place) => {
      const rect = tag("rect", { x, y, width, height, tabindex: 0, role: "button", "data-place": place, "aria-pressed": place === picked, "aria-label": `${label}, ${Math.round(width)} by ${Math.round(height)} at ${Math.round(x)}, ${Math.round(y)}` });
      const corners = place === picked ? [[x, y], [x + width, y], [x, y + height], [x + width, y + height]].map(([cx, cy], corner) => tag("circle", { cx, cy, r: Math.max(wide, high) / 70, "data-corner": corner })) : [];
      const text = tag("text", { x: x + wide / 200, y: Math.max(y - high / 120, high / 28), "font-size": Math.max(wide, high) / 32 });
      text.textContent = label;
      return [rect, text, ...corners];
    }));
    keep(made.map(({ label, box }) => ({ category: label, bbox: box.map(round) })));
  };
  const focus = () => svg.querySelector(`[data-place="${picked}"]`)?.focus();
  const inside = ([x, y, width, height]) => { // at least a pixel, and within the image
    const left = Math.max(0, Math.min(wide - 1, x)), top = Math.max(0, Math.min(high - 1, y));
    return [left, top, Math.max(1, Math.min(width, wide - left)), Math.max(1, Math.min(height, high - top))];
  };
  const point = (event) => { const area = svg.getBoundingClientRect(); return [(event.clientX - area.left) / area.width * wide, (event.clientY - area.top) / area.height * high]; };
  const add = (box) => { made.push({ label: chosen, box: inside(box) }); picked = made.length - 1; show(); focus(); };
  svg.addEventListener("pointerdown", (event) => {
    const { place, corner } = event.target.dataset;
    if (place !== undefined) { picked = Number(place); choose(made[picked].label); show(); focus(); }
    if (place !== undefined || corner !== undefined) moved = { at: point(event), box: [...made[picked].box], corner: corner === undefined ? -1 : Number(corner) };
    else start = point(event);
    svg.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  svg.addEventListener("pointermove", (event) => { // a box is dragged to another place, a corner to another size
    if (!moved) return;
    const [x, y] = point(event), [left, top, width, height] = moved.box, by = [x - moved.at[0], y - moved.at[1]];
    if (moved.corner < 0) {
      made[picked].box = [Math.max(0, Math.min(wide - width, left + by[0])), Math.max(0, Math.min(high - height, top + by[1])), width, height];
    } else {
      const held = [moved.corner % 2 ? left : left + width, moved.corner > 1 ? top : top + height]; // the corner across stays
      made[picked].box = inside([Math.min(x, held[0]), Math.min(y, held[1]), Math.abs(x - held[0]), Math.abs(y - held[1])]);
    }
    show();
  });
  svg.addEventListener("pointercancel", () => { start = moved = null; });
  svg.addEventListener("pointerup", (event) => {
    if (moved) { moved = null; focus(); }
    if (!start) return;
    const [x, y] = point(event), box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.abs(x - start[0]), Math.abs(y - start[1])];
    start = null;
    if (box[2] > wide / 100 && box[3] > high / 100) add(box);
  });
  svg.addEventListener("focusin", (event) => { const place = event.target.dataset.place; if (place !== undefined && Number(place) !== picked) { picked = Number(place); choose(made[picked].label); show(); focus(); } });
  const remove = () => { if (made[picked]) { made.splice(picked, 1); picked = Math.min(picked, made.length - 1); show(); focus(); } };
  document.getElementById("remove").addEventListener("click", remove);
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "n") { add([wide * .375, high * .375, wide / 4, high / 4]); event.preventDefault(); return; }
    if (!made[picked]) return;
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    if (step) {
      const by = [step[0] * wide / 100, step[1] * high / 100], [x, y, width, height] = made[picked].box;
      made[picked].box = inside(event.shiftKey ? [x, y, width + by[0], height + by[1]] : [x + by[0], y + by[1], width, height]);
    } else if (event.key !== "Delete" && event.key !== "Backspace") return;
    event.preventDefault();
    if (!step) { remove(); return; }
    show();
    focus();
  });
  classes.forEach((each) => each.addEventListener("click", () => { choose(each.dataset.class); if (made[picked]) { made[picked].label = chosen; show(); focus(); } }));
  show();
}
