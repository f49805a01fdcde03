"use strict";

let names = {};
let maySteer = false;
let wanted = null; // the stop that is to be lifted

function called(scope, name) {
  if (scope === "all") return "everything";
  const known = (names[scope] || []).find((one) => one.id === name);
  return `${scope} ${name}${known && known.called ? ` (“${known.called}”)` : ""}`;
}

function mail(stop) {
  if (stop.scope === "campaign") return "all of its mail";
  return stop.transactional_too ? "marketing, and order and delivery notices" : "marketing";
}

function show(state) {
  const stops = state.stops;
  const all = stops.some((stop) => stop.scope === "all");
  $("banner").classList.toggle("stopped", stops.length > 0);
  $("banner").textContent = stops.length === 0 ? "Nothing is stopped: mail goes out as the campaigns say."
    : all ? "All marketing mail is stopped." : `${stops.length === 1 ? "One stop is" : `${stops.length} stops are`} in force.`;
  $("in-force").hidden = stops.length === 0;
  $("stops").replaceChildren(...stops.map((stop) => h("tr", {},
    h("td", {}, called(stop.scope, stop.name)),
    h("td", {}, mail(stop)),
    h("td", { class: "when" }, stop.from === "file" ? "" : instant(stop.since)),
    h("td", { class: "by" }, stop.from === "file" ? "the file STOP" : stop.stopped_by),
    h("td", {}, stop.why),
    h("td", { class: "act" }, stop.from === "file"
      ? h("span", { class: "soft" }, "delete the file STOP")
      : h("button", { class: "quiet", type: "button", disabled: !maySteer, onclick: () => letGo(stop) }, "Go …")))));
  $("past").hidden = state.lifted.length === 0;
  $("lifted").replaceChildren(...state.lifted.map((stop) => h("tr", {},
    h("td", {}, called(stop.scope, stop.name)),
    h("td", {}, `${instant(stop.since)} by ${stop.stopped_by}`),
    h("td", {}, stop.why),
    h("td", {}, `${instant(stop.lifted_at)} by ${stop.lifted_by}`),
    h("td", {}, stop.lift_reason))));
  keep();
}

function keep() {
  wanted = null;
  $("let-go").hidden = true;
  $("let-go").reset();
}

function letGo(stop) {
  wanted = stop;
  $("go-title").textContent = `Let ${called(stop.scope, stop.name)} go on`;
  $("let-go").hidden = false;
  $("go-why").focus();
}

function choose() {
  const scope = $("stop").elements.scope.value;
  $("name-label").hidden = scope === "all";
  $("too-label").hidden = scope === "campaign"; // all of a campaign's mail is of one kind
  $("name").replaceChildren(...(names[scope] || []).map((one) =>
    h("option", { value: one.id }, one.called ? `${one.called} (${one.id})` : one.id)));
}

async function change(path, body) {
  $("error").textContent = "";
  const buttons = [...document.querySelectorAll("button")].filter((button) => !button.disabled);
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const state = await ask(path, body);
    show(state);
    if (path === "api/stop" && !state.changed) $("error").textContent = "That was stopped already; its reason stays as it was.";
    return true;
  } catch (error) {
    $("error").textContent = error.message;
    return false;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

$("scopes").addEventListener("change", choose);
$("go-cancel").addEventListener("click", keep);
$("let-go").addEventListener("submit", (event) => {
  event.preventDefault();
  change("api/go", { scope: wanted.scope, name: wanted.name, why: $("go-why").value });
});
$("stop").addEventListener("submit", async (event) => {
  event.preventDefault();
  const scope = $("stop").elements.scope.value;
  const done = await change("api/stop", {
    scope, name: scope === "all" ? "" : $("name").value, why: $("why").value,
    transactional_too: scope !== "campaign" && $("too").checked,
  });
  if (done) {
    $("stop").reset();
    choose();
  }
});

ask("api/stops").then((state) => {
  names = state.names;
  maySteer = state.may_steer;
  for (const field of $("stop").elements) field.disabled = !maySteer;
  if (!maySteer) $("effect").textContent = "You may look, but not stop anything: that takes the right to edit the DAG deliver.";
  choose();
  show(state);
}).catch((error) => { $("error").textContent = error.message; $("banner").hidden = true; });
