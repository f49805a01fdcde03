"use strict";

let known = {};
let story = null;
let shown = null;

const SHORT = { planned: "planned", scheduled: "waiting", held: "held", sent: "sent", delivered: "delivered", opened: "opened",
  clicked: "clicked", unsubscribed: "left", complained: "complained", bounced: "bounced", skipped: "refused by a rule",
  cancelled: "ended before", expired: "too late", failed: "failed", unknown: "unknown" };

async function choose(id) {
  const told = await once(() => ask("api/campaign/story", { campaign: id }));
  $("story").hidden = !told;
  if (!told) return;
  story = told;
  $("name").textContent = told.name;
  $("words").replaceChildren(...told.words.map((part) => h("div", {}, h("h3", {}, part.heading),
    h("ul", { class: "words" }, part.sentences.map((sentence) => h("li", {}, sentence))))));
  $("counted").textContent = told.counted_at ? `As counted at ${instant(told.counted_at)}; it is counted every ten minutes.`
    : "Nothing was counted yet; the DAG feedback counts every ten minutes.";
  const passages = told.passages;
  const facts = [["started", passages.begun], ["under way", passages.under_way], ["left alone to measure", passages.left_alone],
    ...passages.ended.map((end) => [`ended: ${end.reason.replaceAll("_", " ")}`, end.count])];
  if (told.segment) facts.unshift([`in “${told.segment.id}” now`, told.segment.customers]);
  $("facts").replaceChildren(...facts.map(([words, count]) => h("div", {}, h("span", { class: "big" }, figure(count)),
    h("span", { class: "soft" }, words))));
  const always = ["planned", "sent"];
  const keys = Object.keys(SHORT).filter((key) => always.includes(key) || told.funnel.some((step) => step[key]));
  $("funnel").replaceChildren(tabled(["step", ...keys.map((key) => ({ text: SHORT[key], number: true }))],
    told.funnel.map((step) => [step.step + (step.gone ? " (no longer in the file)" : ""), ...keys.map((key) => (
      ["delivered", "opened", "clicked", "unsubscribed", "complained", "bounced"].includes(key) && step.sent
        ? `${figure(step[key])} · ${(100 * step[key] / step.sent).toFixed(1)} %` : figure(step[key])))])));
  const any = told.days.some((day) => day.sent || day.planned || day.held);
  $("days").replaceChildren(any ? chart("Messages per day: sent, and planned from today on", told.days,
    { bars: { sent: "sent", planned: "planned", held: "held" } })
    : h("p", { class: "soft" }, "Nothing was sent in the last 30 days, and nothing is planned for the next 45."));
  $("reasons").replaceChildren(told.reasons.length === 0 ? h("p", { class: "soft" }, "Nothing was refused and nothing was put off.")
    : tabled([{ text: "how often", number: true }, "what", "reason", "which means"],
      told.reasons.map((one) => [figure(one.count), one.what, one.reason, one.meaning])));
  $("customers").replaceChildren();
  $("message").hidden = true;
  $("done").textContent = "";
  $("step").replaceChildren(...told.steps.map((step) => h("option", { value: step.id }, step.id)));
  stepped();
}

function stepped() {
  const step = story.steps.find((one) => one.id === $("step").value);
  $("variant-label").hidden = step.variants.length === 0;
  $("variant").replaceChildren(...step.variants.map((name) => h("option", { value: name }, name)));
  $("channel-label").hidden = step.channels.length < 2;
  $("channel").replaceChildren(...step.channels.map((name) => h("option", { value: name }, name)));
  $("locale").replaceChildren(...step.locales.map((name) => h("option", { value: name }, name)));
  personed();
}

function personed() {
  const real = $("person").value === "a customer";
  $("customer-label").hidden = !real;
  $("customer").required = real;
  const own = $("locale").querySelector("option[value='']");
  if (real && !own) $("locale").prepend(h("option", { value: "", selected: true }, "their own"));
  if (!real && own) own.remove();
}

function wished() {
  const real = $("person").value === "a customer";
  return {
    campaign: story.id, step: $("step").value, variant: $("variant").value || "", channel: $("channel").value || "",
    person: real ? "" : $("person").value, customer: real ? Number($("customer").value) : null, locale: $("locale").value || "",
  };
}

function draw() {
  const shape = document.querySelector("input[name=shape]:checked").value;
  $("mail").hidden = shape === "text";
  $("text").hidden = shape !== "text";
  $("mail").className = shape;
  if (shape !== "text") {
    $("mail").src = "mail-frame"; // anew each time: what a message does to its frame ends with it
  }
}

$("mail").addEventListener("load", () => {
  if (shown) $("mail").contentWindow.postMessage({ html: shown.html }, "*");
});
$("shape").addEventListener("change", draw);
$("campaign").addEventListener("change", () => choose($("campaign").value));
$("choose").addEventListener("submit", (event) => event.preventDefault());
$("step").addEventListener("change", stepped);
$("person").addEventListener("change", personed);

$("look").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("done").textContent = "";
  const message = await once(() => ask("api/campaign/preview", wished()));
  $("message").hidden = !message;
  if (!message) return;
  shown = message;
  $("subject").textContent = message.subject;
  $("size").textContent = message.html ? `${Math.ceil(message.bytes / 1024)} KB; more than 102 KB is cut off by mail programs` : "";
  $("text").textContent = message.text;
  if (!message.html) document.querySelector("input[value=text]").checked = true;
  draw();
});

$("test").addEventListener("click", async () => {
  $("done").textContent = "";
  if (!$("look").reportValidity()) return;
  const told = await once(() => ask("api/campaign/test", wished()));
  if (told) $("done").textContent = `Sent to the mail catcher, to ${told.sent_to}.`;
});

$("sample").addEventListener("click", async () => {
  const found = await once(() => ask("api/campaign/audience", { campaign: story.id }));
  if (!found) return;
  $("customers").replaceChildren(found.customers.length === 0 ? h("p", { class: "soft" }, "Nobody is under way now.") : tabled(
    ["customer", "began", "group", "stage", { text: "orders", number: true }, "next message", "due"],
    found.customers.map((one) => [String(one.customer), instant(one.anchor_at), one.arm === "holdout" ? "left alone" : "gets it",
      (one.stage || "").replace("_", " "), figure(one.orders), one.step || "", instant(one.send_at)])));
});

ask("api/campaign/list").then((found) => {
  known = found;
  const faulty = found.campaigns.filter((one) => one.fault);
  $("campaign").replaceChildren(...found.campaigns.filter((one) => !one.fault).map((one) =>
    h("option", { value: one.id }, `${one.name} (${one.id})`)));
  if (faulty.length) $("error").textContent = faulty.map((one) => one.fault).join("\n");
  $("person").replaceChildren(...found.people.map((name) => h("option", { value: name }, name)),
    found.may_know ? h("option", { value: "a customer" }, "a customer …") : "");
  if (!found.may_steer) {
    $("test").hidden = true;
    $("sample").hidden = true;
    $("may").textContent = "To see customers takes the right to edit the DAG deliver.";
  }
  if ($("campaign").value) return choose($("campaign").value);
  return undefined;
}).catch((error) => { $("error").textContent = error.message; });
