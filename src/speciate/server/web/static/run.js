// A run that is open: what it measured and said since is drawn on. Where anything else changed, htmx brings the whole part.
import { $ } from "./page.js";
const part = document.querySelector("[data-live~=run]"), numbers = (text) => text.split(",").map(Number);
const round = (value) => String(Number(value.toPrecision(4)));
let asking = false, again = false;

// The log stays at its end, or where its reader scrolled to.
const log = () => part.querySelector(".log"), atEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 20;
const toEnd = () => { if (log()) log().scrollTop = log().scrollHeight; };
let top = null;
part.addEventListener("htmx:beforeSwap", () => { const box = log(); top = box && !atEnd(box) ? box.scrollTop : null; });
part.addEventListener("htmx:afterSettle", () => { if (top === null) toEnd(); else if (log()) log().scrollTop = top; });
toEnd();

addEventListener("told", (event) => {
  if (event.detail !== "run" || !document.getElementById("shown")) return;
  event.preventDefault();
  if (asking) again = true; else ask();
});

async function ask() {
  asking = true;
  const shown = document.getElementById("shown"), { shape, place, after, measures, log: from } = shown.dataset;
  const answer = await fetch(`${part.getAttribute("hx-get")}/more?${new URLSearchParams({ shape, place, after, measures, log: from })}`).catch(() => null);
  const told = answer?.ok ? await answer.json() : { whole: true };
  asking = false;
  if (!shown.isConnected) { if (again) { again = false; ask(); } return; } // all of it came meanwhile
  if (told.whole || !takes(told)) { again = false; htmx.trigger(part, "told"); return; }
  Object.assign(shown.dataset, { after: told.after, log: told.log_end });
  document.getElementById("far").textContent = told.how_far;
  part.querySelector(".bar rect")?.setAttribute("width", `${100 * told.share}%`);
  for (const line of told.lines) { $("svg[data-x]", part).forEach((chart) => draw(chart, line)); $("[data-measure]", part).forEach((each) => say(each, line)); }
  if (told.log) {
    const box = log(), end = atEnd(box);
    box.textContent = (box.textContent + told.log).split("\n").slice(-200).join("\n");
    if (end) toEnd();
  }
  if (again || told.again) { again = false; ask(); }
}

// Whether there is a place for all of it: a log, and charts whose axes have its values.
function takes({ log: more, share, lines }) {
  if ((more && !log()) || (share !== null) !== Boolean(part.querySelector(".bar"))) return false;
  return $("svg[data-x]", part).every((chart) => {
    const [least, most] = numbers(chart.dataset.y), names = $("[data-line]", chart).map((each) => each.dataset.line);
    return lines.every((line) => names.every((name) => !(line[name] < least || line[name] > most)));
  });
}

function draw(chart, line) {
  const [left, top, right, bottom] = numbers(chart.dataset.area), [low, high] = numbers(chart.dataset.x), [least, most] = numbers(chart.dataset.y);
  const end = Math.max(high, line.step), narrower = end > low ? (high - low) / (end - low) : 1;
  const x = end > low ? left + (right - left) * (line.step - low) / (end - low) : (left + right) / 2;
  for (const curve of $("[data-line]", chart)) {
    const points = curve.points, count = points.numberOfItems, value = line[curve.dataset.line];
    if (narrower < 1) for (const point of points) point.x = left + (point.x - left) * narrower;
    if (value === undefined) continue;
    const next = curve.ownerSVGElement.createSVGPoint(), last = count && points.getItem(count - 1).y;
    const smooth = !curve.classList.contains("thin") && $(".thin", chart).some((each) => each.dataset.line === curve.dataset.line);
    next.x = x; next.y = bottom - (bottom - top) * (value - least) / (most - least);
    if (smooth && count) next.y = .85 * last + .15 * next.y;
    if (count > 1 && x - points.getItem(count - 2).x < 1) points.replaceItem(next, count - 1); else points.appendItem(next);
  }
  chart.dataset.x = `${low},${end}`;
  chart.querySelector("[data-end]").textContent = `step ${end.toLocaleString("en")}`;
}

function say(said, line) {
  const value = line[said.dataset.measure], [newest, best] = said.children;
  if (value === undefined) return;
  newest.textContent = round(value);
  if (best && ("lower" in said.dataset ? value < said.dataset.best : value > said.dataset.best)) { said.dataset.best = value; best.textContent = `${round(value)} at ${line.step}`; }
}
