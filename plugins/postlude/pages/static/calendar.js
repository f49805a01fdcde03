"use strict";

const KINDS = ["sent", "planned", "held", "forecast"];
const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const KEYS = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];
const MOST = 4; // campaigns that are shown on a day of the month
const SHORT_OF = { sent: "sent", planned: "planned", held: "held", forecast: "forecast" };

let state = null; // as the server told it
let anchor = null; // a day of what is shown
let view = "month";
let focused = null; // the day that has the keyboard
let draft = null; // {edits, why, base, job}

// days are texts, "2026-12-24"; arithmetic in UTC
const dayOf = (text) => new Date(`${text}T00:00:00Z`);
const textOf = (date) => date.toISOString().slice(0, 10);
const shift = (text, days) => textOf(new Date(dayOf(text).getTime() + days * 86400000));
const between = (one, other) => Math.round((dayOf(other) - dayOf(one)) / 86400000);
const weekday = (text) => (dayOf(text).getUTCDay() + 6) % 7;
const inWords = (text) => `${WEEKDAYS[weekday(text)]} ${Number(text.slice(8))} ${MONTHS[Number(text.slice(5, 7)) - 1]}`;
const inShort = (text) => `${WEEKDAYS[weekday(text)]} ${Number(text.slice(8))} ${MONTHS[Number(text.slice(5, 7)) - 1].slice(0, 3)}`;

function span() {
  if (view === "week") return [shift(anchor, -weekday(anchor)), shift(anchor, 6 - weekday(anchor))];
  if (view === "list") return [anchor, shift(anchor, 44)];
  const first = `${anchor.slice(0, 7)}-01`;
  const next = textOf(new Date(Date.UTC(Number(anchor.slice(0, 4)), Number(anchor.slice(5, 7)), 1)));
  const last = shift(next, -1);
  return [shift(first, -weekday(first)), shift(last, 6 - weekday(last))];
}

async function load() {
  const [first, last] = span();
  $("view").before($("error"));
  const told = await once(() => ask(`api/calendar?first=${first}&last=${last}`));
  if (!told) return;
  state = told;
  const chosen = $("only").value;
  $("only").replaceChildren(h("option", { value: "" }, "all"), ...state.campaigns.map((one) =>
    h("option", { value: one.id, selected: one.id === chosen }, one.name)));
  $("change").hidden = !state.may_steer;
  $("more").hidden = !state.may_steer;
  $("legend").textContent = [
    state.counted_at ? `Sent and planned as counted at ${instant(state.counted_at)}.` : "Nothing was counted yet.",
    state.forecast_at ? `Forecast of ${instant(state.forecast_at)}.` : "No forecast was worked out yet.",
    state.may_steer ? "" : "To change something takes the right to edit the DAG deliver.",
  ].join(" ");
  rules();
  if ($("fields").children.length === 0) fields(); // else somebody is filling it in
  draw();
}

const nameOf = (id) => (state.campaigns.find((one) => one.id === id) || { name: id }).name;
const colourOf = (id) => `series-${Math.max(state.campaigns.findIndex((one) => one.id === id), 0) % 8}`;
const wanted = (count) => !$("only").value || count.campaign === $("only").value;

/** Per campaign of a day: {sent, planned, held, forecast}. A forecast of what is planned already is not shown beside it. */
function perCampaign(day) {
  const found = new Map();
  for (const count of day.counts.filter(wanted)) {
    const sum = found.get(count.campaign) || {};
    for (const kind of KINDS) if (count[kind]) sum[kind] = (sum[kind] || 0) + count[kind];
    found.set(count.campaign, sum);
  }
  return [...found].sort(([one], [other]) => nameOf(one).localeCompare(nameOf(other)));
}

const said = (counts) => KINDS.filter((kind) => counts[kind]).map((kind) => `${figure(counts[kind])} ${SHORT_OF[kind]}`).join(", ");

