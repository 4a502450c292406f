// What pages need beside links, forms and htmx: the stream of changes, rows and points that light up together, keys.
const $ = (selector, root = document) => [...root.querySelectorAll(selector)];
const csrf = document.querySelector("meta[name=csrf]")?.content ?? "";

// Live: the server says which part changed, and htmx asks for that part again. What the reader holds stays.
const parts = () => $("[data-live]");
if (parts().length) {
  const job = document.body.dataset.job, notice = document.getElementById("notice");
  let stream, broke = false;
  const refresh = (each) => window.htmx && htmx.trigger(each, "told");
  const begin = () => {
    stream = new EventSource(job ? `/events?job=${encodeURIComponent(job)}` : "/events");
    stream.onmessage = (event) => parts().filter((each) => each.dataset.live.split(" ").includes(event.data)).forEach(refresh);
    stream.onopen = () => { if (broke) parts().forEach(refresh); broke = false; notice.hidden = true; };
    stream.onerror = () => { broke = true; notice.hidden = false; };
  };
  begin();
  document.addEventListener("visibilitychange", () => { // a hidden tab costs nothing
    if (document.hidden) stream.close(); else { begin(); parts().forEach(refresh); }
  });
  window.addEventListener("pagehide", () => stream.close());
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
    localStorage.setItem("theme", root.dataset.theme);
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

// Labelling: a digit is one POST, then the next answer.
const queue = document.getElementById("queue");
if (queue) {
  const said = document.getElementById("said");
  const post = async (path, more) => {
    const answer = await fetch(path, { method: "POST", headers: { accept: "application/json" }, body: new URLSearchParams({ csrf, ...more }) });
    const told = await answer.json().catch(() => ({ error: `The daemon answered ${answer.status}.` }));
    if (!answer.ok || told.error || told.unknown) { said.textContent = told.error || told.unknown; said.hidden = false; return null; }
    return told;
  };
  let busy = false;
  const once = async (act) => { if (busy) return; busy = true; try { await act(); } finally { busy = false; } };
  const next = (more = {}) => { const at = new URL(location.href); for (const [name, value] of Object.entries(more)) at.searchParams.set(name, value); location.replace(at); };
  const give = (label, more = {}) => once(async () => {
    const { prediction, drawn, model, numeric } = queue.dataset;
    if (await post(queue.dataset.label, { prediction, drawn, model, numeric, label, ...more })) next();
  });
  $("[data-give]").forEach((each) => each.addEventListener("click", () => give(each.dataset.give)));
  document.getElementById("undo")?.addEventListener("click", () => once(async () => { if (await post(queue.dataset.undo, {})) next(); }));
  document.getElementById("skip")?.addEventListener("click", () => {
    const before = new URL(location.href).searchParams.get("skip");
    next({ skip: [before, queue.dataset.prediction].filter(Boolean).join(",") });
  });
  document.getElementById("own")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const fields = new FormData(event.target);
    const more = fields.get("new_class") ? { new_class: "yes" } : "parts" in event.target.dataset ? { parts: "yes" } : {};
    give(fields.get("label"), more);
  });
}
