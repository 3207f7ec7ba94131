const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, style, text) => {
  const element = document.createElement(tag);
  if (style) element.className = style;
  if (text !== undefined) element.textContent = text;
  return element;
};
const swatch = (colour) => {
  const element = make("span", "swatch");
  element.style.background = colour;
  return element;
};
const bytes = (count) => {
  let unit = 0;
  while (count >= 1024 && unit < 6) { count /= 1024; unit++; }
  return `${Math.floor(count * 10) / 10}${["", "K", "M", "G", "T", "P", "E"][unit]}`;
};
const clamp = (value, least, most) => Math.max(least, Math.min(most, value));
const duration = (ns) => ns >= 1e9 ? `${(ns / 1e9).toFixed(3)} s` : ns >= 1e6 ? `${(ns / 1e6).toFixed(3)} ms`
  : `${(ns / 1e3).toFixed(1)} \u00b5s`;

// -- events ---------------------------------------------------------------------------------------------------------

const E = data.events;
const column = (name, Type, from = E) => {
  const text = atob(from[name]);
  const raw = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) raw[at] = text.charCodeAt(at);
  return new Type(raw.buffer);
};
const kinds = column("kind", Uint8Array), times = column("time", Float64Array), spans = column("span", Float32Array);
const trackOf = column("track", Uint16Array), words = column("text", Uint32Array);
const count = E.count, texts = E.texts, tracks = E.tracks;
const FAULT = E.kinds.indexOf("fault");
const refused = texts.map((text) => text.startsWith("refused ") || text.startsWith("triple fault"));
const KIND_WORDS = { fault: "page faults", syscall: "system calls", switch: "context switches", flush: "TLB flushes",
  signal: "signals", life: "starts and ends", window: "transient windows", exception: "exceptions", interrupt: "interrupts",
  device: "device accesses", control: "control registers" };
const LANE = { syscall: 0, device: 0, fault: 1, window: 1, exception: 1, interrupt: 1 };
const lanes = E.kinds.map((kind) => LANE[kind] ?? 2);
const totals = E.kinds.map(() => 0);
const used = new Set();
for (let at = 0; at < count; at++) { totals[kinds[at]]++; used.add(trackOf[at]); }
const order = [...used].sort((a, b) => tracks[a][0] - tracks[b][0] || tracks[a][1] - tracks[b][1]);
const place = new Map(order.map((track, at) => [track, at]));
const bands = { track: column("track", Uint16Array, E.bands), row: column("row", Uint32Array, E.bands),
  begin: column("begin", Float64Array, E.bands), end: column("end", Float64Array, E.bands) };
const trackName = (track) => {
  const [pid, tid] = tracks[track];
  if (!pid) return "machine";
  const program = (data.programs[pid] || "").split("/").pop();
  return pid === tid ? `${pid} ${program}` : `  thread ${tid}`;
};

const on = E.kinds.map(() => true);
let query = "", shown = new Uint32Array(0), chosen = -1, byTime = data.facts.clock !== "virtual", low = 0, high = 1;

function filter() {
  const wanted = query.toLowerCase();
  const fits = wanted ? texts.map((text) => text.toLowerCase().includes(wanted)) : null;
  const out = new Uint32Array(count);
  let found = 0;
  for (let at = 0; at < count; at++) if (on[kinds[at]] && (!fits || fits[words[at]])) out[found++] = at;
  shown = out.subarray(0, found);
  $("count").textContent = found === count ? `${count.toLocaleString()} events`
    : `${found.toLocaleString()} of ${count.toLocaleString()} events`;
  $("rows").style.height = `${found * ROW}px`;
  drawList();
  draw();
}

const where = (row) => byTime ? times[row] : row;
const end = () => byTime ? Math.max(times[count - 1] || 0, 1) * 1.01 : Math.max(count, 1);
function firstBand(starts, value) {
  let least = 0, most = starts.length;
  while (least < most) { const middle = (least + most) >> 1; if (starts[middle] < value) least = middle + 1; else most = middle; }
  return least;
}
/** The first place in `list` (rows in order) whose row is not before `value` on the axis. */
function search(list, value) {
  let least = 0, most = list.length;
  while (least < most) {
    const middle = (least + most) >> 1;
    if (where(list[middle]) < value) least = middle + 1; else most = middle;
  }
  return least;
}

// -- the tracks -----------------------------------------------------------------------------------------------------