function marks(day) {
  const found = [];
  if (day.blackout) found.push(chip("blackout", `no mail: ${day.blackout}`, { kind: "blackout", day: day.day, why: day.blackout }));
  for (const special of state.specials.filter((one) => one.date === day.day)) {
    found.push(chip("special", `${special.kind}: ${special.name}`, { kind: "special", special }));
  }
  for (const pause of state.pauses.filter((one) => one.from <= day.day && day.day <= one.until)) {
    if (!$("only").value || pause.campaign === "all" || pause.campaign === $("only").value) {
      found.push(chip("pause", `${pause.campaign === "all" ? "all marketing" : nameOf(pause.campaign)} paused: ${pause.why}`, { kind: "pause", pause }));
    }
  }
  for (const occasion of state.occasions.filter((one) => one.date === day.day)) found.push(h("div", { class: "mark" }, `occasion: ${occasion.why}`));
  const by = new Map();
  for (const holiday of day.holidays) by.set(holiday.name, [...(by.get(holiday.name) || []), holiday]);
  for (const [name, those] of by) {
    found.push(h("div", { class: `mark holiday${those.some((one) => one.closed) ? " closed" : ""}` },
      `${those.map((one) => one.country).join(", ")} ${name}${those.some((one) => one.closed) ? ": no mail there" : ""}`));
  }
  return found;
}

/** Something of a day that can be dragged to another one, or changed with the form. */
function chip(kind, words, moved) {
  const may = state.may_steer && moved;
  return h("button", {
    type: "button", class: `mark ${kind}`, draggable: may ? "true" : null, disabled: !may, title: words,
    ondragstart: (event) => { event.dataTransfer.setData("text/plain", JSON.stringify(moved)); event.dataTransfer.effectAllowed = "move"; },
    onclick: () => open(moved, null),
  }, words);
}

function cell(day) {
  const outside = view === "month" && day.day.slice(0, 7) !== anchor.slice(0, 7);
  const counts = perCampaign(day);
  const label = `${inWords(day.day)}${day.blackout ? ", no mail" : ""}${counts.length ? `, ${counts.map(([id, sum]) => `${nameOf(id)} ${said(sum)}`).join("; ")}` : ""}`;
  return h("td", {
    role: "gridcell", "data-day": day.day, tabindex: day.day === focused ? "0" : "-1", "aria-label": label,
    "aria-current": day.day === state.today ? "date" : null,
    class: `day${outside ? " outside" : ""}${day.blackout ? " closed" : ""}`,
    ondragover: (event) => { event.preventDefault(); event.currentTarget.classList.add("over"); },
    ondragleave: (event) => event.currentTarget.classList.remove("over"),
    ondrop: (event) => { event.preventDefault(); dropped(event, day.day); },
    onkeydown: keyed,
    ondblclick: () => state.may_steer && open({ kind: "day" }, day.day),
  },
  h("span", { class: "number" }, String(Number(day.day.slice(8)))),
  marks(day),
  few(day, counts));
}

/** The campaigns with the most messages; the others in a line that leads to the week. */
function few(day, counts) {
  if (counts.length <= MOST + 1) return counts.map(([id, sum]) => lines(day, id, sum));
  const all = ([, sum]) => KINDS.reduce((most, kind) => Math.max(most, sum[kind] || 0), 0);
  const big = new Set([...counts].sort((one, other) => all(other) - all(one)).slice(0, MOST));
  const rest = counts.filter((one) => !big.has(one));
  return [...counts.filter((one) => big.has(one)).map(([id, sum]) => lines(day, id, sum)),
    h("button", { type: "button", class: "link more", title: rest.map(([id, sum]) => `${nameOf(id)}: ${said(sum)}`).join("\n"),
      onclick: () => { anchor = day.day; focused = day.day; look("week"); scrollTo(0, 0); } }, `and ${rest.length} more`)];
}

/** A campaign's counts on a day; its planned steps can be dragged. bare: its name stands beside them. */
function lines(day, id, sum, bare = false) {
  const planned = day.counts.filter((count) => count.campaign === id && (count.planned || count.held || count.forecast));
  const one = state.campaigns.find((campaign) => campaign.id === id);
  const step = planned.length === 1 && one ? one.steps.find((part) => part.id === planned[0].step) : null;
  const moved = step && day.day >= state.today ? { kind: "step", campaign: id, step, day: day.day } : null;
  return h(moved && state.may_steer ? "button" : "div", {
    type: moved && state.may_steer ? "button" : null, class: `count ${colourOf(id)}`, draggable: moved && state.may_steer ? "true" : null,
    title: `${nameOf(id)}: ${said(sum)}`,
    ondragstart: (event) => { event.dataTransfer.setData("text/plain", JSON.stringify(moved)); event.dataTransfer.effectAllowed = "move"; },
    onclick: () => moved && open(moved, null),
  }, h("span", { class: bare ? "hidden" : "who" }, `${nameOf(id)} `), KINDS.filter((kind) => sum[kind]).map((kind) =>
    h("span", { class: `amount ${kind}` }, figure(sum[kind]), h("span", { class: "kind" }, ` ${SHORT_OF[kind]}`))));
}

