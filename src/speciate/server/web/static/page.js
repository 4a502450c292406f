// Beside links, forms and htmx: the stream of changes, what lights up together, keys.
export const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
export const csrf = document.querySelector("meta[name=csrf]").content;

// What a script sends for a form; throws what the daemon refused with.
export async function post(path, fields) {
  const answer = await fetch(path, { method: "POST", headers: { accept: "application/json" }, body: new URLSearchParams({ csrf, ...fields }) });
  const told = await answer.json().catch(() => ({ error: `The daemon answered ${answer.status}.` }));
  if (!answer.ok || told.error) throw new Error(told.error);
  return told;
}

// The server says which part changed, and htmx asks for it again.
// A browser has six connections to a host: one tab hears for all, in turn, and pages of runs share three more.
const parts = () => $("[data-live]"), whole = $("main[data-page]")[0], notice = document.getElementById("notice"), channel = new BroadcastChannel("told");
const locks = navigator.locks ?? { request: (name, options, act) => act() };
function listen() {
  const { job } = document.body.dataset, refresh = (each) => htmx.trigger(each, "told");
  const all = () => { parts().forEach(refresh); if (whole) renew(); };
  const lock = job ? `run ${job.charCodeAt(job.length - 1) % 3}` : "pages";
  let stream, waiting, stop, broke = false, asks = false, pause = 1000;
  const hear = ([part, of]) => {
    if (part === "gap") { broke = true; return; } // until another tab hears
    if (part === "lost") { broke = true; notice.hidden = false; return; }
    if (part === "found") { if (broke) all(); broke = false; notice.hidden = true; return; }
    if (part === "run" && of !== job) return;
    if (dispatchEvent(new CustomEvent("told", { detail: part, cancelable: true })))
      parts().filter((each) => each.dataset.live.split(" ").includes(part)).forEach(refresh);
    if (whole?.dataset.page.split(" ").includes(part)) renew();
  };
  const say = (part) => { hear([part, job]); channel.postMessage([lock, part, job]); };
  channel.onmessage = ({ data: [from, ...told] }) => {
    if (stream || document.hidden || from !== lock) return;
    if (told[0] === "found") begin();
    hear(told);
  };
  const begin = () => {
    if (asks) return;
    waiting = new AbortController();
    asks = true;
    const asked = performance.now();
    locks.request(lock, { signal: waiting.signal }, () => new Promise((end) => {
      if (performance.now() - asked > 50) say("gap"); // or it crashed
      stream = new EventSource(job ? `/events?job=${encodeURIComponent(job)}` : "/events");
      stream.onmessage = (event) => say(event.data);
      stream.onopen = () => { pause = 1000; say("found"); };
      stream.onerror = () => {
        say("lost");
        if (stream.readyState !== EventSource.CLOSED) return;
        stop(); // refused: another tab may be signed in
        setTimeout(() => document.hidden || begin(), pause = Math.min(2 * pause, 60000));
      };
      stop = () => { stream.close(); stream = undefined; asks = false; end(); };
    })).catch(() => {});
  };
  const leave = () => { waiting.abort(); asks = false; if (stream) { channel.postMessage([lock, "gap"]); stop(); } };
  begin();
  document.addEventListener("visibilitychange", () => {
    leave();
    if (!document.hidden) { begin(); all(); }
  });
  addEventListener("pagehide", leave);
  document.addEventListener("htmx:responseError", (event) => { if (event.detail.xhr.status === 401) notice.hidden = false; });
}

