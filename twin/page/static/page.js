// The live page. The server says once what there is to show (`hello`), then every second how all is: `facts` as JSON and
// one 16-bit integer for each quantity and vehicle. Everything on the page is drawn from these arrays, once an update.
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const dark = matchMedia("(prefers-color-scheme: dark)");
const PAGE = 20;
const BINS = 36;
const NAMED = 6; // vehicles that an alarm names

// Colours. One ramp for much or little, blue to yellow, so that every kind of colour vision sees its order; what is much
// stands out from the ground. One for both sides of zero. States after Okabe and Ito.
const RAMPS = {
  light: { much: ["#e3edd6", "#9fd3c0", "#45a8bf", "#2767a6", "#1d2b6b"], sides: ["#1f5fa8", "#8db4da", "#dfe2e5", "#f0b173", "#b4560a"] },
  dark: { much: ["#22324a", "#1f5a7d", "#1f928f", "#77c467", "#fde65b"], sides: ["#6fb2f2", "#3b6a97", "#3a444e", "#a8682c", "#ffab57"] },
};
const STATES = { light: ["#b9c3cc", "#0072b2", "#009e73", "#e69f00"], dark: ["#46525e", "#56b4e9", "#1fc294", "#f0b429"] };
const LEVELS = 64;

let hello = null;
let quantities = {}; // by name
let ids = [];
let row = new Map(); // id -> row
let facts = null;
let columns = {}; // name -> Int16Array
let count = 0;
let past = null;
let selected = null;
let hovered = -1;
let by = "soc";
let sort = { name: "id", down: false };
let page = 0;
let paused = false;
let lost = 0; // since when the server is away
let alarmed = []; // rows by alarm
let worst = new Uint8Array(0); // of each row: 0 nothing, 1 an alarm, 2 a critical one, 3 silent
let grid = { groups: [], across: 1, side: 1, head: 0, order: [] }; // where each vehicle is in the field
let shades = {};

// ---- values

const raw = (name, at) => columns[name][at];
const value = (name, at) => (columns[name][at] === hello.none ? NaN : columns[name][at] * quantities[name].step);
const DIGITS = { "%": 1, V: 1, A: 1, "°C": 1, kW: 1, s: 1, cycles: 0, "km/h": 0 };
const formats = {};
function text(number, unit, digits = DIGITS[unit] ?? 0) {
  if (!Number.isFinite(number)) return "–";
  formats[digits] ??= new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const plain = formats[digits].format(Object.is(number, -0) || Math.abs(number) < 0.5 * 10 ** -digits ? 0 : number);
  return plain.replace("-", "−");
}
const withUnit = (number, unit) => `${text(number, unit)}${unit ? "\u202f" + unit : ""}`;
function ago(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 60) return `${text(seconds, "s")}\u202fs`;
  if (seconds < 3276) return `${Math.floor(seconds / 60)}\u202fmin`;
  return "over 54\u202fmin";
}
function cellText(name, at) {
  if (name === "mode") return raw(name, at) === hello.none ? "–" : hello.states[raw(name, at)];
  const number = value(name, at);
  return name === "age" ? ago(number) : text(number, quantities[name].unit);
}
const put = (element, says) => { if (element.textContent !== says) element.textContent = says; };
const show = (element, visible) => { if (element.hidden === visible) element.hidden = !visible; };

function sorted(name) {
  const column = columns[name].slice(0, count).sort(); // whole numbers sort ten times as fast
  const known = column.subarray(column.lastIndexOf(hello.none) + 1), step = quantities[name].step;
  const found = new Float64Array(known.length);
  for (let i = 0; i < known.length; i++) found[i] = known[i] * step;
  return found;
}
const at = (values, share) => (values.length ? values[Math.min(values.length - 1, Math.floor(share * values.length))] : NaN);

// A scale that does not move with every update: round numbers around nearly all values.
function scaleOf(name, values) {
  const q = quantities[name];
  let low = q.low ?? at(values, 0.01), high = q.high ?? at(values, 0.99);
  if (!Number.isFinite(low)) [low, high] = [0, 1];
  if (q.kind === "sides") { high = Math.max(Math.abs(low), Math.abs(high), q.step * 10); low = -high; }
  const span = Math.max(high - low, q.step * 10);
  const unit = 10 ** Math.floor(Math.log10(span)) / 2;
  if (q.kind === "sides") { high = Math.ceil(high / unit) * unit; return [-high, high]; }
  if (q.low === null) low = Math.floor(low / unit) * unit;
  if (q.high === null) high = Math.ceil(Math.max(high, low + q.step * 10) / unit) * unit;
  return [low, high];
}

// ---- colours