function draw() {
  const [first, last] = span();
  $("span").textContent = view === "month" ? `${MONTHS[Number(anchor.slice(5, 7)) - 1]} ${anchor.slice(0, 4)}` : `${inShort(first)}${first.slice(0, 4) === last.slice(0, 4) ? "" : ` ${first.slice(0, 4)}`} – ${inShort(last)} ${last.slice(0, 4)}`;
  if (!state.days.some((day) => day.day === focused)) focused = state.days.some((day) => day.day === state.today) ? state.today : state.days[0].day;
  if (view === "month") $("view").replaceChildren(month());
  if (view === "week") $("view").replaceChildren(week());
  if (view === "list") $("view").replaceChildren(list());
}

function month() {
  const weeks = [];
  for (let i = 0; i < state.days.length; i += 7) weeks.push(h("tr", { role: "row" }, state.days.slice(i, i + 7).map(cell)));
  return h("table", { class: "month", role: "grid", "aria-labelledby": "span" },
    h("thead", {}, h("tr", { role: "row" }, WEEKDAYS.map((name) => h("th", { scope: "col", role: "columnheader" }, name)))), h("tbody", {}, weeks));
}

/** A row per campaign, with its window, those that have mail in these days first; a column per day. */
function week() {
  const busy = new Set(state.days.flatMap((day) => day.counts.map((count) => count.campaign)));
  const rows = state.campaigns.filter((one) => !$("only").value || one.id === $("only").value)
    .sort((one, other) => busy.has(other.id) - busy.has(one.id));
  return h("div", { class: "wide" }, h("table", { class: "week" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "campaign"), state.days.map((day) =>
      h("th", { scope: "col", "aria-current": day.day === state.today ? "date" : null, "aria-label": inWords(day.day) }, inShort(day.day), marks(day))))),
    h("tbody", {}, rows.map((one) => {
      const opening = one.window || state.window;
      return h("tr", {}, h("th", { scope: "row", class: `count ${colourOf(one.id)}` }, one.name,
        h("span", { class: "kind" }, one.kind === "transactional" ? "at any hour" : `${opening.opens}–${opening.closes}`)),
      state.days.map((day) => {
        const mine = perCampaign({ ...day, counts: day.counts.filter((count) => count.campaign === one.id) })[0];
        const open_ = one.kind === "transactional" || (opening.days.includes(KEYS[weekday(day.day)]) && !day.blackout);
        return h("td", { class: `day${open_ ? "" : " closed"}`, "data-day": day.day,
          ondragover: (event) => { event.preventDefault(); event.currentTarget.classList.add("over"); },
          ondragleave: (event) => event.currentTarget.classList.remove("over"),
          ondrop: (event) => { event.preventDefault(); dropped(event, day.day); } },
        mine ? lines(day, one.id, mine[1], true) : h("span", { class: "soft" }, open_ ? "" : "closed"));
      }));
    }))));
}

function list() {
  const rows = state.days.flatMap((day) => {
    const counts = perCampaign(day), notes = marks(day);
    if (counts.length === 0 && notes.length === 0) return [];
    const all = counts.map(([id, sum]) => [nameOf(id), ...KINDS.map((kind) => (sum[kind] ? figure(sum[kind]) : ""))]);
    const rest = notes.map((note) => [note, "", "", "", ""]);
    return [...rest, ...all].map((row, i) => [i === 0 ? inWords(day.day) : "", ...row]);
  });
  return rows.length ? tabled(["day", "what", ...KINDS.map((kind) => ({ text: SHORT_OF[kind], number: true }))], rows)
    : h("p", { class: "soft" }, "Nothing was sent, and nothing is planned, in these days.");
}

/** Arrows walk over the days, Enter opens the form for one. */
function keyed(event) {
  if (event.target !== event.currentTarget) return;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -7, ArrowDown: 7 };
  if (event.key === "Enter" && state.may_steer) {
    event.preventDefault();
    open({ kind: "day" }, event.currentTarget.dataset.day);
  } else if (steps[event.key]) {
    event.preventDefault();
    const to = shift(event.currentTarget.dataset.day, steps[event.key]);
    focused = to;
    if (to.slice(0, 7) !== anchor.slice(0, 7)) {
      anchor = to;
      load().then(() => focusDay());
    } else focusDay();
  }
}

