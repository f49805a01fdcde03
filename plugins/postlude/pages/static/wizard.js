"use strict";

let library = null;
let made = null;
let shown = null;

function choose() {
  const one = library.patterns.find((pattern) => pattern.id === $("pattern").value);
  $("about").textContent = `${one.description} It starts when ${one.starts}.`;
  $("id").value = "";
  $("name").value = one.name;
  $("owner").value = one.owner;
  $("description").value = one.description;
  $("segment-label").hidden = !one.segment;
  if (one.segment) $("segment").value = one.segment;
  $("holdout").value = String(Math.round(one.holdout * 100));
  $("steps").replaceChildren(tabled(["keep", "step", "when", "template"], one.steps.map((step) => [
    h("input", { type: "checkbox", checked: true, "data-step": step.id, "data-key": "keep", "aria-label": `keep ${step.id}` }), step.id,
    step.on_day != null ? h("label", { class: "inline" }, "day ", h("input", { type: "number", min: "0", max: "730", value: String(step.on_day), "data-step": step.id, "data-key": "on_day", "aria-label": `day of ${step.id}` }))
      : step.after ? h("label", { class: "inline" }, "after ", h("input", { value: step.after, "data-step": step.id, "data-key": "after", "aria-label": `${step.id} after` })) : "at once",
    step.template ? h("select", { "data-step": step.id, "data-key": "template", "aria-label": `template of ${step.id}` },
      library.templates.map((name) => h("option", { value: name, selected: name === step.template }, name))) : "several variants",
  ])));
  changed();
}

function changed() {
  made = null;
  $("made").hidden = true;
}

function wished() {
  const one = library.patterns.find((pattern) => pattern.id === $("pattern").value);
  const steps = one.steps.map((step) => {
    const said = { id: step.id };
    for (const input of $("steps").querySelectorAll("[data-step]")) {
      if (input.dataset.step !== step.id) continue;
      said[input.dataset.key] = input.type === "checkbox" ? input.checked : input.type === "number" ? Number(input.value) : input.value;
    }
    return said;
  });
  return {
    pattern: one.id, id: $("id").value, name: $("name").value, owner: $("owner").value, description: $("description").value,
    segment: one.segment ? $("segment").value : "", holdout: Number($("holdout").value) / 100, steps,
  };
}

$("draft").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = await once(() => ask("api/wizard/draft", wished()));
  if (!told) return;
  made = told;
  $("made").hidden = false;
  $("faults").replaceChildren(...told.faults.map((fault) => h("li", {}, fault)));
  $("faults").hidden = told.faults.length === 0;
  $("words").replaceChildren(...told.words.map((part) => h("div", {}, h("h3", {}, part.heading),
    h("ul", { class: "words" }, part.sentences.map((sentence) => h("li", {}, sentence))))));
  $("text").textContent = told.yaml;
  $("step").replaceChildren(...wished().steps.filter((step) => step.keep !== false).map((step) => h("option", { value: step.id }, step.id)));
  for (const id of ["simulate", "yaml", "patch"]) $(id).disabled = told.faults.length > 0;
  $("message").hidden = true;
  $("simulated").replaceChildren();
  $("made-title").focus();
});

$("look").addEventListener("submit", async (event) => {
  event.preventDefault();
  const message = await once(() => ask("api/wizard/preview", { ...wished(), step: $("step").value, person: $("person").value, locale: $("locale").value }));
  $("message").hidden = !message;
  if (!message) return;
  shown = message;
  $("subject").textContent = message.subject;
  $("mail").src = "mail-frame";
});
$("mail").addEventListener("load", () => {
  if (shown) $("mail").contentWindow.postMessage({ html: shown.html || shown.text }, "*");
});

$("simulate").addEventListener("click", async () => {
  const mine = made;
  const started = await once(() => ask("api/wizard/simulate", wished()));
  if (!started) return;
  $("working").textContent = "Working it out on a copy …";
  for (;;) {
    let told = null;
    try {
      told = await ask("api/wizard/simulated", { job: started.job });
    } catch (error) {
      $("working").textContent = error.message;
      return;
    }
    if (made !== mine) return;
    if (told.done) {
      $("working").textContent = "";
      outcome(told);
      return;
    }
    $("working").textContent = `Working it out on a copy: ${told.seconds} seconds …`;
    await new Promise((done) => { setTimeout(done, 1500); });
  }
});

function outcome(told) {
  const id = $("id").value;
  const days = new Map();
  for (const row of told.days.filter((one) => one.campaign === id)) {
    const day = String(row.day).slice(0, 10);
    days.set(day, { day, sent: (days.get(day)?.sent || 0) + row.sent });
  }
  const refused = new Map();
  for (const row of told.refusals.filter((one) => one.campaign === id)) refused.set(row.reason, (refused.get(row.reason) || 0) + row.customers);
  $("simulated").replaceChildren(
    days.size ? chart("Messages it would send per day", [...days.values()].sort((one, other) => one.day.localeCompare(other.day)), { bars: { sent: "sent" } })
      : h("p", {}, "It would send nothing in the next 45 days."),
    refused.size ? h("ul", { class: "words" }, [...refused].map(([reason, count]) => h("li", {}, `${figure(count)} customers not enrolled: ${reason}`))) : "",
    h("ul", { class: "words soft" }, told.assumptions.map((line) => h("li", {}, line))));
}

$("yaml").addEventListener("click", () => save(`${$("id").value}.yml`, made.yaml, "text/yaml"));
$("patch").addEventListener("click", () => save(`${$("id").value}.patch`, made.patch, "text/x-patch"));
$("pattern").addEventListener("change", choose);
$("draft").addEventListener("input", changed);

ask("api/wizard").then((told) => {
  library = told;
  $("pattern").replaceChildren(...told.patterns.map((one) => h("option", { value: one.id }, `${one.name} (${one.id})`)));
  $("segment").replaceChildren(...told.segments.map((one) => h("option", { value: one.id }, one.name)));
  $("person").replaceChildren(...told.people.map((name) => h("option", { value: name }, name)));
  choose();
  if (!told.may_steer) {
    for (const field of $("draft").elements) field.disabled = true;
    $("help").textContent = "You may look, but not draft a campaign: that takes the right to edit the DAG deliver.";
  }
}).catch((error) => { $("error").textContent = error.message; });
