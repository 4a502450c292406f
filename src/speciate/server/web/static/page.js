// What pages need beside links, forms and htmx: the stream of changes, rows and points that light up together, keys.
export const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
export const csrf = document.querySelector("meta[name=csrf]").content;

// What a form's script sends; throws what the daemon said where it refuses.
export async function post(path, fields) {
  const answer = await fetch(path, { method: "POST", headers: { accept: "application/json" }, body: new URLSearchParams({ csrf, ...fields }) });
  const told = await answer.json().catch(() => ({ error: `The daemon answered ${answer.status}.` }));
  if (!answer.ok || told.error) throw new Error(told.error);
  return told;
}

// Live: the server says which part changed, and htmx asks for that part again. What the reader holds stays.
const parts = () => $("[data-live]"), notice = document.getElementById("notice");
function listen() {
  const job = document.body.dataset.job;
  let stream, broke = false;
  const refresh = (each) => htmx.trigger(each, "told");
  const begin = () => {
    stream = new EventSource(job ? `/events?job=${encodeURIComponent(job)}` : "/events");
    stream.onmessage = (event) => {
      if (dispatchEvent(new CustomEvent("told", { detail: event.data, cancelable: true }))) // a script of this page may know a shorter way
        parts().filter((each) => each.dataset.live.split(" ").includes(event.data)).forEach(refresh);
    };
    stream.onopen = () => { if (broke) parts().forEach(refresh); broke = false; notice.hidden = true; };
    stream.onerror = () => { broke = true; notice.hidden = false; };
  };
  begin();
  document.addEventListener("visibilitychange", () => { // a hidden tab costs nothing
    if (document.hidden) stream.close(); else { begin(); parts().forEach(refresh); }
  });
  addEventListener("pagehide", () => stream.close());
  document.addEventListener("htmx:beforeSwap", (event) => {
    const log = event.detail.target.querySelector?.(".log");
    if (log) event.detail.target.dataset.top = log.scrollHeight - log.scrollTop - log.clientHeight < 20 ? "end" : log.scrollTop;
    if (event.detail.xhr.status === 401) notice.hidden = false;
  });
  document.addEventListener("htmx:afterSettle", (event) => {
    const log = event.detail.target?.querySelector?.(".log"), top = event.detail.target?.dataset?.top;
    if (log) log.scrollTop = top === undefined || top === "end" ? log.scrollHeight : Number(top);
  });
}
requestAnimationFrame(() => setTimeout(() => { // after the first paint, which needs no htmx
  const script = document.createElement("script");
  script.src = document.querySelector("[data-htmx]").dataset.htmx;
  script.onload = listen;
  script.onerror = () => { notice.hidden = false; };
  document.head.append(script);
}));
for (const log of $(".log")) log.scrollTop = log.scrollHeight;

// A row and its point are one thing.
const light = (name, on) => $(`[data-model="${CSS.escape(name)}"]`).forEach((each) => each.classList.toggle("lit", on));
for (const [kind, on] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]])
  document.addEventListener(kind, (event) => { const at = event.target.closest?.("[data-model]"); if (at) light(at.dataset.model, on); });

// Keys: j k move, Enter opens what has the focus, digits and letters press what names them. Never while typing.
const dialog = document.getElementById("keys");
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input:not([type=radio], [type=range]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && event.target.closest("button, a, summary")) return; // they are pressed themselves
  const items = $("[data-item]"), here = items.indexOf(document.activeElement);
  if (event.key === "j" || event.key === "k") {
    items[Math.max(0, Math.min(items.length - 1, here + (event.key === "j" ? 1 : -1)))]?.focus();
  } else if (event.key === "t") {
    const root = document.documentElement;
    const now = root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=strict`; // the next page is painted in it at once
  } else if (event.key === "?") {
    if (dialog.open) dialog.close(); else dialog.showModal();
  } else {
    const wanted = $(`[data-key="${CSS.escape(event.key)}"]`)[0];
    if (wanted) { event.preventDefault(); wanted.click(); }
  }
});
$("[data-close]").forEach((each) => each.addEventListener("click", () => each.closest("dialog").close()));

// A form that takes something away asks once.
document.addEventListener("submit", (event) => {
  const asks = event.submitter?.dataset.asks;
  if (asks && !confirm(asks)) event.preventDefault();
});