function focusDay() {
  for (const one of document.querySelectorAll("td[data-day]")) one.tabIndex = one.dataset.day === focused ? 0 : -1;
  document.querySelector(`td[data-day="${focused}"]`)?.focus();
}

function dropped(event, day) {
  event.currentTarget.classList.remove("over");
  let moved = null;
  try { moved = JSON.parse(event.dataTransfer.getData("text/plain")); } catch { return; }
  open(moved, day);
}

function rules() {
  const open_ = state.window;
  $("rules").replaceChildren(h("h2", {}, "What holds everywhere"), h("ul", { class: "words" },
    h("li", {}, `Marketing goes from ${open_.opens} to ${open_.closes} on the recipient’s clock, ${open_.days.length === 7 ? "every day" : open_.days.join(", ")}.`),
    state.caps.map((words) => h("li", {}, `One person gets ${words}.`)),
    state.campaigns.filter((one) => one.window).map((one) => h("li", {}, `${one.name}: ${one.window.opens} to ${one.window.closes}${one.window.days.length === 7 ? "" : `, ${one.window.days.join(", ")}`}.`)),
    state.campaigns.flatMap((one) => one.steps.filter((step) => step.moved).map((step) => h("li", {}, `${one.name}, ${step.id}: moved to ${step.on_day != null ? `day ${step.on_day}` : step.after}.`)))));
}

// ---------------------------------------------------------------- changing it

const movable = (one) => one.steps.some((step) => step.on_day != null || step.after);
const campaignField = (all, fit = () => true) => field("campaign", "Campaign", state.campaigns.filter((one) => fit(one)
  && !state.specials.some((special) => special.id === one.id)).map((one) => [one.id, one.name]), all);

function field(name, words, options, first) {
  if (options && options.length === 0 && !first) return h("label", {}, words, h("select", { name, required: true }, h("option", { value: "" }, "there is none")));
  if (options) return h("label", {}, words, h("select", { name }, first ? h("option", { value: first[0] }, first[1]) : null, options.map(([value, text]) => h("option", { value }, text))));
  const type = { date: "date", from: "date", until: "date", on: "date", at: "time", opens: "time", closes: "time", most: "number", on_day: "number" }[name] || "text";
  const id = name === "id" ? { pattern: "[a-z][a-z0-9_]{1,47}", title: "lower-case letters, digits and _, e.g. summer_sale", maxlength: "48" } : {};
  return h("label", {}, words, h("input", { ...id, name, type, min: type === "number" ? "0" : null, autocomplete: "off", required: !words.includes("(") }));
}

function fields(values = {}) {
  const kind = $("do").value;
  const steps = () => {
    const one = state.campaigns.find((campaign) => campaign.id === $("fields").querySelector("[name=campaign]").value);
    return one ? one.steps : [];
  };
  const special = () => [field("id", "Short name: letters, digits, _"), field("name", "Name"), field("date", "On"), field("until", "Not later than (or empty)"),
    field("segment", "To everybody in", state.segments.map((one) => [one.id, one.name])), field("template", "Template", state.templates.map((name) => [name, name])),
    field("at", "At (empty: when the window opens)")];
  const made = {
    pause: () => [campaignField(["all", "all marketing"]), field("from", "From"), field("until", "Until, included")],
    resume: () => [field("campaign", "Campaign", [...new Set(state.pauses.map((one) => one.campaign))].map((id) => [id, id === "all" ? "all marketing" : nameOf(id)])), field("on", "Goes again from")],
    move: () => [campaignField(null, movable), field("step", "Step", []), field("on_day", "To day"), field("in_flight", "Those under way", [["finish", "keep their old day"], ["migrate", "move along"], ["stop", "get nothing more of it"]])],
    add_blackout: () => [field("date", "Day")],
    remove_blackout: () => [field("date", "Day", state.blackouts.map((one) => [one.date, `${one.date} ${one.why}`]))],
    window: () => [campaignField(["", "all campaigns"]), field("opens", "Opens"), field("closes", "Closes")],
    cap: () => [field("most", "At most"), field("per", "per", [["day", "day"], ["week", "week"], ["month", "month"]])],
    offer: special, card: special,
    cancel: () => [field("id", "Which", state.specials.map((one) => [one.id, `${one.name}, ${one.date}`]))],
  }[kind]();
  $("fields").replaceChildren(...made);
  const chosen = $("fields").querySelector("[name=campaign]");
  const step = $("fields").querySelector("[name=step]");
  if (step) {
    // a step falls due on a day, or so long after what starts the campaign: it is moved in the same words
    const worded = () => {
      const one = steps().find((part) => part.id === step.value);
      const now = $("fields").querySelector("[name=on_day], [name=after]").parentElement;
      now.replaceWith(one?.on_day == null ? field("after", "To so long after, e.g. 5 days") : field("on_day", "To day"));
    };
    const fill = () => {
      step.replaceChildren(...steps().filter((one) => one.on_day != null || one.after).map((one) =>
        h("option", { value: one.id }, `${one.id} (${one.on_day != null ? `day ${one.on_day}` : one.after})`)));
      worded();
    };
    chosen.addEventListener("change", fill);
    step.addEventListener("change", worded);
    if (values.campaign) chosen.value = values.campaign;
    fill();
    if (values.step) step.value = values.step;
    worded();
  }
  if (kind === "window") {
    const fill = () => {
      const one = state.campaigns.find((campaign) => campaign.id === chosen.value);
      const now = one?.window || state.window;
      $("fields").querySelector("[name=opens]").value = now.opens;
      $("fields").querySelector("[name=closes]").value = now.closes;
    };
    chosen.addEventListener("change", fill);
    fill();
  }
  for (const [name, value] of Object.entries(values)) {
    const input = $("fields").querySelector(`[name=${name}]`);
    if (input && value != null) input.value = input.type === "time" ? String(value).slice(0, 5) : value;
  }
}

