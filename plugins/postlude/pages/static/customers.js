"use strict";

let current = null;
let lifting = null;

async function look(id, done) {
  const told = await once(() => ask("api/customer/story", { customer: id }));
  if (told) show(told, done);
}

function show(told, done) {
  const one = told.person;
  const was = current;
  current = one.customer_id;
  $("person").hidden = false;
  const name = [one.first_name, one.last_name].filter(Boolean).join(" ");
  $("name").textContent = one.erased_at ? `Customer ${one.customer_id}: erased ${instant(one.erased_at)}` : `${name || "No name"}, customer ${one.customer_id}`;
  const facts = [["e-mail", one.email], ["number", one.phone], ["known to", one.identities.join("; ")], ["language", one.locale],
    ["country", one.country], ["clock", one.zone], ["stage", (one.stage || "no counted order").replace("_", " ")],
    ["orders", one.frequency], ["spent", one.monetary], ["last order", instant(one.last_order_at)], ["segments", one.segments.join(", ")]];
  $("facts").replaceChildren(...facts.filter(([, value]) => value != null && value !== "").map(([words, value]) =>
    h("div", {}, h("span", {}, String(value)), h("span", { class: "soft" }, words))));
  $("suppressions").replaceChildren(told.suppressions.length === 0 ? h("p", { class: "soft" }, "No address of this person is suppressed.")
    : tabled(["suppressed", "since", "reason", "why", "lifted", { unseen: "lift" }], told.suppressions.map((stop) => [
      stop.scope === "all" ? "all mail" : "marketing", instant(stop.since), stop.reason.replace("_", " "),
      stop.asked_by ? `${stop.why} (${stop.asked_by})` : stop.meaning,
      stop.in_force ? "" : `${instant(stop.lifted_at)} by ${stop.lifted_by}: ${stop.lift_reason}`,
      stop.in_force ? h("button", { class: "quiet", type: "button", onclick: () => lift(stop) }, "Lift …") : "",
    ])));
  keep();
  $("timeline").replaceChildren(told.timeline.length === 0 ? h("p", { class: "soft" }, "Nothing.") : tabled(
    ["when", "what", "which", "state", "more"], told.timeline.map((event) => [instant(event.at), event.what, event.name, event.state,
      [event.reason ? `${event.reason}${event.meaning ? `: ${event.meaning}` : ""}` : "", event.detail || ""].filter(Boolean).join(" · ")])));
  for (const form of ["suppress", "erase"]) { $(form).reset(); $(form).hidden = Boolean(one.erased_at); }
  $("done").textContent = done || "";
  if (was !== current) $("answer").replaceChildren();
  if (!done) $("name").focus();
}

function keep() {
  lifting = null;
  $("lift").hidden = true;
  $("lift").reset();
}

function lift(stop) {
  lifting = stop;
  $("lift-title").textContent = `Write ${stop.scope === "all" ? "mail" : "marketing"} again, though: ${stop.reason.replace("_", " ")}`;
  $("lift").hidden = false;
  $("lift-why").focus();
}

$("find").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("person").hidden = true;
  $("found").replaceChildren();
  $("done").textContent = "";
  const told = await once(() => ask("api/customer/find", { customer: $("wanted").value }));
  if (!told) return;
  if (told.people.length === 1) {
    await look(told.people[0].customer_id);
    return;
  }
  $("found").replaceChildren(tabled(["customer", "name", "e-mail", "known to"], told.people.map((one) => [
    h("button", { class: "link", type: "button", onclick: () => look(one.customer_id) }, String(one.customer_id)),
    [one.first_name, one.last_name].filter(Boolean).join(" "), one.email, one.identities.join("; ")])));
});

$("suppress").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = await once(() => ask("api/customer/suppress", { customer: current, scope: $("scope").value, why: $("suppress-why").value }));
  if (told) show(told, told.changed ? "Suppressed." : "That was suppressed already.");
});

$("lift").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = await once(() => ask("api/customer/lift", { customer: current, suppression: lifting.suppression_id, why: $("lift-why").value }));
  if (told) show(told, "Lifted.");
});
$("lift-cancel").addEventListener("click", keep);

$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = await once(() => ask("api/customer/why", { customer: String(current), campaign: $("campaign").value, at: $("at").value }));
  if (!told) return;
  const mine = told.people.filter((one) => one.customer_id === current);
  $("answer").replaceChildren(h("p", { class: "soft" }, `As of ${instant(told.as_of)}.`), ...mine.flatMap((one) => one.campaigns.map(traced)));
});

$("export").addEventListener("click", () => once(async () => {
  save(`customer-${current}.json`, JSON.stringify(await ask("api/customer/export", { customer: current }), null, 1), "application/json");
}));

$("erase").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = await once(() => ask("api/customer/erase", { customer: current, why: $("erase-why").value, sure: $("sure").value }));
  if (told) show(told, "Erased.");
});

ask("api/customer/may").then((told) => {
  $("campaign").replaceChildren(...told.campaigns.map((one) => h("option", { value: one.id }, one.name)),
    h("option", { value: "" }, "all campaigns"));
  if (!told.may_know) {
    for (const field of $("find").elements) field.disabled = true;
    $("help").textContent = "You may not see who people are: that takes a right of its own, Postlude customers.";
  }
}).catch((error) => { $("error").textContent = error.message; });
