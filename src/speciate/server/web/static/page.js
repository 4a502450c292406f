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
const parts = () => $("[data-live]"), notice = document.getElementById("notice"), channel = new BroadcastChannel("told");
const locks = navigator.locks ?? { request: (name, options, act) => act() };
function listen() {
  const { job } = document.body.dataset, refresh = (each) => htmx.trigger(each, "told");
  const lock = job ? `run ${job.charCodeAt(job.length - 1) % 3}` : "pages";
  let stream, waiting, stop, broke = false, asks = false, pause = 1000;
  const hear = ([part, of]) => {
    if (part === "gap") { broke = true; return; } // until another tab hears
    if (part === "lost") { broke = true; notice.hidden = false; return; }
    if (part === "found") { if (broke) parts().forEach(refresh); broke = false; notice.hidden = true; return; }
    if (part === "run" && of !== job) return;
    if (dispatchEvent(new CustomEvent("told", { detail: part, cancelable: true })))
      parts().filter((each) => each.dataset.live.split(" ").includes(part)).forEach(refresh);
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
    if (!document.hidden) { begin(); parts().forEach(refresh); }
  });
  addEventListener("pagehide", leave);
  document.addEventListener("htmx:responseError", (event) => { if (event.detail.xhr.status === 401) notice.hidden = false; });
}
requestAnimationFrame(() => setTimeout(() => { // after the first paint, which needs no htmx
  const script = document.createElement("script");
  script.src = document.querySelector("[data-htmx]").dataset.htmx;
  script.onload = listen;
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
  const items = $("[data-item]"), here = items.indexOf(document.activeElement);
  if (event.key === "j" || event.key === "k") {
    items[Math.max(0, Math.min(items.length - 1, here + (event.key === "j" ? 1 : -1)))]?.focus();
  } else if (event.key === "t") {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`;
  } else if (event.key === "?") {
    document.getElementById("keys").togglePopover();
  } else {
    const wanted = $(`[data-key="${CSS.escape(event.key)}"]`)[0];
    if (wanted) { event.preventDefault(); wanted.click(); }
  }
});

// What takes away asks once.
document.addEventListener("submit", (event) => {
  const asks = event.submitter?.dataset.asks;
  if (asks && !confirm(asks)) event.preventDefault();
});
