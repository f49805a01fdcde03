"use strict";
// What all pages share. Text goes into the page as text only: nothing here takes HTML.

/** Follow the colours of the Airflow UI around this frame; alone, those of the system. */
(function colours() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let outer = null;
  try {
    outer = parent !== window ? parent.document.documentElement : null;
  } catch { /* framed by somebody else */ }
  const follow = () => {
    const said = outer && ["dark", "light"].find((word) => outer.classList.contains(word));
    document.documentElement.classList.toggle("dark", said ? said === "dark" : system.matches);
  };
  if (outer) new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
  system.addEventListener("change", follow);
  follow();
})();

/** An element: h("p", {class: "soft"}, "text", other). Attributes false or null are left out. */
function h(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value != null) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== ""));
  return made;
}

const $ = (id) => document.getElementById(id);

/** The answer to a GET, or with `body` to a POST of JSON; throws an Error with words for the reader. */
async function ask(path, body) {
  let reply;
  try {
    reply = await fetch(path, body === undefined ? { cache: "no-store" } : {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), cache: "no-store",
    });
  } catch {
    throw new Error("Airflow does not answer. Nothing was changed, as far as this page knows: load it again.");
  }
  if (reply.ok) return reply.json();
  if (reply.status === 401) throw new Error("You are signed in no longer. Load the page again.");
  let told = null;
  try {
    told = (await reply.json()).detail;
  } catch { /* no JSON */ }
  throw new Error(typeof told === "string" ? told : `Airflow answered ${reply.status}.`);
}

/** "2026-11-25 20:41 UTC" */
function instant(text) {
  return text ? `${new Date(text).toISOString().slice(0, 16).replace("T", " ")} UTC` : "";
}

/** 12,345 */
const figure = (number) => (number == null ? "–" : Number(number).toLocaleString("en"));

/** An SVG element; the page's first <svg> tells the namespace. */
function svg(name, attributes, ...children) {
  const made = document.createElementNS(document.querySelector("svg").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes || {})) if (value != null) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child != null));
  return made;
}

/** A table: heads are texts, {text, number: true}, or {unseen: "for those who do not see"}; rows are lists of texts and elements. */
function tabled(heads, rows, attributes) {
  const right = heads.map((head) => (head.number ? "number" : null));
  return h("div", { class: "wide" }, h("table", attributes || {},
    h("thead", {}, h("tr", {}, heads.map((head, i) => h("th", { scope: "col", class: right[i] }, head.unseen ? h("span", { class: "hidden" }, head.unseen) : head.text ?? head)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) => h("td", { class: right[i] }, cell ?? "")))))));
}

/** A round number above `most`, and how many steps to it. */
function scale(most) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
  const step = [0.2, 0.5, 1, 2, 5].map((part) => part * unit).find((size) => size >= 1 && most / size <= 5) || Math.max(unit, 1);
  return { step, top: step * Math.max(1, Math.ceil(most / step)) };
}

/**
 * Days along the bottom, one line or bars upwards: chart("title", [{day, ...}], {lines: {key: words}, bars: {key: words}}).
 * Bars are stacked; keys in `down` go downwards. width: about as many pixels as it gets, so that its words keep their size. The
 * same figures stand below it as a table.
 */
