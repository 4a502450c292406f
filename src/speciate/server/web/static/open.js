// The key goes from the address's fragment, which no server's log sees, into a POST, and out of address and history.
const key = location.hash.slice(1);
history.replaceState(null, "", "/open");
const said = document.getElementById("said");
if (!key) said.textContent = "This link has no key. Run speciate open for a new one.";
else
  fetch("/open", { method: "POST", body: key, headers: { "content-type": "text/plain" } }).then(async (answer) => {
    const text = await answer.text();
    if (answer.ok) location.replace(text);
    else said.textContent = text;
  });
