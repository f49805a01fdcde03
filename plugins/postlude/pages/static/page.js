"use strict";
// What all pages share. Text goes into the page as text only: nothing here takes HTML.

/** Follow the colours of the Airflow UI around this frame; alone, those of the system. */
(function colours() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try {
    outer = parent !== window ? parent.document.documentElement : null;
  } catch { /* framed by somebody else */ }
  const follow = () => {
    const said = outer && ["dark", "light"].find((word) => outer.classList.contains(word));
    document.documentElement.classList.toggle("dark", said ? said === "dark" : system.matches);
  };
  if (outer) new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
  system.addEventListener("change", follow);
  follow();
})();

/** An element: h("p", {class: "soft"}, "text", other). Attributes false or null are left out. */
function h(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== ""));
  return made;
}

const $ = (id) => document.getElementById(id);

/** The answer to a GET, or with `body` to a POST of JSON; throws an Error with words for the reader. */
async function ask(path, body) {
  let reply;
  try {
    reply = await fetch(path, body === undefined ? { cache: "no-store" } : {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), cache: "no-store",
    });
  } catch {
    throw new Error("Airflow does not answer. Nothing was changed, as far as this page knows: load it again.");
  }
  if (reply.ok) return reply.json();
  if (reply.status === 401) throw new Error("You are signed in no longer. Load the page again.");
  let told = null;
  try {
    told = (await reply.json()).detail;
  } catch { /* no JSON */ }
  throw new Error(typeof told === "string" ? told : `Airflow answered ${reply.status}.`);
}

/** "2026-11-25 20:41 UTC" */
function instant(text) {
  return text ? `${new Date(text).toISOString().slice(0, 16).replace("T", " ")} UTC` : "";
}
