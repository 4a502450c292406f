// Labelling: a digit is one POST, then the next answer.
import { $, post } from "./page.js";
const queue = document.getElementById("queue"), said = document.getElementById("said");
let busy = false;
const once = async (act) => {
  if (busy) return;
  busy = true;
  try { await act(); } catch (error) { said.textContent = error.message; said.hidden = false; } finally { busy = false; }
};
const next = (more = {}) => { const at = new URL(location.href); for (const [name, value] of Object.entries(more)) at.searchParams.set(name, value); location.replace(at); };
const give = (label, more = {}) => once(async () => {
  const { prediction, drawn, model, numeric } = queue.dataset;
  const told = await post(queue.dataset.label, { prediction, drawn, model, numeric, label: await label(), ...more });
  if (told.unknown) throw new Error(told.unknown);
  next();
});
$("[data-give]").forEach((each) => each.addEventListener("click", () => give(() => each.dataset.give)));
const undo = document.getElementById("undo");
undo?.addEventListener("click", () => once(async () => { await post(undo.dataset.undo, {}); next(); }));
document.getElementById("skip")?.addEventListener("click", () => {
  const before = new URL(location.href).searchParams.get("skip");
  next({ skip: [before, queue.dataset.prediction].filter(Boolean).join(",") });
});
document.getElementById("own")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const { made } = event.target, fields = new FormData(event.target); // an editor of this page has made the label, or it was typed
  if (made) give(async () => JSON.stringify(await made()), { parts: "yes" });
  else give(() => fields.get("label"), fields.get("new_class") ? { new_class: "yes" } : {});
});