function chart(title, days, { lines = {}, bars = {}, down = [], width = 1080 } = {}) {
  const keys = [...Object.keys(lines), ...Object.keys(bars)];
  const words = { ...lines, ...bars };
  if (days.length === 0) return h("p", { class: "soft" }, `${title}: nothing was counted yet.`);
  const height = 220, left = 62, bottom = 24, top = 8;
  const up = Object.keys(bars).filter((key) => !down.includes(key));
  const sum = (day, those) => those.reduce((all, key) => all + (day[key] || 0), 0);
  const high = scale(Math.max(...days.map((day) => Math.max(sum(day, up), ...Object.keys(lines).map((key) => day[key] || 0))), 1));
  const floor = Math.ceil(Math.max(...days.map((day) => sum(day, down)), 0) / high.step) * high.step;
  const y = (value) => top + ((high.top - value) / (high.top + floor)) * (height - top - bottom);
  const slot = (width - left - 8) / days.length;
  const x = (i) => left + slot * (i + 0.5);
  const broad = Math.min(Math.max(slot * 0.76, 1), 40);
  const marks = [];
  const count = Math.round((high.top + floor) / high.step);
  for (let i = 0; i <= count; i += Math.ceil(count / 8)) {
    const value = -floor + i * high.step;
    marks.push(svg("line", { class: value === 0 ? "axis" : "grid", x1: left, x2: width - 8, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: left - 6, y: y(value) + 4, "text-anchor": "end" }, figure(Math.abs(value))));
  }
  const every = Math.ceil(days.length / 8);
  days.forEach((day, i) => {
    if (i % every === 0) marks.push(svg("text", { class: "tick", x: x(i), y: height - 6, "text-anchor": "middle" }, day.day.slice(5)));
    let above = 0, below = 0;
    Object.keys(bars).forEach((key, n) => {
      const value = day[key] || 0;
      if (!value) return;
      const from = down.includes(key) ? -below : above + value;
      if (down.includes(key)) below += value; else above += value;
      marks.push(svg("rect", {
        class: `series-${Object.keys(lines).length + n}`, x: x(i) - broad / 2, width: broad,
        y: y(from), height: Math.max(y(from - value) - y(from), 0.5),
      }, svg("title", {}, `${day.day}: ${words[key]} ${figure(value)}`)));
    });
  });
  Object.keys(lines).forEach((key, n) => {
    const points = days.map((day, i) => [day, i]).filter(([day]) => day[key] != null);
    marks.push(svg("polyline", { class: `line series-${n}`, points: points.map(([day, i]) => `${x(i)},${y(day[key])}`).join(" ") }));
    for (const [day, i] of points.length > 70 ? [] : points) {
      marks.push(svg("circle", { class: `series-${n}`, cx: x(i), cy: y(day[key]), r: 2.5 },
        svg("title", {}, `${day.day}: ${words[key]} ${figure(day[key])}`)));
    }
  });
  return h("figure", {},
    h("figcaption", {}, title, keys.length > 1 ? h("span", { class: "legend" }, keys.map((key, n) =>
      (days.some((day) => day[key]) ? h("span", { class: `key series-${n}` }, words[key]) : null))) : null),
    svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}; the figures stand in the table below` }, marks),
    h("details", {}, h("summary", {}, "the figures"),
      tabled(["day", ...keys.map((key) => ({ text: words[key], number: true }))],
        [...days].reverse().map((day) => [day.day, ...keys.map((key) => figure(day[key]))]))));
}

/** Save text as a file of this name. */
function save(name, text, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** Do it once at a time: buttons are off meanwhile, what goes wrong stands in #error. */
async function once(what) {
  $("error").textContent = "";
  const buttons = [...document.querySelectorAll("button:not(:disabled)")];
  buttons.forEach((button) => { button.disabled = true; });
  try {
    return await what();
  } catch (error) {
    $("error").textContent = error.message;
    $("error").scrollIntoView({ block: "nearest" });
    return undefined;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}

const SIGNS = { yes: "✓ yes", no: "✗ no" };

function traceLine(one) {
  return h("li", { class: one.verdict },
    one.verdict === "fact" ? null : h("span", { class: "sign" }, SIGNS[one.verdict]),
    h("span", { class: "predicate" }, one.predicate), ": ", one.detail,
    one.meaning ? h("span", { class: "meaning" }, one.meaning) : null);
}

/** What does not hold, in a line. Of several orders one is enough. */
function traceSummary(conditions) {
  const holds = new Set(conditions.filter((one) => one.verdict === "yes").map((one) => one.predicate));
  const not = new Set(conditions.filter((one) => one.verdict === "no" && !holds.has(one.predicate)).map((one) => one.predicate));
  return not.size === 0 ? "All that a message needs holds." : `Does not hold: ${[...not].join("; ")}.`;
}

/** What `why` says of one campaign. */
function traced(found) {
  const stored = found.lines.filter((one) => one.verdict === "fact");
  const conditions = found.lines.filter((one) => one.verdict !== "fact");
  return h("section", { class: "card" },
    h("h2", {}, `${found.name} `, h("span", { class: "soft" }, found.id)),
    found.fault ? h("p", { class: "error" }, `The campaign’s file has mistakes: ${found.fault}`)
      : h("div", { class: "two" },
        h("div", {}, h("h3", {}, "Conditions"), h("p", {}, traceSummary(conditions)),
          h("ul", { class: "trace" }, conditions.map(traceLine))),
        h("div", {}, h("h3", {}, "What is stored"),
          stored.length ? h("ul", { class: "trace stored" }, stored.map(traceLine))
            : h("p", { class: "soft" }, "Nothing: never enrolled, no message, no refusal."))));
}