const hex = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
function rampOf(stops) {
  return Array.from({ length: LEVELS }, (_, i) => {
    const place = (i / (LEVELS - 1)) * (stops.length - 1), k = Math.min(stops.length - 2, Math.floor(place));
    const [a, b] = [hex(stops[k]), hex(stops[k + 1])];
    return `rgb(${a.map((from, c) => Math.round(from + (b[c] - from) * (place - k))).join()})`;
  });
}
function readTheme() {
  const theme = dark.matches ? "dark" : "light", style = getComputedStyle(document.documentElement);
  const named = (name) => style.getPropertyValue(`--${name}`).trim();
  shades = { much: rampOf(RAMPS[theme].much), sides: rampOf(RAMPS[theme].sides), states: STATES[theme],
    ink: named("ink"), soft: named("soft"), line: named("line"), well: named("well"), card: named("card"),
    accent: named("accent"), bad: named("bad"), font: getComputedStyle(document.body).fontFamily,
    size: parseFloat(style.fontSize), most: parseFloat(getComputedStyle($("plane")).getPropertyValue("--most")), bar: dark.matches ? "#4c6a86" : "#9fb4c8" };
}
function level(number, [low, high]) {
  return Math.max(0, Math.min(LEVELS - 1, Math.round(((number - low) / (high - low)) * (LEVELS - 1))));
}

const pixelRatio = () => Math.min(2, Math.max(1, Math.round(devicePixelRatio || 1)));
// Sizes as they were observed: to ask for one after each change of the page would lay it out anew each time.
const sizes = new WeakMap();
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) sizes.set(target, target.getBoundingClientRect());
  draw();
});
function boxOf(canvas) {
  if (!sizes.has(canvas)) {
    sizes.set(canvas, canvas.getBoundingClientRect());
    observer.observe(canvas);
  }
  return sizes.get(canvas);
}
function sized(canvas) {
  const ratio = pixelRatio(), box = boxOf(canvas);
  const [width, height] = [Math.max(1, Math.round(box.width * ratio)), Math.max(1, Math.round(box.height * ratio))];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, box.width, box.height);
  return [context, box.width, box.height];
}

// ---- the field

// Groups of vehicles with a line of text above each, or all of them in one without.
function arrange() {
  const how = $("order").value, column = columns[by];
  const byName = (a, b) => (ids[a] < ids[b] ? -1 : 1), byValue = (a, b) => column[b] - column[a] || a - b;
  const all = Array.from({ length: count }, (_, i) => i).sort(how === "id" ? byName : byValue);
  if (how !== "state") return [{ label: "", rows: all }];
  const groups = [...hello.states, "no record yet"].map((label) => ({ label, rows: [] }));
  for (const i of all) (groups[columns.mode[i]] ?? groups.at(-1)).rows.push(i);
  return groups.filter((group) => group.rows.length);
}
// Squares as large as fit into the height; each group begins on a line of its own.
function layOut(groups, width, height) {
  const head = groups[0].label ? Math.round(shades.size * 1.35) : 0;
  const rowsWith = (columns) => groups.reduce((sum, group) => sum + Math.ceil(group.rows.length / columns), 0);
  const step = 1 / pixelRatio(); // whole pixels, so that all gaps are alike
  let side = 40;
  while (side > 2 && rowsWith(Math.floor(width / side)) * side + groups.length * head > height) side -= step;
  const across = Math.max(1, Math.floor(width / side));
  let y = 0;
  for (const group of groups) {
    group.top = y + head;
    y = group.top + Math.ceil(group.rows.length / across) * side;
  }
  return { groups, across, side, height: Math.ceil(y), head, order: groups.flatMap((group) => group.rows) };
}
function placeOf(i) {
  for (const group of grid.groups) {
    const place = group.rows.indexOf(i);
    if (place >= 0) return [(place % grid.across) * grid.side, group.top + Math.floor(place / grid.across) * grid.side];
  }
  return null;
}
function vehicleAt(x, y) {
  for (const group of grid.groups) {
    const line = Math.floor((y - group.top) / grid.side), column = Math.floor(x / grid.side);
    if (line >= 0 && column < grid.across && line * grid.across + column < group.rows.length) {
      const next = grid.groups[grid.groups.indexOf(group) + 1];
      if (!next || y < next.top - grid.head) return group.rows[line * grid.across + column];
    }
  }
  return undefined;
}
function drawField(scales) {
  const canvas = $("cells");
  grid = layOut(arrange(), boxOf(canvas).width, Math.max(220, (shades.most * innerHeight) / 100));
  const tall = `${grid.height}px`;
  if (canvas.style.height !== tall) {
    canvas.style.height = tall;
    sizes.set(canvas, canvas.getBoundingClientRect());
  }
  const [context] = sized(canvas), q = quantities[by], column = columns[by], scale = scales[by];
  const box = grid.side - (grid.side > 4 ? 1 : 0);
  context.font = `${Math.round(grid.head * 0.6)}px ${shades.font}`;
  context.textBaseline = "alphabetic";
  for (const group of grid.groups) {
    context.fillStyle = shades.soft;
    if (group.label) context.fillText(`${group.label}  ${text(group.rows.length, "")}`, 1, group.top - grid.head * 0.3);
    group.rows.forEach((i, place) => {
      const x = (place % grid.across) * grid.side, y = group.top + Math.floor(place / grid.across) * grid.side;
      context.fillStyle = column[i] === hello.none ? shades.line
        : q.kind === "states" ? shades.states[column[i]] : shades[q.kind][level(column[i] * q.step, scale)];
      context.fillRect(x, y, box, box);
      if (!worst[i]) return;
      if (worst[i] === 3) {
        const frame = box > 4 ? 1.5 : 0;
        context.fillStyle = shades.soft;
        context.fillRect(x, y, box, box);
        context.fillStyle = shades.well;
        if (frame) context.fillRect(x + frame, y + frame, box - 2 * frame, box - 2 * frame);
        return;
      }
      const dot = Math.max(1.5, box * 0.22);
      disc(context, x + box / 2, y + box / 2, dot * 1.5, shades.card);
      disc(context, x + box / 2, y + box / 2, dot, worst[i] === 2 ? shades.bad : shades.ink);
    });
  }
  outline(context, row.get(selected), 2);
  outline(context, hovered, 1);
}
function disc(context, x, y, radius, colour) {
  context.fillStyle = colour;
  context.beginPath(); context.arc(x, y, radius, 0, 7); context.fill();
}
function outline(context, i, width) {
  const place = i === undefined || i < 0 ? null : placeOf(i);
  if (!place) return;
  for (const [colour, line] of [[shades.card, width + 3], [shades.ink, width]]) {
    context.strokeStyle = colour; context.lineWidth = line;
    context.strokeRect(place[0] - 1, place[1] - 1, grid.side + 1, grid.side + 1);
  }
}

