"use strict";
// Shows a message that the page around it sends. No script of a message runs here, and no link of it leads anywhere.
addEventListener("message", (event) => {
  if (event.source !== parent || typeof event.data?.html !== "string") return;
  const shown = new DOMParser().parseFromString(event.data.html, "text/html");
  shown.querySelectorAll("script, base, meta[http-equiv], iframe, object, embed").forEach((one) => one.remove());
  document.replaceChild(document.adoptNode(shown.documentElement), document.documentElement);
});
addEventListener("click", (event) => event.preventDefault(), true);
addEventListener("submit", (event) => event.preventDefault(), true);