const TRACK = 36, AXIS = 22, ROW = 24;
const canvas = $("canvas"), pen = canvas.getContext("2d"), box = $("lanes");
let colours = {}, pending = false;
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(name).trim();
  colours = { ink: get("--ink"), dim: get("--dim"), rule: get("--rule"), paper: get("--paper"), cpu: get("--cpu"),
    chosen: get("--chosen"), refused: get("--e-refused"), kinds: E.kinds.map((kind) => get(`--e-${kind}`)) };
}
const gutter = () => canvas.clientWidth < 560 ? 92 : 150;
const toX = (value) => gutter() + (value - low) / (high - low) * (canvas.clientWidth - gutter());
const fromX = (x) => low + (x - gutter()) / (canvas.clientWidth - gutter()) * (high - low);
const draw = () => { if (!pending) { pending = true; requestAnimationFrame(() => { pending = false; paint(); }); } };

function paint() {
  const width = box.clientWidth, tall = Math.min(order.length * TRACK + AXIS, 416), scale = devicePixelRatio || 1;
  canvas.style.height = `${tall}px`;
  $("spacer").style.height = `${Math.max(order.length * TRACK + AXIS - tall, 0)}px`;
  canvas.width = width * scale;
  canvas.height = tall * scale;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, tall);
  const left = gutter(), top = box.scrollTop, yOf = (track) => place.get(track) * TRACK + AXIS - top;
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, tall);
  pen.clip();
  paintAxis(left, width, tall);
  // As toX(), which asks the page for its width each time.
  const wide = (width - left) / (high - low), xOf = (value) => left + (value - low) * wide;
  const slots = tracks.map((_, track) => place.get(track) * 3);
  pen.fillStyle = colours.cpu;
  const starts = byTime ? bands.begin : bands.row;
  for (let at = Math.max(firstBand(starts, low) - 1, 0); at < starts.length; at++) {
    const begin = xOf(starts[at]);
    if (begin > width) break;
    const stop = xOf(byTime ? bands.end[at] : at + 1 < starts.length ? starts[at + 1] : count);
    if (place.has(bands.track[at])) pen.fillRect(begin, yOf(bands.track[at]) + 3, Math.max(stop - begin, 0.5), TRACK - 6);
  }
  const last = new Float64Array(order.length * 3).fill(-9), late = [];
  for (let at = Math.max(search(shown, low) - 1, 0); at < shown.length; at++) {
    const row = shown[at], x = xOf(byTime ? times[row] : row);
    if (x > width) break;
    const lane = lanes[kinds[row]], slot = slots[trackOf[row]] + lane;
    if (refused[words[row]]) late.push(row);
    const long = byTime ? spans[row] * wide : 0;
    if (x - last[slot] < 0.7 && long < 1) continue;
    last[slot] = x;
    pen.fillStyle = colours.kinds[kinds[row]];
    pen.fillRect(x, (slot - lane) / 3 * TRACK + AXIS - top + 5 + lane * 9, Math.max(long, 1.6), 7.5);
  }
  pen.fillStyle = colours.refused;
  for (const row of late) pen.fillRect(toX(where(row)) - 1, yOf(trackOf[row]) + 2, 4, TRACK - 4);
  if (chosen >= 0) {
    const x = toX(where(chosen));
    pen.fillStyle = colours.chosen;
    pen.fillRect(x - 0.5, AXIS - 4, 1.6, tall);
    pen.strokeStyle = colours.chosen;
    pen.lineWidth = 2;
    pen.strokeRect(x - 3, yOf(trackOf[chosen]) + 3 + lanes[kinds[chosen]] * 9, 7, 11);
  }
  pen.restore();
  paintNames(left, width, tall, yOf);
}

function paintAxis(left, width, tall) {
  const room = Math.max(Math.floor((width - left) / 110), 2);
  let step = Math.pow(10, Math.floor(Math.log10(Math.max((high - low) / room, 1))));
  while ((high - low) / step > room) step *= (high - low) / step > room * 2.5 ? 5 : 2;
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (let value = Math.ceil(low / step) * step; value <= high; value += step) {
    const x = toX(value);
    pen.fillStyle = colours.rule;
    pen.fillRect(x, AXIS - 4, 1, tall);
    pen.fillStyle = colours.dim;
    pen.fillText(byTime ? duration(value) : value.toLocaleString(), x + 3, 9);
  }
}

function paintNames(left, width, tall, yOf) {
  pen.fillStyle = colours.paper;
  pen.fillRect(0, 0, width, AXIS - 4);
  pen.save();
  pen.beginPath();
  pen.rect(left, 0, width - left, AXIS);
  pen.clip();
  paintAxis(left, width, 0);
  pen.restore();
  pen.save();
  pen.beginPath();
  pen.rect(0, AXIS - 4, left - 4, tall);
  pen.clip();
  pen.textBaseline = "middle";
  pen.font = "12px system-ui, sans-serif";
  for (const track of order) {
    const y = yOf(track);
    if (y < -TRACK || y > tall) continue;
    pen.fillStyle = chosen >= 0 && trackOf[chosen] === track ? colours.chosen : colours.ink;
    pen.fillText(trackName(track), 6, y + TRACK / 2);
  }
  pen.restore();
  pen.fillStyle = colours.rule;
  for (const track of order) if (yOf(track) >= AXIS - 4) pen.fillRect(0, yOf(track), width, 1);
}

