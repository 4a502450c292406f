// Boxes with a class each.
import { ARROWS, bound, elsewhere, giveBy, names, onClass, place, press } from "./classes.js";
import { zoomable } from "./zoom.js";
const boxes = document.getElementById("boxes"), svg = boxes.querySelector("svg"), [, , wide, high] = svg.getAttribute("viewBox").split(" ").map(Number);
const made = JSON.parse(boxes.dataset.boxes), round = (x) => Math.round(x * 100) / 100;
const tag = (name, given) => { const each = document.createElementNS("http://www.w3.org/2000/svg", name); for (const key in given) each.setAttribute(key, given[key]); return each; };
let chosen = names[0], picked = -1, start = null, moved = null;
const show = () => svg.replaceChildren(...made.flatMap(({ label, box: [x, y, width, height] }, at) => {
  const rect = tag("rect", { x, y, width, height, tabindex: 0, role: "button", "data-place": at, "aria-pressed": at === picked, "aria-label": `${label}, ${Math.round(width)} by ${Math.round(height)} at ${Math.round(x)}, ${Math.round(y)}` });
  const corners = at === picked ? [[x, y], [x + width, y], [x, y + height], [x + width, y + height]].map(([cx, cy], corner) => tag("circle", { cx, cy, r: Math.max(wide, high) / 70, "data-corner": corner })) : [];
  const text = tag("text", { x: x + wide / 200, y: Math.max(y - high / 120, high / 28), "font-size": Math.max(wide, high) / 32 });
  text.textContent = label;
  return [rect, text, ...corners];
}));
const focus = () => svg.querySelector(`[data-place="${picked}"]`)?.focus();
const pick = (at) => { picked = at; chosen = made[at].label; press(chosen); show(); focus(); };
const inside = ([x, y, width, height]) => { // at least a pixel, and within the image
  const left = bound(x, 0, wide - 1), top = bound(y, 0, high - 1);
  return [left, top, bound(width, 1, wide - left), bound(height, 1, high - top)];
};
const across = ([ax, ay], [bx, by]) => [Math.min(ax, bx), Math.min(ay, by), Math.abs(ax - bx), Math.abs(ay - by)];
const point = (event) => place(event, svg, wide, high);
const add = (box) => { made.push({ label: chosen, box: inside(box) }); picked = made.length - 1; show(); focus(); };
svg.addEventListener("pointerdown", (event) => {
  if (!event.isPrimary) return;
  const { place: at, corner } = event.target.dataset;
  if (at !== undefined) pick(Number(at));
  if (at !== undefined || corner !== undefined) moved = { at: point(event), box: [...made[picked].box], corner: corner === undefined ? -1 : Number(corner) };
  else start = point(event);
  svg.setPointerCapture(event.pointerId);
  event.preventDefault();
});
svg.addEventListener("pointermove", (event) => { // a box is dragged to another place, a corner to another size
  if (!moved) return;
  const [x, y] = point(event), [left, top, width, height] = moved.box;
  if (moved.corner < 0) made[picked].box = [bound(left + x - moved.at[0], 0, wide - width), bound(top + y - moved.at[1], 0, high - height), width, height];
  else made[picked].box = inside(across([x, y], [moved.corner % 2 ? left : left + width, moved.corner > 1 ? top : top + height])); // the corner across stays
  show();
});
const drop = () => { start = moved = null; };
svg.addEventListener("pointercancel", drop);
svg.addEventListener("pointerup", (event) => {
  if (moved) focus();
  const box = start && across(point(event), start);
  drop();
  if (box && box[2] > wide / 100 && box[3] > high / 100) add(box);
});
svg.addEventListener("focusin", (event) => { const at = event.target.dataset.place; if (at !== undefined && Number(at) !== picked) pick(Number(at)); });
const remove = () => { if (made[picked]) { made.splice(picked, 1); picked = Math.min(picked, made.length - 1); show(); focus(); } };
document.getElementById("remove").addEventListener("click", remove);
document.addEventListener("keydown", (event) => {
  if (elsewhere(event)) return;
  const step = ARROWS[event.key];
  if (event.key === "n") add([wide * .375, high * .375, wide / 4, high / 4]);
  else if (made[picked] && step) {
    const by = [step[0] * wide / 100, step[1] * high / 100], [x, y, width, height] = made[picked].box;
    made[picked].box = inside(event.shiftKey ? [x, y, width + by[0], height + by[1]] : [x + by[0], y + by[1], width, height]);
    show(); focus();
  } else if (made[picked] && ["Delete", "Backspace"].includes(event.key)) remove();
  else return;
  event.preventDefault();
});
onClass((name) => { chosen = name; press(name); if (made[picked]) { made[picked].label = name; show(); focus(); } });
giveBy(() => made.map(({ label, box }) => ({ category: label, bbox: box.map(round) })));
zoomable(boxes, drop);
show();
