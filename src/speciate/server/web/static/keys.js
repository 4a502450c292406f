// A new passkey, and the signature that enrolls it.
import { post } from "./page.js";
import { doing, sign } from "./signing.js";
const make = document.getElementById("make"), form = document.getElementById("sign"), said = document.getElementById("said");
let made;

doing(make, said, async (_, say) => {
  const options = await post("/keys/begin", { name: make.elements.name.value });
  const publicKey = PublicKeyCredential.parseCreationOptionsFromJSON(options.publicKey);
  const fresh = await navigator.credentials.create({ publicKey }).catch(() => { throw new Error("No passkey was made."); });
  made = await post("/keys/made", { response: JSON.stringify(fresh.toJSON()) });
  make.hidden = true; said.hidden = true;
  document.getElementById("mark").textContent = made.fingerprint;
  document.getElementById("print").hidden = false;
  document.getElementById("command").textContent = made.command;
  document.getElementById("elsewhere").hidden = made.passkeys.some((each) => each.fingerprint === made.fingerprint);
  const add = (kind) => (key) => {
    const option = new Option(key.fingerprint === made.fingerprint ? "itself" : `${key.name}${kind}`, key.fingerprint);
    if (kind) option.dataset.passkey = "";
    form.elements.key.append(option);
  };
  made.passkeys.forEach(add(" (passkey)"));
  made.keys.forEach(add(""));
  form.hidden = !form.elements.key.options.length;
  if (!form.hidden) form.elements.key.dispatchEvent(new Event("change"));
});

doing(form, said, async (_, say) => {
  const signed = await sign(made, form.elements.key.value, form.elements.passphrase.value, say);
  location.assign((await post("/keys/enroll", { name: made.name, public: made.public, ...signed })).next);
});
