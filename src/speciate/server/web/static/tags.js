// A tag for each word.
import { ARROWS, bound, giveBy, onClass, press } from "./classes.js";
const tags = document.getElementById("tags"), words = [...tags.querySelectorAll("[role=option]")];
let from = 0, to = 0, held = false;
const marked = () => words.slice(Math.min(from, to), Math.max(from, to) + 1);
const show = () => words.forEach((each, at) => {
  each.setAttribute("aria-selected", marked().includes(each));
  each.tabIndex = at === to ? 0 : -1;
});
const under = (element) => words.indexOf(element?.closest("[role=option]"));
tags.addEventListener("pointerdown", (event) => {
  const at = under(event.target);
  if (at < 0) return;
  from = to = at; held = true;
  show(); words[at].focus(); event.preventDefault();
});
tags.addEventListener("pointermove", (event) => { // by what lies under it: a finger's events go to where it began
  const at = held ? under(document.elementFromPoint(event.clientX, event.clientY)) : -1;
  if (at >= 0 && at !== to) { to = at; show(); }
});
for (const kind of ["pointerup", "pointercancel"]) document.addEventListener(kind, () => { held = false; });
tags.addEventListener("keydown", (event) => {
  if (!ARROWS[event.key]) return;
  event.preventDefault();
  to = bound(to + ARROWS[event.key][0] + ARROWS[event.key][1], 0, words.length - 1);
  if (!event.shiftKey) from = to;
  show();
  words[to].focus();
});
onClass((name) => {
  press(name);
  for (const each of marked()) { each.dataset.tag = name; each.querySelector("small").textContent = name; }
});
giveBy(() => words.map((each) => each.dataset.tag));