function zoom(factor, around) {
  const middle = around ?? (chosen >= 0 ? where(chosen) : (low + high) / 2);
  const least = byTime ? 100 : 5, whole = end();
  const size = clamp((high - low) * factor, Math.min(least, whole), whole);
  low = clamp(middle - (middle - low) * size / (high - low), 0, whole - size);
  high = low + size;
  draw();
}
function whole() { low = 0; high = end(); draw(); }
function setAxis(time) {
  byTime = time;
  $("axis").textContent = byTime ? "By time" : "By order";
  $("axis").title = byTime ? "show events in their order, evenly" : "show events by the guest's clock";
  whole();
}

// -- the list, and the chosen event ---------------------------------------------------------------------------------

const list = $("list");
let drawn = new Map();
function drawList() {
  const first = Math.max(Math.floor(list.scrollTop / ROW) - 5, 0);
  const after = Math.min(first + Math.ceil((list.clientHeight || 400) / ROW) + 10, shown.length);
  const fresh = new Map();
  $("rows").replaceChildren();
  for (let at = first; at < after; at++) {
    const row = shown[at], element = make("div", "row");
    element.id = `event-${row}`;
    element.setAttribute("role", "option");
    element.setAttribute("aria-posinset", at + 1);
    element.setAttribute("aria-setsize", shown.length);
    element.setAttribute("aria-selected", row === chosen);
    element.style.top = `${at * ROW}px`;
    const kind = make("span", "", E.kinds[kinds[row]]);
    kind.style.color = `var(--e-${refused[words[row]] ? "refused" : E.kinds[kinds[row]]})`;
    element.append(make("span", "", duration(times[row])), make("span", "", trackName(trackOf[row]).trim()), kind,
      make("span", "", texts[words[row]] || "(text not kept)"));
    element.addEventListener("click", () => choose(row));
    fresh.set(row, element);
    $("rows").append(element);
  }
  drawn = fresh;
  if (drawn.has(chosen)) list.setAttribute("aria-activedescendant", `event-${chosen}`);
  else list.removeAttribute("aria-activedescendant");
}

function choose(row) {
  if (row === undefined || row < 0) return;
  chosen = row;
  const at = rank(row), y = at * ROW;
  if (y < list.scrollTop) list.scrollTop = y;
  else if (y + ROW > list.scrollTop + list.clientHeight) list.scrollTop = y + ROW - list.clientHeight;
  const value = where(row), size = high - low;
  if (value < low || value > high) { low = clamp(value - size / 2, 0, Math.max(end() - size, 0)); high = low + size; }
  const track = place.get(trackOf[row]) * TRACK;
  if (track < box.scrollTop || track + TRACK + AXIS > box.scrollTop + box.clientHeight) box.scrollTop = track - TRACK;
  const [pid, tid] = tracks[trackOf[row]];
  const who = pid ? `${data.space} ${pid}${tid === pid ? "" : ` thread ${tid}`}` : "the machine";
  const took = spans[row] ? `, took ${duration(spans[row])}` : "";
  $("event").textContent = `Event ${(row + 1).toLocaleString()} at ${duration(times[row])}, ${who}: ` +
    `${E.kinds[kinds[row]]} ${texts[words[row]] || "(text not kept)"}${took}`;
  if (addressOf(row)) {
    const button = make("button", "", "Show in the memory map");
    button.type = "button";
    button.addEventListener("click", () => showAddress(row));
    $("event").append(" ", button);
  }
  drawList();
  draw();
}
/** The place of `row` in what is shown, or of what follows it. */
function rank(row) {
  let least = 0, most = shown.length;
  while (least < most) { const middle = (least + most) >> 1; if (shown[middle] < row) least = middle + 1; else most = middle; }
  return least;
}
function move(by) {
  if (!shown.length) return;
  const at = chosen < 0 ? (by > 0 ? -1 : 0) : rank(chosen);
  choose(shown[clamp(at + by, 0, shown.length - 1)]);
}
function moveOnTrack(by) {
  if (chosen < 0) { move(1); return; }
  for (let at = rank(chosen) + by; at >= 0 && at < shown.length; at += by)
    if (trackOf[shown[at]] === trackOf[chosen]) { choose(shown[at]); return; }
}
const edge = (last) => choose(shown[last ? shown.length - 1 : 0]);
function onKeys(element, table) {
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== element) return;
    const action = table[event.key];
    if (action) { event.preventDefault(); action(); }
  });
}
