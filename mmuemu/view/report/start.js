// -- caches and predictors ------------------------------------------------------------------------------------------

function table(titles, rows, caption) {
  const element = make("table");
  if (caption) element.append(make("caption", "dim", caption));
  const head = make("tr");
  titles.forEach((title, at) => head.append(make("th", rows[0] && typeof rows[0][at] === "number" ? "number" : "", title)));
  element.append(head);
  for (const row of rows) {
    const line = make("tr");
    row.forEach((cell) => line.append(make("td", typeof cell === "number" ? "number" : "",
      typeof cell === "number" ? cell.toLocaleString() : cell)));
    element.append(line);
  }
  return element;
}

function cacheMap(cache) {
  const space = "http://www.w3.org/2000/svg", across = 32, cell = 10;
  const wide = Math.min(across, cache.sets), deep = Math.ceil(cache.sets / wide), tall = deep * (cache.ways * 4 + 14);
  const picture = document.createElementNS(space, "svg");
  picture.setAttribute("viewBox", `0 0 ${wide * cell + 24} ${tall}`);
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `${cache.name}: ${cache.lines} lines in ${cache.sets} sets of ${cache.ways} ways`);
  cache.members.forEach((members, set) => {
    const x = 24 + set % wide * cell, y = Math.floor(set / wide) * (cache.ways * 4 + 14);
    for (let way = 0; way < cache.ways; way++) {
      const part = document.createElementNS(space, "rect");
      part.setAttribute("x", x); part.setAttribute("y", y + way * 4); part.setAttribute("width", cell - 2);
      part.setAttribute("height", 3.4); part.setAttribute("stroke-width", 0.4);
      part.setAttribute("class", way < members.length ? "held" : "way");
      const tip = document.createElementNS(space, "title");
      tip.textContent = `set ${set}: ${members[way] || "empty"}`;
      part.append(tip);
      picture.append(part);
    }
    if (set % wide === 0) {
      const label = document.createElementNS(space, "text");
      label.setAttribute("x", 0); label.setAttribute("y", y + 9);
      label.textContent = set;
      picture.append(label);
    }
  });
  return picture;
}

function drawSpeculation(S) {
  $("hidden").hidden = $("to-hidden").hidden = false;
  const holder = $("speculation"), parts = make("div", "parts");
  const part = (title, ...content) => {
    const element = make("div");
    element.append(make("h3", "", title), ...content);
    parts.append(element);
  };
  const folded = (title, content) => {
    const element = make("details"), inner = make("div", "scroll");
    inner.append(content);
    element.append(make("summary", "", title), inner);
    return element;
  };
  holder.append(make("p", "", `${S.cpu}, at the end of the run: ${S.instructions.toLocaleString()} instructions in ` +
    `${S.cycles.toLocaleString()} cycles.`), parts);
  const meter = (value, most) => {
    const element = make("meter");
    element.max = most;
    element.value = value;
    element.setAttribute("aria-label", `${value} of ${most}`);
    return element;
  };
  const sum = S.windows.reduce((total, [, , number]) => total + number, 0);
  part("Transient windows", table(["opened by", "ended by", "windows"], S.windows, `${sum.toLocaleString()} by flaw and reason`));
  const [first] = S.caches;
  part(`L1D: ${first.lines} of ${first.sets * first.ways} lines`, cacheMap(first),
    make("p", "dim", "A column is a set (the numbers count them), a cell a way, from the one that came first."),
    folded("Lines by set", table(["set", "physical addresses"],
      first.members.map((members, set) => [String(set), members.join(" ")]).filter(([, text]) => text), "")));
  part("Cache levels", table(["cache", "lines", "room"], S.caches.map((one) => [one.name, one.lines, one.sets * one.ways]), "lines of 64 bytes"));
  part(`Return stack buffer: ${S.rsb.depth} of ${S.rsb.size}`, meter(S.rsb.depth, S.rsb.size), folded("Entries, the newest first", table(["", "returns to"],
    S.rsb.entries.map((address, at) => [String(at), at < S.rsb.depth ? address : `${address} (stale)`]), "")));
  part(`Branch target buffer: ${S.btb.used.toLocaleString()} of ${S.btb.limit.toLocaleString()}`,
    meter(S.btb.used, S.btb.limit), folded("The newest entries", table(["branch (low bits)", "target (low bits)", "tag"], S.btb.entries.slice().reverse(), "")));
  part("Pattern history table", table(["counter", "entries"], ["strongly not taken", "weakly not taken", "weakly taken",
    "strongly taken"].map((name, at) => [name, S.pht[at]]), "two-bit counters"));
}

