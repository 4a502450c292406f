// What the editors of the queue share: buttons of classes, keys, and the label, which queue.js sends.
import { $ } from "./page.js";
export { elsewhere } from "./page.js";
export const buttons = $("[data-class]"), names = buttons.map((each) => each.dataset.class);
export const press = (name) => buttons.forEach((each) => each.setAttribute("aria-pressed", each.dataset.class === name));
export const onClass = (act) => buttons.forEach((each) => each.addEventListener("click", () => act(each.dataset.class)));
export const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
export const bound = (value, least, most) => Math.max(least, Math.min(most, value));
// Where a pointer is on an element, in the units of what it shows.
export const place = (event, element, wide, high) => { const box = element.getBoundingClientRect(); return [(event.clientX - box.left) / box.width * wide, (event.clientY - box.top) / box.height * high]; };
// `make`: the label as it is now, once it is given.
export const giveBy = (make) => { document.getElementById("own").made = make; };