/** The form, filled in from what was dragged or chosen. */
function open(moved, day) {
  forget();
  const was = { day: ["add_blackout", { date: day }], blackout: ["remove_blackout", { date: moved.day }] }[moved.kind];
  let filled = was;
  if (moved.kind === "special") filled = [moved.special.kind, { ...moved.special, date: day || moved.special.date }];
  if (moved.kind === "pause") filled = day ? ["pause", { campaign: moved.pause.campaign, from: day, until: shift(day, between(moved.pause.from, moved.pause.until)) }]
    : ["resume", { campaign: moved.pause.campaign, on: state.today > moved.pause.from ? state.today : moved.pause.from }];
  if (moved.kind === "step") filled = ["move", { campaign: moved.campaign, step: moved.step.id, on_day: moved.step.on_day == null ? null : moved.step.on_day + (day ? between(moved.day, day) : 0), in_flight: "migrate" }];
  if (moved.kind === "blackout" && day) filled = ["add_blackout", { date: day }];
  $("do").value = filled[0];
  fields(filled[1]);
  // what is dragged away leaves where it was
  $("edit").also = day && moved.kind === "blackout" ? [{ do: "remove_blackout", date: moved.day }]
    : day && moved.kind === "pause" ? [{ do: "resume", campaign: moved.pause.campaign, on: moved.pause.from }] : [];
  if (moved.kind === "blackout" && day) $("why").value = moved.why;
  $("change").scrollIntoView({ block: "nearest" });
  ($("fields").querySelector("input, select") || $("why")).focus();
}

function edits() {
  const edit = { do: $("do").value };
  for (const input of $("fields").querySelectorAll("[name]")) {
    if (input.value !== "") edit[input.name] = input.type === "number" ? Number(input.value) : input.value;
  }
  if (edit.do === "window") edit.days = (state.campaigns.find((one) => one.id === edit.campaign)?.window || state.window).days;
  return [...($("edit").also || []), edit];
}

function forget() {
  draft = null;
  $("edit").also = [];
  $("contract").hidden = true;
  $("edit").reset();
  fields();
}

$("edit").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("done").textContent = "";
  const mine = { edits: edits(), why: $("why").value, base: state.base };
  $("edit").after($("error")); // what is wrong stands by the form
  $("contract").hidden = true;
  const words = await once(() => ask("api/calendar/draft", mine));
  if (!words) { await overtaken(); return; }
  draft = mine;
  $("contract").hidden = false;
  $("contract-title").textContent = "This would be saved";
  $("means").replaceChildren(...words.words.map((line) => h("li", {}, line)));
  $("effect").replaceChildren();
  $("save").disabled = true;
  $("contract-title").focus();
  const started = await once(() => ask("api/calendar/check", mine));
  if (!started || draft !== mine) { $("working").textContent = "It could not be looked ahead."; return; }
  mine.job = started.job;
  const told = await follow(started.job, () => draft === mine, $("working"));
  if (!told) return;
  $("effect").replaceChildren(...(told.words.length ? told.words : ["Nobody gets anything else, or at another time."]).map((line) => h("li", {}, line)));
  $("save").disabled = false;
});