function drawLegend(scales) {
  const q = quantities[by], legend = $("legend"), parts = [];
  if (q.kind === "states") {
    const many = hello.states.map(() => 0);
    for (let i = 0; i < count; i++) if (columns[by][i] !== hello.none) many[columns[by][i]]++;
    hello.states.forEach((state, i) => parts.push([shades.states[i], `${state} ${text(many[i], "")}`]));
  }
  const key = JSON.stringify([by, scales[by], parts, dark.matches]);
  if (legend.dataset.key === key) return;
  legend.dataset.key = key;
  legend.replaceChildren();
  if (parts.length) for (const [colour, says] of parts) legend.append(swatch(colour, says));
  else {
    const bar = make("canvas");
    const [low, high] = scales[by];
    legend.append(make("span", {}, withUnitShort(low, q.unit), bar, withUnitShort(high, q.unit)));
    bar.setAttribute("aria-hidden", "true");
    const [context, width, height] = sized(bar);
    shades[q.kind].forEach((colour, i) => { context.fillStyle = colour; context.fillRect((i * width) / LEVELS, 0, width / LEVELS + 1, height); });
    if (q.kind === "sides") legend.append(make("span", { className: "soft" }, "below 0: charging, above: discharging"));
  }
  legend.append(make("span", {}, make("i", { className: "silent" }), "silent"));
  for (const [mark, says] of [[shades.bad, "critical alarm"], [shades.ink, "alarm"]]) {
    const dot = make("i", { className: "alarm" });
    dot.style.setProperty("--mark", mark);
    dot.style.setProperty("--cell", shades.line);
    legend.append(make("span", {}, dot, says));
  }
}
function swatch(colour, says) {
  const box = make("i");
  box.style.background = colour;
  return make("span", {}, box, says);
}

function describeField(values) {
  const q = quantities[by];
  put($("field-title"), q.kind === "states" ? "Every vehicle by state" : `Every vehicle by ${q.label.toLowerCase()}`);
  const known = values[by];
  put($("field-says"), q.kind === "states" || !known.length ? ""
    : `Median ${withUnit(at(known, 0.5), q.unit)}, nine of ten between ${withUnit(at(known, 0.05), q.unit)} and ${withUnit(at(known, 0.95), q.unit)}.`);
}

// ---- distributions

