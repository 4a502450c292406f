// A person's answer to an approval. The passphrase opens the key here, in this tab: it is never sent, and nor is the key.
// The key's file: scrypt (RFC 7914), then AES-GCM around an ed25519 key. What is sent is a signature of the daemon's question.
const form = document.getElementById("answer"), said = document.getElementById("said");
const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (data) => [...new Uint8Array(data)].map((each) => each.toString(16).padStart(2, "0")).join("");
const CONTEXT = new TextEncoder().encode("speciate-approval-key-v1\0");
const PKCS8 = bytes("302e020100300506032b657004220420"); // RFC 8410: what stands before the 32 bytes of the key

const z = new Int32Array(16);
const turn = (a, b, c, k) => { const s = (z[b] + z[c]) | 0; z[a] ^= (s << k) | (s >>> (32 - k)); };
function salsa(y) { // Salsa20/8 on 16 words, in place
  z.set(y);
  for (let round = 0; round < 4; round++) {
    turn(4, 0, 12, 7); turn(8, 4, 0, 9); turn(12, 8, 4, 13); turn(0, 12, 8, 18);
    turn(9, 5, 1, 7); turn(13, 9, 5, 9); turn(1, 13, 9, 13); turn(5, 1, 13, 18);
    turn(14, 10, 6, 7); turn(2, 14, 10, 9); turn(6, 2, 14, 13); turn(10, 6, 2, 18);
    turn(3, 15, 11, 7); turn(7, 3, 15, 9); turn(11, 7, 3, 13); turn(15, 11, 7, 18);
    turn(1, 0, 3, 7); turn(2, 1, 0, 9); turn(3, 2, 1, 13); turn(0, 3, 2, 18);
    turn(6, 5, 4, 7); turn(7, 6, 5, 9); turn(4, 7, 6, 13); turn(5, 4, 7, 18);
    turn(11, 10, 9, 7); turn(8, 11, 10, 9); turn(9, 8, 11, 13); turn(10, 9, 8, 18);
    turn(12, 15, 14, 7); turn(13, 12, 15, 9); turn(14, 13, 12, 13); turn(15, 14, 13, 18);
  }
  for (let i = 0; i < 16; i++) y[i] = (y[i] + z[i]) | 0;
}

function mixBlock(block, r, spare) { // BlockMix
  const x = block.slice((2 * r - 1) * 16);
  for (let i = 0; i < 2 * r; i++) {
    for (let j = 0; j < 16; j++) x[j] ^= block[i * 16 + j];
    salsa(x);
    spare.set(x, (i >> 1) * 16 + (i & 1 ? r * 16 : 0));
  }
  block.set(spare);
}

async function scrypt(passphrase, salt, n, r, p) {
  const key = await crypto.subtle.importKey("raw", passphrase, "PBKDF2", false, ["deriveBits"]);
  const stretch = (around, length) => crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt: around, iterations: 1 }, key, length * 8);
  const all = new Uint32Array(await stretch(salt, p * 128 * r)), words = 32 * r, kept = new Uint32Array(n * words), spare = new Uint32Array(words);
  for (let lane = 0; lane < p; lane++) { // ROMix, on a machine that keeps the low byte first, as all browsers' do
    const block = all.subarray(lane * words, (lane + 1) * words);
    for (let i = 0; i < n; i++) { kept.set(block, i * words); mixBlock(block, r, spare); }
    for (let i = 0; i < n; i++) {
      const from = (block[words - 16] & (n - 1)) * words;
      for (let j = 0; j < words; j++) block[j] ^= kept[from + j];
      mixBlock(block, r, spare);
    }
  }
  return stretch(new Uint8Array(all.buffer), 32);
}

async function unseal(stored, passphrase) {
  const opened = await scrypt(new TextEncoder().encode(passphrase), bytes(stored.salt), stored.n, stored.r, stored.p);
  const cipher = await crypto.subtle.importKey("raw", opened, "AES-GCM", false, ["decrypt"]);
  const about = new Uint8Array([...CONTEXT, ...bytes(stored.public)]);
  const raw = await crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes(stored.nonce), additionalData: about }, cipher, bytes(stored.sealed));
  return crypto.subtle.importKey("pkcs8", new Uint8Array([...PKCS8, ...new Uint8Array(raw)]), "Ed25519", false, ["sign"]);
}

async function post(path, fields) {
  const answer = await fetch(path, { method: "POST", headers: { accept: "application/json" }, body: new URLSearchParams(fields) });
  const told = await answer.json().catch(() => ({ error: `The daemon answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(told.error);
  return told;
}

async function answer(choice) {
  const fields = Object.fromEntries(["csrf", "hash"].map((name) => [name, form.elements[name].value])), base = form.dataset.path;
  fields.answer = choice;
  const asked = await post(`${base}/question`, fields);
  if (!asked.required) return post(`${base}/answer`, { ...fields, typed: form.elements.typed?.value.trim() ?? "" });
  const stored = asked.keys.find((each) => each.fingerprint === form.elements.key?.value) ?? asked.keys[0];
  if (!stored) throw new Error("No key of yours came with this session. Run speciate open --decide as the person who enrolled one.");
  said.textContent = "Opening the key…";
  await new Promise((done) => setTimeout(done, 30)); // lets that be painted before the work begins
  const key = await unseal(stored, form.elements.passphrase.value).catch(() => { throw new Error(`The passphrase does not open the key ${stored.name}.`); });
  const signature = hex(await crypto.subtle.sign("Ed25519", key, bytes(asked.message)));
  return post(`${base}/answer`, { ...fields, challenge: asked.challenge, key: stored.fingerprint, signature });
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const buttons = [...form.querySelectorAll("button")];
  buttons.forEach((each) => { each.disabled = true; });
  said.hidden = false; said.className = "said"; said.textContent = "Asking…";
  try {
    const done = await answer(event.submitter.value);
    said.textContent = done.reason ? `${done.state}: ${done.reason}` : `${done.state}.`;
    if (!done.reason || done.state === "denied") location.assign(done.next);
  } catch (error) {
    said.className = "said bad"; said.textContent = error.message;
    buttons.forEach((each) => { each.disabled = false; });
  } finally {
    if (form.elements.passphrase) form.elements.passphrase.value = "";
  }
});
