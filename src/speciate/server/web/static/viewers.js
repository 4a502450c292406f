// Viewers for what an image cannot show. They parse no foreign format: the sandboxed process has decoded it, and sends plain
// arrays (datasets/inspect/viewer.py has their layouts). Each says in data-drawn what it shows.
export function canvas(at, label) {
  const made = document.createElement("canvas"), scale = devicePixelRatio || 1;
  made.tabIndex = 0; made.setAttribute("role", "img"); made.setAttribute("aria-label", label);
  at.replaceChildren(made);
  made.width = at.clientWidth * scale; made.height = at.clientHeight * scale;
  return made;
}

// Drag, arrow keys and the wheel turn and zoom; it is drawn only when something changed.
export function turning(at, made, draw) {
  const view = { a: .5, b: .35, zoom: 1 };
  let asked = false;
  const ask = () => { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; draw(view); at.dataset.drawn = `${view.a.toFixed(2)},${view.b.toFixed(2)},${view.zoom.toFixed(2)}`; }); } };
  const turn = (a, b) => { view.a += a; view.b = Math.max(-1.5, Math.min(1.5, view.b + b)); ask(); };
  made.onpointerdown = (event) => made.setPointerCapture(event.pointerId);
  made.onpointermove = (event) => { if (event.buttons) turn(event.movementX / 120, event.movementY / 120); };
  made.addEventListener("wheel", (event) => { event.preventDefault(); view.zoom = Math.max(.4, Math.min(8, view.zoom * Math.exp(-event.deltaY / 600))); ask(); }, { passive: false });
  made.onkeydown = (event) => {
    const step = { ArrowLeft: [-.15, 0], ArrowRight: [.15, 0], ArrowUp: [0, -.15], ArrowDown: [0, .15] }[event.key];
    if (step) { event.preventDefault(); turn(...step); }
  };
  ask();
}

const kinds = { mesh: () => import("./mesh.js"), volume: () => import("./volume.js"), structure: () => import("./structure.js") };
const shown = new IntersectionObserver((found) => found.filter((each) => each.isIntersecting).forEach(async ({ target }) => {
  shown.unobserve(target);
  try {
    const answer = await fetch(target.dataset.src);
    if (!answer.ok) throw new Error(await answer.text());
    (await kinds[target.dataset.view]()).show(target, await answer.arrayBuffer());
  } catch (error) { target.textContent = `Not shown: ${error.message}`; }
}));
document.querySelectorAll("[data-view]").forEach((each) => shown.observe(each));

// Sound: a click on the spectrogram goes there.
const spectrum = document.getElementById("spectrum"), player = document.querySelector(".viewer audio");
spectrum?.addEventListener("click", (event) => { if (player.duration) player.currentTime = player.duration * event.offsetX / spectrum.clientWidth; });

// An image: a press on it, + and - make it larger here. Without this script it opens by itself.
const images = document.querySelectorAll("[data-enlarge]");
if (images.length) import("./zoom.js").then(({ zoomable }) => images.forEach((each) => {
  zoomable(each, () => {});
  each.addEventListener("click", (event) => { event.preventDefault(); each.enlarge(event); });
}));
