"use strict";

let segments = [];
let chosen = null;

function show(list) {
  $("list").replaceChildren(tabled(
    ["segment", "in it is everybody for whom", { text: "customers", number: true }, { text: "came today", number: true },
      { text: "left today", number: true }, "used by"],
    list.map((one) => [
      h("button", { class: "link", type: "button", "data-segment": one.id, onclick: () => choose(one) }, one.name),
      one.words, figure(one.customers), figure(one.entered), figure(one.departed), one.campaigns.join(", "),
    ])));
}

async function choose(one) {
  chosen = one;
  $("one").hidden = false;
  $("title").textContent = one.name;
  $("description").textContent = one.description;
  $("words").textContent = one.words;
  $("used").textContent = one.as_of ? `As of ${instant(one.as_of)}.` : "";
  $("charts").replaceChildren();
  $("customers").replaceChildren();
  $("both").value = "";
  $("other").replaceChildren(...segments.filter((other) => other.id !== one.id).map((other) =>
    h("option", { value: other.id }, other.name)));
  $("title").focus();
  const told = await once(() => ask("api/segment/days", { segment: one.id }));
  if (!told || chosen !== one) return;
  $("charts").replaceChildren(
    chart("Customers in it", told.days, { lines: { customers: "customers" }, width: 540 }),
    chart("Came and left per day", told.days, { bars: { entered: "came", departed: "left" }, down: ["departed"], width: 540 }));
}

$("overlap").addEventListener("submit", async (event) => {
  event.preventDefault();
  const found = await once(() => ask("api/segment/overlap", { one: chosen.id, other: $("other").value }));
  if (!found) return;
  const share = found.one ? ` (${(100 * found.both / found.one).toFixed(1)} % of “${chosen.name}”)` : "";
  $("both").value = `${figure(found.both)} of ${figure(found.one)} and ${figure(found.other)} are in both${share}`;
});

$("sample").addEventListener("click", async () => {
  const found = await once(() => ask("api/segment/sample", { segment: chosen.id }));
  if (!found) return;
  $("customers").replaceChildren(found.customers.length === 0 ? h("p", { class: "soft" }, "Nobody is in it now.") : tabled(
    ["customer", "in it since", "stage", { text: "orders", number: true }, { text: "spent", number: true }, "last order"],
    found.customers.map((one) => [String(one.customer), instant(one.in_since), (one.stage || "").replace("_", " "), figure(one.orders),
      one.spent || "", instant(one.last_order)])));
});

$("export").addEventListener("click", () => once(async () => {
  const reply = await fetch("api/segment/export", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ segment: chosen.id }), cache: "no-store",
  });
  if (!reply.ok) throw new Error((await reply.json()).detail || `Airflow answered ${reply.status}.`);
  save(`${chosen.id}.csv`, await reply.blob(), "text/csv");
}));

ask("api/segments").then((found) => {
  segments = found.segments;
  show(segments);
  if (found.faults.length) $("error").textContent = `Files with mistakes are left out: ${found.faults.join("; ")}`;
  if (!found.may_steer) {
    for (const button of [$("sample"), $("export")]) button.hidden = true;
    $("may").textContent = "To see or export customers takes the right to edit the DAG deliver.";
  }
}).catch((error) => { $("error").textContent = error.message; });
