// Zoom of what is drawn upon: by keys, buttons, the wheel with Ctrl, or two fingers, about the place that is pointed at.
import { bound, elsewhere } from "./classes.js";
const MOST = 16;

// `boxes`: the image with what lies on it, in an element that scrolls. `drop`: forget a stroke that became two fingers.
export function zoomable(boxes, drop) {
  const sheet = boxes.parentElement, fingers = new Map();
  let zoom = 1, base = 0, apart = 0, middle = [0, 0];
  const zoomTo = (wanted, [x, y]) => {
    if (zoom === 1) base = boxes.clientWidth;
    const was = boxes.getBoundingClientRect(), across = (x - was.left) / was.width, down = (y - was.top) / was.height;
    zoom = bound(wanted, 1, MOST);
    boxes.classList.toggle("zoomed", zoom > 1);
    boxes.style.width = zoom > 1 ? `${base * zoom}px` : "";
    const is = boxes.getBoundingClientRect();
    sheet.scrollLeft += is.left + across * is.width - x;
    sheet.scrollTop += is.top + down * is.height - y;
    boxes.dataset.zoom = zoom.toFixed(2);
  };
  const centre = () => { const { left, top, width, height } = sheet.getBoundingClientRect(); return [left + width / 2, top + height / 2]; };
  const act = { "+": () => zoomTo(zoom * 1.5, centre()), "-": () => zoomTo(zoom / 1.5, centre()), "0": () => zoomTo(1, centre()) };
  document.querySelectorAll("[data-zoom-by]").forEach((each) => each.addEventListener("click", () => act[each.dataset.zoomBy]()));
  document.addEventListener("keydown", (event) => { if (act[event.key] && !elsewhere(event)) { event.preventDefault(); act[event.key](); } });
  sheet.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomTo(zoom * Math.exp(-event.deltaY / 300), [event.clientX, event.clientY]);
  }, { passive: false });
  const measure = () => { const [[ax, ay], [bx, by]] = fingers.values(); apart = Math.hypot(ax - bx, ay - by); middle = [(ax + bx) / 2, (ay + by) / 2]; };
  sheet.addEventListener("pointerdown", (event) => {
    if (event.pointerType !== "touch") return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size === 2) { drop(); measure(); }
  }, true);
  sheet.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (fingers.size !== 2) return;
    event.stopPropagation();
    const [before, [x, y]] = [apart, middle];
    measure();
    sheet.scrollLeft -= middle[0] - x; sheet.scrollTop -= middle[1] - y;
    zoomTo(zoom * apart / (before || apart), middle);
  }, true);
  boxes.enlarge = (event) => zoomTo(zoom > 1 ? 1 : 3, event.detail ? [event.clientX, event.clientY] : centre());
  for (const kind of ["pointerup", "pointercancel"]) sheet.addEventListener(kind, (event) => fingers.delete(event.pointerId), true);
}