// -- the rest -------------------------------------------------------------------------------------------------------

function drawFacts() {
  const facts = data.facts, say = (value) => Array.isArray(value) ? value.join(" ") : typeof value === "boolean"
    ? (value ? "yes" : "no") : typeof value === "number" && value > 9999 ? value.toLocaleString() : String(value);
  const rows = [], add = (name, value) => {
    if (value === null || value === "" || (Array.isArray(value) && !value.length)) return;
    if (typeof value === "object" && !Array.isArray(value)) {
      for (const [inner, one] of Object.entries(value)) add(`${name === "statistics" ? "" : `${name}: `}${inner}`, one);
    } else if (name !== "version" && name !== "summary") rows.push([name.replaceAll("_", " "), name === "seed" ? String(value) : say(value)]);
  };
  for (const [name, value] of Object.entries(facts)) add(name, value);
  for (const [name, value] of rows) {
    const line = make("tr"), head = make("th", "", name);
    head.scope = "row";
    line.append(head, make("td", "", value));
    $("run").append(line);
  }
  $("summary").textContent = `${facts.summary}, ${count.toLocaleString()} events`;
}

function begin() {
  readColours();
  drawFacts();
  const present = new Set(processes.flatMap((one) => one.regions.map((region) => region.kind)));
  for (const [kind, [text]] of Object.entries(data.kinds)) {
    if (kind === "gap" || !present.has(kind)) continue;
    const item = make("span");
    item.append(swatch(`var(--k-${kind})`), text);
    $("legend").append(item);
  }
  processes.forEach((one, at) => {
    const option = make("option", "", `${one.pid || ""} ${one.program}`.trim());
    option.value = at;
    $("process").append(option);
  });
  $("process").addEventListener("change", () => { process = processes[$("process").value]; drawMap(); showWhole(); });
  $("order").addEventListener("click", () => {
    lowFirst = !lowFirst;
    $("order").setAttribute("aria-pressed", lowFirst);
    const at = picked >= 0 ? items[picked].at : -1;
    drawMap();
    if (at >= 0) pick(items.findIndex((one) => one.at === at));
  });
  const showWhole = () => showTables(process.tables, undefined, undefined, `Page tables${process.pid ? ` of ${data.space} ${process.pid}` : ""}`);
  $("space").textContent = data.space[0].toUpperCase() + data.space.slice(1);
  $("whole").textContent = `All of this ${data.space}`;
  $("kernel").hidden = !data.kernel;
  $("whole").addEventListener("click", showWhole);
  $("kernel").addEventListener("click", () => showTables(data.kernel, undefined, undefined, "Page tables of the kernel half"));
  onKeys($("regions"), {
    ArrowDown: () => pick(clamp(picked + 1, 0, items.length - 1)), ArrowUp: () => pick(clamp(picked - 1, 0, items.length - 1)),
    Home: () => pick(0), End: () => pick(items.length - 1), Enter: () => $("tables").querySelector("summary")?.focus(),
  });
  if (process) { drawMap(); showWhole(); }
  else $("memory").replaceChildren(make("h2", "", "Memory map"), make("p", "", `No ${data.space} left its memory to look at.`));

  E.kinds.forEach((kind, at) => {
    if (!totals[at] && !E.lost[at]) return;
    const label = make("label"), tick = make("input");
    tick.type = "checkbox";
    tick.checked = true;
    tick.addEventListener("change", () => { on[at] = tick.checked; filter(); });
    label.append(tick, " ", swatch(`var(--e-${kind})`), `${KIND_WORDS[kind]} ${totals[at].toLocaleString()}`);
    $("kinds").append(label);
  });
  const lost = E.lost.map((number, at) => number ? `${number.toLocaleString()} ${KIND_WORDS[E.kinds[at]]}` : "").filter(Boolean);
  $("lost").textContent = (lost.length ? `Not kept, because there were too many: ${lost.join(", ")}. ` : "") +
    (data.left_out ? `The memory of ${data.left_out} more is not shown.` : "");
  $("axis").addEventListener("click", () => setAxis(!byTime));
  $("in").addEventListener("click", () => zoom(0.5));
  $("out").addEventListener("click", () => zoom(2));
  $("all").addEventListener("click", whole);
  $("query").addEventListener("input", () => { query = $("query").value; filter(); });
  onKeys(box, {
    ArrowLeft: () => move(-1), ArrowRight: () => move(1), ArrowUp: () => moveOnTrack(-1), ArrowDown: () => moveOnTrack(1),
    "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), "0": whole, Home: () => edge(false), End: () => edge(true),
    Enter: () => chosen >= 0 && showAddress(chosen),
  });
  const page = () => Math.max(Math.floor(list.clientHeight / ROW) - 1, 1);
  onKeys(list, {
    ArrowUp: () => move(-1), ArrowDown: () => move(1), PageUp: () => move(-page()), PageDown: () => move(page()),
    Home: () => edge(false), End: () => edge(true), Enter: () => chosen >= 0 && showAddress(chosen),
  });
  list.addEventListener("scroll", drawList, { passive: true });
  box.addEventListener("scroll", draw, { passive: true });
  pointer();
  addEventListener("resize", () => { draw(); drawList(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); draw(); });
  if (data.speculation) drawSpeculation(data.speculation);
  setAxis(byTime);
  filter();
  document.documentElement.dataset.ready = "yes";
}