// A page that is live as a whole is asked for again. A piece that the server writes otherwise now takes the old one's place,
// with what its reader opened, typed and stands on. A piece that is gone makes it another page: that is loaded.
const pieces = (root) => $("[data-piece]", root), source = (each) => new XMLSerializer().serializeToString(each);
const written = new Map(pieces(document).map((each) => [each.id, source(each)]));
let renewing = false, again = false;
async function renew() {
  again = renewing;
  if (renewing) return;
  renewing = true;
  const answer = await fetch(location.href).catch(() => null), text = answer?.ok && !answer.redirected && await answer.text().catch(() => ""); // a daemon may end amid it
  if (text) {
    const fresh = new DOMParser().parseFromString(text, "text/html"), there = pieces(fresh);
    if ($("[data-piece]", whole).some((each) => !there.some((one) => one.id === each.id))) location.reload();
    there.forEach(replace);
  }
  setTimeout(() => { renewing = false; if (again) renew(); }, 1500);
}
function replace(piece) {
  const old = document.getElementById(piece.id), text = source(piece), at = document.activeElement;
  if (!old || written.get(piece.id) === text) return;
  written.set(piece.id, text);
  const named = at.id ? `#${CSS.escape(at.id)}` : ["href", "name"].filter((name) => at.hasAttribute(name)).map((name) => `[${name}="${CSS.escape(at.getAttribute(name))}"]`)[0];
  const focus = old.contains(at) && named && piece.querySelector(named), opened = $("details", old), wide = $(".wide", old);
  $("details", piece).forEach((each, i) => { each.open = opened[i]?.open ?? each.open; });
  $("input:not([type=hidden]), select, textarea", old).forEach((field) => { const same = $(`[name="${field.name}"]:not([type=hidden])`, piece)[0]; if (same) same.value = field.value; });
  old.replaceWith(piece);
  $(".wide", piece).forEach((each, i) => { each.scrollLeft = wide[i]?.scrollLeft ?? 0; });
  if (focus) focus.focus({ preventScroll: true });
  htmx.process(piece);
}

let parsed = false;
document.addEventListener("DOMContentLoaded", () => { parsed = true; }, { once: true });
requestAnimationFrame(() => setTimeout(() => { // after the first paint, which needs no htmx
  const script = document.createElement("script");
  script.src = document.querySelector("[data-htmx]").dataset.htmx;
  // It begins with an event of the document. Where that is over and loading is not, it would wait for ever.
  script.onload = () => { if (parsed && htmx.config.allowEval) document.dispatchEvent(new Event("DOMContentLoaded")); listen(); };
  script.onerror = () => { notice.hidden = false; };
  document.head.append(script);
}));

// A row and its point.
for (const [kind, on] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]])
  document.addEventListener(kind, (event) => {
    const at = event.target.closest?.("[data-model]");
    if (at) $(`[data-model="${CSS.escape(at.dataset.model)}"]`).forEach((each) => each.classList.toggle("lit", on));
  });

// Keys: j k move, Enter opens, digits and letters press what names them. Never while typing.
export const elsewhere = (event) => event.target.closest("input:not([type=radio], [type=range]), select") || event.ctrlKey || event.metaKey || event.altKey;
document.addEventListener("keydown", (event) => {
  if (elsewhere(event)) return;
  if (event.key === "Enter" && event.target.closest("button, a, summary")) return;
  const items = $("[data-item]"), here = items.indexOf(document.activeElement), wanted = $(`[data-key~="${CSS.escape(event.key)}"]`)[0];
  if (wanted) {
    event.preventDefault();
    wanted.click();
  } else if (event.key === "j" || event.key === "k") {
    items[Math.max(0, Math.min(items.length - 1, here + (event.key === "j" ? 1 : -1)))]?.focus();
  } else if (event.key === "t") {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  } else if (event.key === "?") {
    document.getElementById("keys").togglePopover();
  }
});

// The list of keys has those that do something here.
document.getElementById("keys").addEventListener("beforetoggle", () => $("#keys [data-if]").forEach((each) => { each.hidden = each.nextElementSibling.hidden = !document.querySelector(each.dataset.if); }));

// What takes away asks once.
document.addEventListener("submit", (event) => {
  const asks = event.submitter?.dataset.asks;
  if (asks && !confirm(asks)) event.preventDefault();
});
