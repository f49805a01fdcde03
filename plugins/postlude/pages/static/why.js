"use strict";

const SIGNS = { yes: "✓ yes", no: "✗ no" };

function line(one) {
  return h("li", { class: one.verdict },
    one.verdict === "fact" ? null : h("span", { class: "sign" }, SIGNS[one.verdict]),
    h("span", { class: "predicate" }, one.predicate), ": ", one.detail,
    one.meaning ? h("span", { class: "meaning" }, one.meaning) : null);
}

/** What does not hold, in a line. Of several orders one is enough. */
function summary(conditions) {
  const holds = new Set(conditions.filter((one) => one.verdict === "yes").map((one) => one.predicate));
  const not = new Set(conditions.filter((one) => one.verdict === "no" && !holds.has(one.predicate)).map((one) => one.predicate));
  return not.size === 0 ? "All that a message needs holds." : `Does not hold: ${[...not].join("; ")}.`;
}

function campaign(found) {
  const stored = found.lines.filter((one) => one.verdict === "fact");
  const conditions = found.lines.filter((one) => one.verdict !== "fact");
  return h("section", { class: "card" },
    h("h2", {}, `${found.name} `, h("span", { class: "soft" }, found.id)),
    found.fault ? h("p", { class: "error" }, `The campaign’s file has mistakes: ${found.fault}`)
      : h("div", { class: "two" },
        h("div", {}, h("h3", {}, "Conditions"), h("p", {}, summary(conditions)),
          h("ul", { class: "trace" }, conditions.map(line))),
        h("div", {}, h("h3", {}, "What is stored"),
          stored.length ? h("ul", { class: "trace stored" }, stored.map(line))
            : h("p", { class: "soft" }, "Nothing: never enrolled, no message, no refusal."))));
}

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
    found.campaigns.map(campaign));
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
  $("campaign").append(...found.campaigns.map((name) => h("option", { value: name }, name)));
  if (!found.may_steer) {
    for (const field of $("ask").elements) field.disabled = true;
    $("help").textContent = "You may not look people up here: that takes the right to edit the DAG deliver.";
  }
}).catch((error) => { $("error").textContent = error.message; });