function pointer() {
  let held = null;
  canvas.addEventListener("pointerdown", (event) => { held = { x: event.offsetX, low, moved: false }; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    const by = event.offsetX - held.x, size = high - low;
    held.moved = held.moved || Math.abs(by) > 4;
    if (!held.moved) return;
    low = clamp(held.low - by / (canvas.clientWidth - gutter()) * size, 0, Math.max(end() - size, 0));
    high = low + size;
    draw();
  });
  const drop = () => { held = null; };
  canvas.addEventListener("pointercancel", drop);
  canvas.addEventListener("pointerup", (event) => {
    if (held && !held.moved && shown.length) choose(nearest(event.offsetX, event.offsetY));
    held = null;
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.shiftKey) return;
    event.preventDefault();
    zoom((event.deltaY || event.deltaX) > 0 ? 1.25 : 0.8, fromX(event.offsetX));
  }, { passive: false });
}

/** The event that was drawn nearest to a point: on its track if there is one in reach. */
function nearest(x, y) {
  const track = order[Math.floor((y - AXIS + box.scrollTop) / TRACK)], middle = search(shown, fromX(x));
  const distance = (row) => Math.abs(toX(where(row)) - x) + (trackOf[row] === track ? 0 : 60)
    + Math.abs(lanes[kinds[row]] - Math.floor(((y - AXIS + box.scrollTop) % TRACK - 5) / 9)) * 2;
  let best = shown[clamp(middle, 0, shown.length - 1)];
  for (let at = Math.max(middle - 3000, 0); at < Math.min(middle + 3000, shown.length); at++)
    if (distance(shown[at]) < distance(best)) best = shown[at];
  return best;
}

begin();
