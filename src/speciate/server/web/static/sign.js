// A person's answer to an approval.
import { post } from "./page.js";
import { doing, sign } from "./signing.js";
const form = document.getElementById("answer");

doing(form, document.getElementById("said"), async (choice, say) => {
  const fields = { hash: form.elements.hash.value, answer: choice }, base = form.dataset.path;
  const asked = await post(`${base}/question`, fields);
  const more = asked.required ? await sign(asked, form.elements.key?.value, form.elements.passphrase?.value, say) : { typed: form.elements.typed?.value.trim() ?? "" };
  const done = await post(`${base}/answer`, { ...fields, ...more });
  say(done.reason ? `${done.state}: ${done.reason}` : `${done.state}.`);
  if (!done.reason || done.state === "denied") location.assign(done.next);
});