function setUpSpreads() {
  $("spreads").replaceChildren();
  for (const q of hello.quantities.filter((q) => q.kind)) {
    $("by").append(make("option", { value: q.name, textContent: q.label }));
    const button = make("button", { type: "button" },
      make("span", { className: "name", textContent: q.label }), make("span", { className: "value" }),
      make("canvas"), make("span", { className: "ends" }, make("span"), make("span")));
    button.dataset.name = q.name;
    button.onclick = () => colourBy(q.name);
    $("spreads").append(button);
  }
}
function drawSpreads(values, scales) {
  for (const button of $("spreads").children) {
    const name = button.dataset.name, q = quantities[name], canvas = button.querySelector("canvas");
    const pressed = String(name === by);
    if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
    const big = button.querySelector(".value"), [first, last] = button.querySelectorAll(".ends span");
    const [context, width, height] = sized(canvas);
    const bins = new Uint32Array(q.kind === "states" ? hello.states.length : BINS);
    if (q.kind === "states") {
      for (let i = 0; i < count; i++) if (columns[name][i] !== hello.none) bins[columns[name][i]]++;
      let most = 0;
      bins.forEach((n, i) => { if (n > bins[most]) most = i; });
      put(big, bins[most] ? hello.states[most] : "–");
      put(first, hello.states[0]); put(last, hello.states[hello.states.length - 1]);
    } else {
      const [low, high] = scales[name];
      for (const number of values[name]) bins[Math.max(0, Math.min(BINS - 1, Math.floor(((number - low) / (high - low)) * BINS)))]++;
      const median = at(values[name], 0.5);
      put(big, Number.isFinite(median) ? `${withUnit(median, q.unit)}` : "–");
      put(first, text(low, q.unit, 0)); put(last, withUnitShort(high, q.unit));
    }
    const tallest = Math.max(1, ...bins), each = width / bins.length;
    bins.forEach((n, i) => {
      if (!n) return;
      const tall = Math.max(1.5, (n / tallest) * (height - 2));
      context.fillStyle = q.kind === "states" ? shades.states[i] : name !== by ? shades.bar : shades[q.kind][Math.round((i / (BINS - 1)) * (LEVELS - 1))];
      context.fillRect(i * each, height - 1 - tall, Math.max(1, each - 1), tall);
    });
    context.fillStyle = shades.soft;
    context.fillRect(0, height - 1, width, 1);
  }
}
const withUnitShort = (number, unit) => `${text(number, unit, 0)}${unit ? "\u202f" + unit : ""}`;

function colourBy(name) {
  by = name;
  $("by").value = name;
  remember();
  draw();
}

// ---- alarms

function findAlarms() {
  worst = new Uint8Array(count);
  alarmed = hello.alarms.map((alarm) => {
    const column = columns[alarm.of], step = quantities[alarm.of].step, found = [];
    const silent = alarm.of === "age";
    if (silent && !flowing()) return found; // nobody is heard: the banner says so, once
    for (let i = 0; i < count; i++) {
      if (column[i] === hello.none || !(alarm.bit ? column[i] & alarm.bit : column[i] * step > alarm.above)) continue;
      found.push(i);
      worst[i] = Math.max(worst[i], silent ? 3 : alarm.critical ? 2 : 1);
    }
    return found;
  });
}
const flowing = () => !lost && facts.broker.connected;
function drawAlarms() {
  const list = $("alarms"), shown = [];
  hello.alarms.forEach((alarm, k) => { if (alarmed[k].length) shown.push(k); });
  show($("alarms-none"), !shown.length);
  const key = shown.join();
  if (list.dataset.key !== key) {
    list.dataset.key = key;
    list.replaceChildren(...shown.map((k) => {
      const alarm = hello.alarms[k];
      const what = make("button", { className: "what", type: "button" }, make("span", { textContent: alarm.label }), make("b"));
      what.title = "Show these vehicles in the table";
      what.onclick = () => { $("alarm").value = alarm.name; page = 0; draw(); $("list").scrollIntoView({ block: "nearest" }); };
      return make("li", { className: alarm.critical ? "critical" : "" }, what, make("div", { className: "who" }));
    }));
  }
  shown.forEach((k, position) => {
    const item = list.children[position], rows = alarmed[k], column = columns[hello.alarms[k].of];
    put(item.querySelector("b"), text(rows.length, ""));
    const named = rows.slice(0, 2000).sort((a, b) => (hello.alarms[k].bit ? a - b : column[b] - column[a] || a - b)).slice(0, NAMED);
    const who = item.querySelector(".who");
    if (who.dataset.key === named.join()) return;
    if (who.contains(document.activeElement)) return; // not under somebody's fingers
    who.dataset.key = named.join();
    who.replaceChildren(...named.map((i) => opener(ids[i])));
  });
  const options = $("alarm");
  if (options.length !== hello.alarms.length + 2) {
    options.replaceChildren(make("option", { value: "", textContent: "all" }), make("option", { value: "any", textContent: "any alarm" }),
      ...hello.alarms.map((alarm) => make("option", { value: alarm.name, textContent: alarm.label })));
  }
}
const opener = (id) => make("button", { className: "link", type: "button", textContent: id, onclick: () => open(id) });