/** Wait for a look ahead; null when it failed, or is wanted no longer. */
async function follow(job, still, at) {
  at.textContent = "Working it out on a copy …";
  while (still()) {
    let told = null;
    try {
      told = await ask("api/calendar/checked", { job });
    } catch (error) {
      at.textContent = error.message;
      return null;
    }
    if (told.done) { at.textContent = ""; return told; }
    at.textContent = `Working it out on a copy: ${told.seconds} seconds …`;
    await new Promise((done) => { setTimeout(done, 1500); });
  }
  return null;
}

/** Somebody else was faster: their calendar is shown, what this reader typed stays, and can be asked again over it. */
async function overtaken() {
  const told = $("error").textContent;
  if (!told.startsWith("Somebody was faster")) return;
  draft = null;
  $("contract").hidden = true;
  await load();
  $("edit").after($("error"));
  $("error").textContent = told;
  $("error").scrollIntoView({ block: "nearest" });
}

async function save(job) {
  if (!draft) return;
  const mine = { edits: draft.edits, why: draft.why, base: draft.base, job };
  const made = await once(() => ask("api/calendar/save", mine));
  if (!made) { await overtaken(); return; }
  forget();
  await load();
  fields();
  $("done").textContent = `Saved as revision ${made.revision}. History takes it back with one click.`;
}

$("save").addEventListener("click", () => save(draft.job));
$("save-blind").addEventListener("click", () => save(""));
$("forget").addEventListener("click", forget);
$("do").addEventListener("change", () => { $("edit").also = []; fields(); });

async function showHistory() {
  const told = await once(() => ask("api/calendar/history"));
  if (!told) return;
  $("span").textContent = "History";
  $("view").replaceChildren(told.revisions.length === 0 ? h("p", { class: "soft" }, "Nobody has changed the calendar here; it is as in the file.")
    : tabled(["revision", "when", "who", "what", "why", { unseen: "take it back" }], told.revisions.map((one) => [
      String(one.revision), instant(one.at), one.author,
      h("div", {}, one.words.map((line) => h("div", {}, line)), one.changes.length ? h("details", {}, h("summary", {}, "before and after"),
        one.changes.map((change) => h("div", { class: "soft" }, `${change.key}: ${change.before || "nothing"} → ${change.after || "nothing"}`))) : null),
      one.why,
      one.reverted_by ? h("span", { class: "soft" }, `taken back by ${one.reverted_by}`)
        : one.kind === "file" || !told.may_steer ? "" : h("button", { type: "button", class: "quiet", onclick: () => takeBack(one) }, "Take back")])));
}

async function takeBack(one) {
  const told = await once(() => ask("api/calendar/revert", { revision: one.revision, why: `takes back revision ${one.revision}` }));
  if (!told) return;
  await showHistory();
  $("done").textContent = `Taken back, by revision ${told.revision}.`;
}

// ---------------------------------------------------------------- what is shown

function turn(direction) {
  if (view === "month") {
    anchor = textOf(new Date(Date.UTC(Number(anchor.slice(0, 4)), Number(anchor.slice(5, 7)) - 1 + direction, 1)));
  } else anchor = shift(anchor, direction * (view === "week" ? 7 : 45));
  load();
}

$("back").addEventListener("click", () => turn(-1));
$("on").addEventListener("click", () => turn(1));
$("now").addEventListener("click", () => { anchor = state.today; focused = state.today; load(); });
$("only").addEventListener("change", draw);
function look(wanted) {
  view = wanted;
  document.querySelector(`input[name=view][value=${view}]`).checked = true;
  for (const id of ["back", "now", "on"]) $(id).disabled = view === "history";
  if (view === "history") showHistory(); else load();
}

$("views").addEventListener("change", () => look(document.querySelector("input[name=view]:checked").value));

$("forecast").addEventListener("click", async () => {
  const started = await once(() => ask("api/calendar/forecast", {}));
  if (started && await follow(started.job, () => true, $("link"))) await load();
});
$("feed").addEventListener("click", async () => {
  const told = await once(() => ask("api/calendar/feed", {}));
  if (told) $("link").replaceChildren("Subscribe to ", h("code", {}, told.link), " ; whoever has the address can read it.");
});

anchor = textOf(new Date());
load();
