// Before the first paint, from a file of our own: an inline script would need a nonce.
const theme = localStorage.getItem("theme");
if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