// ---- the table

const TABLE = ["mode", "soc", "soh", "battery_voltage", "battery_current", "battery_temperature", "power_consumption", "rul", "failure_probability", "age"];
const HEADS = { battery_temperature: "Temp.", failure_probability: "Risk", age: "Last record", soc: "SoC", soh: "SoH", rul: "Life left" };
function setUpTable() {
  const names = ["id", ...TABLE, "alarms"];
  $("heads").replaceChildren(...names.map((name) => {
    const q = quantities[name], label = name === "id" ? "Vehicle" : name === "alarms" ? "Alarms" : HEADS[name] ?? q.label;
    const button = make("button", { type: "button" }, label);
    if (q?.unit && name !== "age") button.append(make("small", { textContent: ` ${q.unit}` }));
    button.onclick = () => { sort = { name, down: sort.name === name ? !sort.down : name !== "id" }; page = 0; draw(); };
    const head = make("th", { scope: "col" }, button);
    head.dataset.name = name;
    return head;
  }));
  $("state").replaceChildren(make("option", { value: "", textContent: "all" }), ...hello.states.map((state, i) => make("option", { value: i, textContent: state })));
}
function chosenRows() {
  const wanted = $("search").value.trim().toUpperCase(), state = $("state").value, alarm = $("alarm").value;
  const among = alarm && alarm !== "any" ? alarmed[hello.alarms.findIndex((a) => a.name === alarm)] ?? [] : null;
  const from = among ?? Array.from({ length: count }, (_, i) => i);
  return from.filter((i) => (!wanted || ids[i].toUpperCase().includes(wanted)) && (state === "" || columns.mode[i] === Number(state)) && (alarm !== "any" || worst[i]));
}
function drawTable() {
  const rows = chosenRows(), down = sort.down ? -1 : 1;
  if (sort.name === "id") rows.sort((a, b) => (ids[a] < ids[b] ? -down : down));
  else {
    const key = sort.name === "alarms" ? worst : columns[sort.name], none = hello.none;
    rows.sort((a, b) => (key[a] === none) - (key[b] === none) || down * (key[a] - key[b]) || a - b);
  }
  for (const head of $("heads").children) {
    const says = head.dataset.name === sort.name ? (sort.down ? "descending" : "ascending") : null;
    if (head.getAttribute("aria-sort") === says) continue;
    if (says) head.setAttribute("aria-sort", says); else head.removeAttribute("aria-sort");
  }
  const pages = Math.max(1, Math.ceil(rows.length / PAGE));
  page = Math.min(page, pages - 1);
  const shown = rows.slice(page * PAGE, (page + 1) * PAGE), body = $("rows");
  while (body.children.length > shown.length) body.lastChild.remove();
  while (body.children.length < shown.length) {
    const line = make("tr", {}, make("td"), ...TABLE.map(() => make("td")), make("td"));
    const link = make("button", { className: "link", type: "button" });
    link.onclick = () => open(link.textContent);
    line.firstChild.append(link);
    body.append(line);
  }
  shown.forEach((i, k) => {
    const cells = body.children[k].children;
    put(cells[0].firstChild, ids[i]);
    TABLE.forEach((name, c) => put(cells[c + 1], cellText(name, i)));
    put(cells[TABLE.length + 1], worst[i] ? hello.alarms.filter((_, a) => isIn(alarmed[a], i)).map((a) => a.name.replaceAll("_", " ")).join(", ") : "");
    body.children[k].setAttribute("aria-current", String(ids[i] === selected));
  });
  const wanted = $("search").value.trim();
  put($("found"), rows.length ? `${text(rows.length, "")} of ${text(count, "")}` : wanted ? `No vehicle has “${wanted}” in its name` : "No vehicle fits these filters");
  put($("page"), pages > 1 ? `page ${page + 1} of ${text(pages, "")}` : "");
  $("before").disabled = page === 0; $("after").disabled = page >= pages - 1;
  show($("before"), pages > 1); show($("after"), pages > 1);
}
function isIn(rows, wanted) { // rows ascend
  let [low, high] = [0, rows.length - 1];
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (rows[middle] === wanted) return true;
    if (rows[middle] < wanted) low = middle + 1; else high = middle - 1;
  }
  return false;
}

// ---- one vehicle

