"use strict";

/** What is stored of a campaign: those with something come first where all are asked about. */
const told = (one) => one.lines.filter((line) => line.verdict === "fact").length;

function person(found, asOf) {
  const known = [
    found.stage ? `stage ${found.stage.replace("_", " ")}` : "no counted order",
    found.orders ? `${found.orders} ${found.orders === 1 ? "order" : "orders"}` : "",
    found.recency_days == null ? "" : `the last ${found.recency_days} days ago`,
    `clock of ${found.zone}`,
  ].filter(Boolean).join(", ");
  return h("div", {},
    h("h1", { tabindex: "-1" }, `Customer ${found.customer_id} of ${found.source}`),
    h("p", { class: "soft" }, `As of ${instant(asOf)}: ${known}.`),
    [...found.campaigns].sort((one, other) => told(other) - told(one)).map(traced));
}

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("error").textContent = "";
  $("answer").replaceChildren(h("p", { class: "soft" }, "looking …"));
  try {
    const told = await ask("api/why", { customer: $("customer").value, campaign: $("campaign").value, at: $("at").value });
    $("answer").replaceChildren(...told.people.map((one) => person(one, told.as_of)));
    $("answer").querySelector("h1").focus();
  } catch (error) {
    $("answer").replaceChildren();
    $("error").textContent = error.message;
  }
});

ask("api/campaigns").then((found) => {
  $("campaign").append(...found.campaigns.map((one) => h("option", { value: one.id }, one.name === one.id ? one.id : `${one.name} (${one.id})`)));
  if (!found.may_steer) {
    for (const field of $("ask").elements) field.disabled = true;
    $("help").textContent = "You may not look people up here: that takes the right to edit the DAG deliver.";
  }
}).catch((error) => { $("error").textContent = error.message; });
