// A signature of the daemon's question: by a passkey, or by a person's key, which its passphrase opens here, in this tab.
// Neither the passphrase nor the key is sent. The key's file: scrypt (RFC 7914), then AES-GCM around an ed25519 key.
const bytes = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
const hex = (data) => [...new Uint8Array(data)].map((each) => each.toString(16).padStart(2, "0")).join("");
const CONTEXT = new TextEncoder().encode("speciate-approval-key-v1\0");
const PKCS8 = bytes("302e020100300506032b657004220420"); // RFC 8410: what stands before the 32 bytes of the key

function salsa(y) { // Salsa20/8 on 16 words, in place; written out, for it runs four million times
  let t, x0 = y[0], x1 = y[1], x2 = y[2], x3 = y[3], x4 = y[4], x5 = y[5], x6 = y[6], x7 = y[7], x8 = y[8], x9 = y[9], x10 = y[10], x11 = y[11], x12 = y[12], x13 = y[13], x14 = y[14], x15 = y[15];
  for (let round = 0; round < 4; round++) {
    t = x0 + x12 | 0; x4 ^= t << 7 | t >>> 25; t = x4 + x0 | 0; x8 ^= t << 9 | t >>> 23; t = x8 + x4 | 0; x12 ^= t << 13 | t >>> 19; t = x12 + x8 | 0; x0 ^= t << 18 | t >>> 14;
    t = x5 + x1 | 0; x9 ^= t << 7 | t >>> 25; t = x9 + x5 | 0; x13 ^= t << 9 | t >>> 23; t = x13 + x9 | 0; x1 ^= t << 13 | t >>> 19; t = x1 + x13 | 0; x5 ^= t << 18 | t >>> 14;
    t = x10 + x6 | 0; x14 ^= t << 7 | t >>> 25; t = x14 + x10 | 0; x2 ^= t << 9 | t >>> 23; t = x2 + x14 | 0; x6 ^= t << 13 | t >>> 19; t = x6 + x2 | 0; x10 ^= t << 18 | t >>> 14;
    t = x15 + x11 | 0; x3 ^= t << 7 | t >>> 25; t = x3 + x15 | 0; x7 ^= t << 9 | t >>> 23; t = x7 + x3 | 0; x11 ^= t << 13 | t >>> 19; t = x11 + x7 | 0; x15 ^= t << 18 | t >>> 14;
    t = x0 + x3 | 0; x1 ^= t << 7 | t >>> 25; t = x1 + x0 | 0; x2 ^= t << 9 | t >>> 23; t = x2 + x1 | 0; x3 ^= t << 13 | t >>> 19; t = x3 + x2 | 0; x0 ^= t << 18 | t >>> 14;
    t = x5 + x4 | 0; x6 ^= t << 7 | t >>> 25; t = x6 + x5 | 0; x7 ^= t << 9 | t >>> 23; t = x7 + x6 | 0; x4 ^= t << 13 | t >>> 19; t = x4 + x7 | 0; x5 ^= t << 18 | t >>> 14;
    t = x10 + x9 | 0; x11 ^= t << 7 | t >>> 25; t = x11 + x10 | 0; x8 ^= t << 9 | t >>> 23; t = x8 + x11 | 0; x9 ^= t << 13 | t >>> 19; t = x9 + x8 | 0; x10 ^= t << 18 | t >>> 14;
    t = x15 + x14 | 0; x12 ^= t << 7 | t >>> 25; t = x12 + x15 | 0; x13 ^= t << 9 | t >>> 23; t = x13 + x12 | 0; x14 ^= t << 13 | t >>> 19; t = x14 + x13 | 0; x15 ^= t << 18 | t >>> 14;
  }
  y[0] += x0; y[1] += x1; y[2] += x2; y[3] += x3; y[4] += x4; y[5] += x5; y[6] += x6; y[7] += x7; y[8] += x8; y[9] += x9; y[10] += x10; y[11] += x11; y[12] += x12; y[13] += x13; y[14] += x14; y[15] += x15;
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
  const all = new Int32Array(await stretch(salt, p * 128 * r)), words = 32 * r, kept = new Int32Array(n * words), spare = new Int32Array(words);
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

async function touch(asked, passkey) {
  const challenge = await crypto.subtle.digest("SHA-256", bytes(asked.message));
  const allowCredentials = [{ type: "public-key", id: bytes(passkey.id) }];
  const given = await navigator.credentials.get({ publicKey: { challenge, allowCredentials, rpId: location.hostname, userVerification: "required" } })
    .catch(() => { throw new Error(`The passkey ${passkey.name} did not sign.`); });
  return JSON.stringify(given.toJSON());
}

// What the daemon wants beside its question's fields: by the key of that fingerprint, or by the first there is.
export async function sign(asked, wanted, passphrase, say) {
  const all = [...asked.passkeys, ...asked.keys], chosen = all.find((each) => each.fingerprint === wanted) ?? all[0];
  if (!chosen) throw new Error("No key of yours is here: neither a passkey of this site nor one that came with this session.");
  const made = { challenge: asked.challenge, key: chosen.fingerprint };
  if (asked.passkeys.includes(chosen)) return { ...made, signature: await touch(asked, chosen) };
  say("Opening the key…");
  await new Promise((done) => setTimeout(done, 30)); // lets that be painted before the work begins
  const key = await unseal(chosen, passphrase).catch(() => { throw new Error(`The passphrase does not open the key ${chosen.name}.`); });
  return { ...made, signature: hex(await crypto.subtle.sign("Ed25519", key, bytes(asked.message))) };
}

// A form that does one thing at a time and says what comes of it.
export function doing(form, said, act) {
  form?.addEventListener("submit", async (event) => {
    event.preventDefault();
    const buttons = [...form.querySelectorAll("button")], say = (text, bad) => { said.hidden = false; said.className = bad ? "said bad" : "said"; said.textContent = text; };
    buttons.forEach((each) => { each.disabled = true; });
    say("Asking…");
    try {
      await act(event.submitter?.value, say);
    } catch (error) {
      say(error.message, true);
      buttons.forEach((each) => { each.disabled = false; });
    } finally {
      if (form.elements.passphrase) form.elements.passphrase.value = "";
    }
  });
  const key = form?.elements.key, phrase = document.getElementById("phrase");
  if (key && phrase) key.addEventListener("change", () => { phrase.hidden = "passkey" in key.selectedOptions[0].dataset; });
}