const STRIPS = [
  { stream: "telemetry", name: "soc", label: "State of charge", unit: "%", scale: 100 },
  { stream: "telemetry", name: "power_consumption", label: "Power", unit: "kW", zero: true },
  { stream: "telemetry", name: "battery_current", label: "Current", unit: "A", zero: true },
  { stream: "telemetry", name: "battery_voltage", label: "Voltage", unit: "V" },
  { stream: "telemetry", name: "battery_temperature", label: "Temperature", unit: "°C" },
  { stream: "predictions", name: "rul", label: "Remaining life", unit: "cycles", band: ["rul_low", "rul_high"], tall: true },
  { stream: "predictions", name: "failure_probability", label: "Failure risk", unit: "%", scale: 100 },
];
function setUpStrips() {
  $("strips").replaceChildren(...STRIPS.map((strip) => make("div", { className: strip.tall ? "strip tall" : "strip" },
    make("div", { className: "top" }, make("span", { textContent: strip.label }), make("span", { className: "now" })), make("canvas"))));
}
function open(id) {
  selected = id;
  past = null;
  send({ vehicle: id });
  remember();
  drawNow(); // what is hidden takes no focus
  $("vehicle").scrollIntoView({ block: "nearest" });
  $("vehicle-title").focus({ preventScroll: true });
}
function close() {
  selected = past = null;
  send({ vehicle: null });
  remember();
  draw();
  $("cells").focus({ preventScroll: true });
}
function drawVehicle() {
  show($("vehicle"), selected !== null);
  if (selected === null) return;
  put($("vehicle-title"), selected);
  const i = row.get(selected);
  const known = i !== undefined;
  show($("strips"), known && past !== null);
  if (!known) {
    put($("vehicle-says"), `No record of ${selected} has come since this page's server started. Its name is right? Ids look like EV-000042.`);
    return;
  }
  const mine = hello.alarms.filter((_, k) => isIn(alarmed[k], i)).map((alarm) => alarm.label);
  put($("vehicle-says"), [`${cellText("mode", i)}, ${text(value("driving_speed", i), "km/h")}\u202fkm/h`, `last record ${ago(value("age", i))} ago`,
    `state of health ${withUnit(value("soh", i), "%")}`, ...mine].join(" · "));
  if (past === null || past.vehicle !== selected) return;
  const end = Math.max(0, ...past.telemetry.t.slice(-1), ...past.predictions.t.slice(-1));
  const begin = Math.min(end - 1, past.telemetry.t[0] ?? end, past.predictions.t[0] ?? end);
  STRIPS.forEach((strip, k) => drawStrip(strip, $("strips").children[k], begin, end, k === STRIPS.length - 1));
}
function drawStrip(strip, element, begin, end, last) {
  const all = past[strip.stream], times = all.t, scaled = (name) => all[name].map((v) => v * (strip.scale ?? 1));
  const values = scaled(strip.name), band = strip.band?.map(scaled), canvas = element.querySelector("canvas");
  const now = values[values.length - 1], label = element.querySelector(".now");
  const says = values.length ? withUnit(now, strip.unit) : "no prediction yet";
  const between = band && values.length ? `, interval ${text(band[0].at(-1), strip.unit)} to ${text(band[1].at(-1), strip.unit)}` : "";
  put(label, says);
  put(element.querySelector(".top span"), strip.label + between);
  const [context, width, height] = sized(canvas);
  const known = [...values, ...(band ? [...band[0], ...band[1]] : []), ...(strip.zero ? [0] : [])];
  let low = Math.min(...known), high = Math.max(...known);
  const least = { "%": 1, V: 2, A: 5, kW: 2, "°C": 1, cycles: 10 }[strip.unit];
  if (high - low < least) { const middle = (high + low) / 2; low = middle - least / 2; high = middle + least / 2; }
  const right = width - 46, top = 6, bottom = height - (last ? 18 : 5);
  const x = (t) => ((t - begin) / (end - begin)) * (right - 4) + 1, y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
  context.font = `${Math.max(10, shades.size * 0.7)}px ${shades.font}`;
  context.fillStyle = shades.soft; context.textBaseline = "middle";
  const digits = high - low < 8 && strip.unit !== "cycles" ? 1 : 0;
  context.fillText(text(high, strip.unit, digits), right + 4, top + 3);
  context.fillText(text(low, strip.unit, digits), right + 4, bottom - 3);
  context.fillStyle = shades.line;
  context.fillRect(0, top, right, 1); context.fillRect(0, bottom, right, 1);
  if (strip.zero && low < 0 && high > 0) context.fillRect(0, y(0), right, 1);
  if (band && times.length) {
    context.beginPath();
    times.forEach((t, k) => context.lineTo(x(t), y(band[1][k])));
    for (let k = times.length - 1; k >= 0; k--) context.lineTo(x(times[k]), y(band[0][k]));
    context.closePath();
    context.globalAlpha = 0.22; context.fillStyle = shades.accent; context.fill(); context.globalAlpha = 1;
  }
  if (times.length) {
    context.beginPath();
    times.forEach((t, k) => context.lineTo(x(t), y(values[k])));
    context.strokeStyle = shades.accent; context.lineWidth = 1.6; context.lineJoin = "round"; context.stroke();
    context.fillStyle = shades.accent;
    context.beginPath(); context.arc(x(times.at(-1)), y(now), 2.6, 0, 7); context.fill();
  }
  if (last) {
    context.fillStyle = shades.soft; context.textBaseline = "alphabetic";
    context.fillText(span(end - begin), 0, height - 3);
    context.textAlign = "right"; context.fillText(clock(end), right, height - 3); context.textAlign = "left";
  }
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", values.length
    ? `${strip.label}: ${says}${between}; between ${withUnit(Math.min(...values), strip.unit)} and ${withUnit(Math.max(...values), strip.unit)} in the last ${span(end - begin)}`
    : `${strip.label}: none yet`);
}
function span(ms) {
  const seconds = ms / 1000;
  return seconds < 120 ? `${Math.round(seconds)}\u202fs` : seconds < 7200 ? `${Math.round(seconds / 60)}\u202fmin` : seconds < 172800 ? `${Math.round(seconds / 3600)}\u202fh` : `${Math.round(seconds / 86400)}\u202fd`;
}
const clock = (ms) => (Number.isFinite(ms) && ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) : "–");

