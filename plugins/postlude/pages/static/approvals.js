"use strict";

const HOW = { page: "here", airflow: "in Airflow", cli: "on the command line", system: "" };

function hours(from, to) {
  const left = Math.max(0, (new Date(to) - new Date(from)) / 3600000);
  return left < 48 ? `${Math.floor(left)} hours` : `${Math.floor(left / 24)} days`;
}

function counts(words, found) {
  const parts = Object.entries(found || {}).sort(([one], [other]) => one.localeCompare(other));
  return h("li", {}, `${words}: ${parts.slice(0, 10).map(([name, count]) => `${name}: ${figure(count)}`).join(", ")}${
    parts.length > 10 ? `, and ${parts.length - 10} more` : ""}`);
}

function request(one, now) {
  const facts = one.facts;
  const comment = h("input", { required: true, maxlength: "1000", autocomplete: "off", id: `comment-${one.approval}` });
  const most = h("input", { type: "number", min: "1", max: String(one.waiting), placeholder: "all", id: `most-${one.approval}` });
  const decide = (approve) => async (event) => {
    event.preventDefault();
    if (!comment.reportValidity() || !most.reportValidity()) return;
    $("done").textContent = "";
    const state = await once(() => ask("api/approval/decide", {
      approval: one.approval, approve, audience: one.audience, comment: comment.value, at_most: most.value ? Number(most.value) : null,
    }));
    if (!state) return;
    show(state);
    const done = state.done;
    if (done.changed) $("error").textContent = `The audience is no longer the one you looked at: nothing was released. Look at request ${done.asked_again}.`;
    else if (!approve) $("done").textContent = `Rejected: ${figure(done.cancelled)} messages are cancelled.`;
    else $("done").textContent = `Approved: ${figure(done.released)} messages may go${done.canary ? `, ${figure(done.canary)} of them first` : ""}.`;
    $("done").scrollIntoView({ block: "nearest" });
  };
  const last = facts.last_release;
  return h("section", { class: "card", "data-approval": String(one.approval) },
    h("h2", {}, `Send ${figure(one.messages)} messages of “${one.name}” to ${figure(one.people)} customers?`),
    h("p", { class: "soft" }, `Request ${one.approval} of ${instant(one.asked_at)}. ${figure(one.waiting)} messages wait. `
      + `The last of them expires at ${instant(one.expires_at)}, in ${hours(now, one.expires_at)}; then nothing of it is sent.`),
    one.changed ? h("p", { class: "banner stopped" }, "The audience has changed since it was asked: a yes releases nothing, and asks anew.") : null,
    h("div", { class: "two" },
      h("div", {}, h("h3", {}, "Why you are asked"),
        tabled(["what", { text: "found", number: true }, { text: "limit", number: true }, { text: "usual", number: true }],
          one.causes.map((cause) => [cause.words, figure(cause.found), figure(Math.round(cause.limit)),
            cause.usual == null ? "" : figure(Math.round(cause.usual))]))),
      h("div", {}, h("h3", {}, "Against the last release"),
        last ? h("ul", { class: "words" },
          h("li", {}, `${instant(last)}: ${figure(facts.last_people)} customers`),
          h("li", {}, `${figure(facts.entered)} are new in it`),
          h("li", {}, `${figure(facts.departed)} are no longer in it`),
          h("li", {}, `${figure(facts.known)} had mail of this campaign planned before`))
          : h("p", {}, "There is none before this one."),
        h("ul", { class: "words" }, counts("per step", facts.steps), counts("customers per shop", facts.shops), counts("per day", Object.fromEntries(Object.entries(facts.days || {}).map(([day, count]) => [day.slice(5), count])))))),
    one.sample.length === 0 ? null : h("details", { open: true }, h("summary", {}, `${one.sample.length} of them`),
      tabled(["customer", "step", "in since", "last order", { text: "orders", number: true }],
        one.sample.map((person) => [String(person.customer), person.step,
          `${person.order ? `order ${person.order}, ` : ""}${(person.since || "").slice(0, 10)}`, (person.last_order || "unknown").slice(0, 10),
          figure(person.orders || 0)]))),
    h("form", {}, h("div", { class: "row" },
      h("label", { class: "grow" }, "Why?", comment), h("label", {}, "At most so many", most),
      h("button", { type: "submit", disabled: !one.may, onclick: decide(true) }, "Approve"),
      h("button", { type: "button", class: "stop", disabled: !one.may, onclick: decide(false) }, "Reject")),
    one.may ? null : h("p", { class: "soft" }, one.by.length ? `Only ${one.by.join(", ")} may answer.` : "To answer takes the right to edit the DAG deliver.")),
    h("p", { class: "soft" }, `Audience ${one.audience.slice(0, 16)}. The answer holds for exactly these messages.`));
}

function show(state) {
  $("banner").classList.toggle("stopped", state.open.length > 0);
  $("banner").textContent = state.open.length === 0 ? "Nothing waits for an approval."
    : `${state.open.length === 1 ? "One plan waits" : `${state.open.length} plans wait`} for a yes. Nothing of it goes out before.`;
  $("open").replaceChildren(...state.open.map((one) => request(one, state.now)));
  $("past").hidden = state.decided.length === 0;
  $("decided").replaceChildren(tabled(["request", "campaign", { text: "messages", number: true }, "decision", "why", "effect"],
    state.decided.map((one) => [String(one.approval), one.campaign, figure(one.messages),
      `${one.decision}${one.by && one.via !== "system" ? ` by ${one.by}` : ""}${one.at ? `, ${instant(one.at)}` : ""} ${HOW[one.via] || ""}`.trim(),
      one.comment, one.released ? `${figure(one.released)} released` : one.cancelled ? `${figure(one.cancelled)} cancelled` : ""])));
}

ask("api/approvals").then(show).catch((error) => { $("error").textContent = error.message; $("banner").hidden = true; });