// ---- the whole

function drawFlow() {
  if (!facts) return;
  put($("vehicles"), text(facts.vehicles, ""));
  put($("records"), flowing() ? `${text(facts.telemetry_rate, "")}/s` : "–");
  put($("predictions"), flowing() ? `${text(facts.predictions_rate, "")}/s` : "–");
  put($("last"), facts.last_s === null ? "–" : `${ago(facts.last_s)} ago`);
  put($("simulated"), clock(facts.simulated));
  const badge = $("broker"), good = flowing();
  badge.dataset.state = good ? "good" : "bad";
  put(badge, lost ? "No server" : good ? facts.broker.where : "No broker");
}
function drawBanner() {
  const says = [];
  if (lost) says.push(`The server of this page does not answer since ${new Date(lost).toLocaleTimeString("en-GB")}; trying again. Values are the last that came.`);
  else if (facts && !facts.broker.connected) says.push(`${facts.broker.says}. Trying again every second${count ? "; values are the last that came" : ""}.`);
  else if (facts?.unkept) says.push(`The page is full: it keeps the first ${text(facts.most, "")} vehicles, and ${text(facts.unkept, "")} records of others were not kept (--page-vehicles).`);
  if (facts?.malformed) says.push(`${text(facts.malformed, "")} ${facts.malformed === 1 ? "message was" : "messages were"} malformed; the last: ${facts.malformed_says}.`);
  if (paused) says.push("Paused: values are those of the moment you paused.");
  const banner = $("banner");
  put(banner, says.join(" "));
  show(banner, says.length > 0);
  document.body.classList.toggle("stale", !flowing());
}
function drawEmpty() {
  const empty = !count;
  show($("empty"), empty); show($("content"), !empty);
  if (!empty || !facts) return;
  put($("empty-says"), lost ? "The server of this page does not answer." : facts.broker.connected
    ? `Connected to ${facts.broker.where} and listening to ev/battery/telemetry/+. Vehicles appear here with their first record.`
    : `${facts.broker.says}. Is the broker running there? The page goes on trying, and shows the fleet once it answers.`);
  put($("empty-command"), `twin run --vehicles 1000 --pace 1 --mqtt mqtt://${facts.broker.where.replace("MQTT at ", "")}`);
}
// An update is drawn in two frames, so that neither is late.
let wanted = false;
function draw() {
  if (wanted) return;
  wanted = true;
  requestAnimationFrame(() => {
    wanted = false;
    requestAnimationFrame(drawFirst());
  });
}
function drawNow() { drawFirst()(); }
function drawFirst() {
  drawBanner();
  if (!hello || !facts) return () => {};
  drawFlow();
  drawEmpty();
  if (!count) return () => {};
  const values = {}, scales = {};
  for (const q of hello.quantities) if (q.kind && q.kind !== "states") { values[q.name] = sorted(q.name); scales[q.name] = scaleOf(q.name, values[q.name]); }
  findAlarms();
  drawField(scales);
  return () => {
    drawLegend(scales);
    describeField(values);
    drawSpreads(values, scales);
    drawAlarms();
    drawTable();
    drawVehicle();
  };
}

function remember() {
  const parts = new URLSearchParams();
  if (selected) parts.set("vehicle", selected);
  if (by !== "soc") parts.set("by", by);
  history.replaceState(null, "", parts.size ? `#${parts}` : location.pathname);
}

// ---- the server

let live = null;
const send = (message) => { if (live?.readyState === WebSocket.OPEN) live.send(JSON.stringify(message)); };
function connect() {
  live = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  live.binaryType = "arraybuffer";
  live.onopen = () => { if (selected) send({ vehicle: selected }); };
  live.onmessage = ({ data }) => {
    if (typeof data === "string") { take(JSON.parse(data)); return; }
    if (paused) return;
    lost = 0;
    const each = data.byteLength / 2 / hello.quantities.length;
    hello.quantities.forEach((q, k) => { columns[q.name] = new Int16Array(data, k * each * 2, each); });
    count = Math.min(each, ids.length);
    draw();
  };
  live.onclose = () => { lost ||= Date.now(); draw(); setTimeout(connect, 1000); };
}
function take(message) {
  if (message.hello && !hello) {
    hello = message.hello;
    quantities = Object.fromEntries(hello.quantities.map((q) => [q.name, q]));
    setUpSpreads(); setUpTable(); setUpStrips();
    if (!quantities[by]?.kind) by = "soc";
    $("by").value = by;
  } else if (message.hello) {
    if (JSON.stringify(message.hello) !== JSON.stringify(hello)) location.reload(); // a newer server
  } else if (message.vehicles) {
    if (message.begin === 0) [ids, row] = [[], new Map()];
    message.vehicles.forEach((id, k) => { ids[message.begin + k] = id; row.set(id, message.begin + k); });
  } else if (message.facts && !paused) facts = message.facts;
  else if (message.past && message.past.vehicle === selected && !paused) { past = message.past.unknown ? null : message.past; draw(); }
}

// ---- hands

const cells = $("cells");
const under = (event) => {
  const box = cells.getBoundingClientRect();
  return vehicleAt(event.clientX - box.left, event.clientY - box.top);
};
const describe = (i) => `${ids[i]}: ${by === "mode" ? "" : `${quantities[by].label.toLowerCase()} ${by === "age" ? cellText(by, i) : withUnit(value(by, i), quantities[by].unit)}, `}${cellText("mode", i)}`;
cells.addEventListener("pointermove", (event) => {
  const i = under(event), tip = $("tip");
  show(tip, i !== undefined);
  if (i === undefined) return;
  put(tip, describe(i));
  const box = $("plane").getBoundingClientRect(), left = event.clientX - box.left;
  tip.style.left = `${Math.min(left + 12, box.width - tip.offsetWidth - 4)}px`;
  tip.style.top = `${event.clientY - box.top + 14}px`;
});
cells.addEventListener("pointerleave", () => show($("tip"), false));
cells.addEventListener("click", (event) => { const i = under(event); if (i !== undefined) open(ids[i]); });
cells.addEventListener("keydown", (event) => {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: grid.across, ArrowUp: -grid.across, Home: -Infinity, End: Infinity };
  if (event.key in steps && count) {
    event.preventDefault();
    const place = hovered < 0 ? 0 : grid.order.indexOf(hovered) + steps[event.key];
    hovered = grid.order[Math.max(0, Math.min(grid.order.length - 1, place))];
    put($("said"), describe(hovered));
    draw();
  } else if (event.key === "Enter" && hovered >= 0) open(ids[hovered]);
});
cells.addEventListener("blur", () => { hovered = -1; draw(); });
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && selected !== null) close();
  if (event.key === "/" && !/^(INPUT|SELECT)$/.test(document.activeElement.tagName)) { event.preventDefault(); $("search").focus(); }
});
$("by").onchange = () => colourBy($("by").value);
$("order").onchange = draw;
$("search").oninput = $("state").onchange = $("alarm").onchange = () => { page = 0; draw(); };
$("search").onkeydown = (event) => {
  if (event.key !== "Enter") return;
  const name = $("search").value.trim().toUpperCase(), found = chosenRows();
  const exact = found.find((i) => ids[i].toUpperCase() === name);
  if (exact !== undefined || found.length === 1) open(ids[exact ?? found[0]]);
};
$("before").onclick = () => { page--; draw(); };
$("after").onclick = () => { page++; draw(); };
$("close").onclick = close;
$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  put($("pause"), paused ? "Go on" : "Pause");
  draw();
};
dark.addEventListener("change", () => { readTheme(); draw(); });
addEventListener("resize", () => { readTheme(); draw(); });
function recall() {
  const parts = new URLSearchParams(location.hash.slice(1));
  selected = parts.get("vehicle");
  by = parts.get("by") ?? "soc";
}
addEventListener("hashchange", () => { recall(); if (hello) $("by").value = by; send({ vehicle: selected }); draw(); });

recall();
readTheme();
connect();
