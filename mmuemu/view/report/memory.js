// -- the memory map -------------------------------------------------------------------------------------------------

const processes = data.processes;
let process = processes[0], lowFirst = false, picked = -1, items = [];
const addressOf = (row) => {
  const found = kinds[row] === FAULT && /0x([0-9a-f]+)/.exec(texts[words[row]]);
  return found ? found[1].padStart(16, "0") : null;
};
const faultCounts = new Map();
function faultsOf(shownProcess) {
  if (faultCounts.has(shownProcess.pid)) return faultCounts.get(shownProcess.pid);
  const regions = shownProcess.regions, counts = new Uint32Array(regions.length);
  for (let row = 0; row < count; row++) {
    if (kinds[row] !== FAULT || tracks[trackOf[row]][0] !== shownProcess.pid) continue;
    const at = regionAt(regions, addressOf(row));
    if (at >= 0) counts[at]++;
  }
  faultCounts.set(shownProcess.pid, counts);
  return counts;
}
function regionAt(regions, address) {
  if (!address) return -1;
  let least = 0, most = regions.length;
  while (least < most) { const middle = (least + most) >> 1; if (regions[middle].last < address) least = middle + 1; else most = middle; }
  return least < regions.length && regions[least].start <= address ? least : -1;
}

function drawMap() {
  const holder = $("regions"), faults = faultsOf(process);
  holder.replaceChildren();
  items = [];
  picked = -1;
  const sequence = process.regions.map((_, at) => at);
  if (!lowFirst) sequence.reverse();
  sequence.forEach((at, turn) => {
    const region = process.regions[at], next = process.regions[sequence[turn + 1]];
    const item = make("div", `region ${region.kind}${next && next.kind === "gap" ? " above-gap" : ""}`);
    item.id = `region-${at}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", "false");
    const body = make("div", "box"), gap = region.kind === "gap", arrow = data.kinds[region.kind][1];
    const turned = lowFirst ? { "\u2191": "\u2193", "\u2193": "\u2191" }[arrow] || "" : arrow;
    body.style.minHeight = `${region.height}px`;
    if (!gap) body.style.background = `var(--k-${region.kind})`;
    body.append(make("span", "", gap ? `\u22ee ${region.what}` : `${region.what} ${turned}`.trim()));
    body.append(make("span", "size", `${region.size}${faults[at] ? ` \u00b7 ${faults[at]} fault${faults[at] > 1 ? "s" : ""}` : ""}`));
    item.append(make("div", "address", gap ? "" : region.start), body);
    item.addEventListener("click", () => { pick(turn); holder.focus({ preventScroll: true }); });
    items.push({ item, at });
    holder.append(item);
  });
  $("when").textContent = process.when + (process.cut ? `; ${process.cut} regions in the middle are left out` : "");
}

function pick(turn) {
  if (!items[turn]) return;
  if (picked >= 0) items[picked].item.setAttribute("aria-selected", "false");
  picked = turn;
  const { item, at } = items[turn], region = process.regions[at];
  item.setAttribute("aria-selected", "true");
  $("regions").setAttribute("aria-activedescendant", item.id);
  const holder = $("regions"), y = item.offsetTop - holder.offsetTop;
  if (y < holder.scrollTop) holder.scrollTop = y - 8;
  else if (y + item.offsetHeight > holder.scrollTop + holder.clientHeight)
    holder.scrollTop = y + item.offsetHeight - holder.clientHeight + 8;
  describe(region, faultsOf(process)[at]);
  const root = region.kind === "kernel" ? data.kernel : process.tables;
  showTables(root, region.start, region.last, `Page tables: ${region.what}`);
}

function describe(region, faults) {
  const facts = [["what", region.kind === "gap" ? region.what : `${region.what} (${data.kinds[region.kind][0]})`],
    ["addresses", `0x${region.start} to 0x${region.last}`], ["size", region.size]];
  if (region.perm) facts.push(["permissions", region.perm]);
  if (region.kind !== "gap") {
    const more = [[region.dirty, "dirty"], [region.shared, "shared"]].filter(([size]) => size)
      .map(([size, word]) => `, ${bytes(size)} ${word}`).join("");
    facts.push(["in memory", `${bytes(region.resident)}${more}`]);
  }
  if (region.offset !== null) facts.push(["moved by", `${region.offset}${region.mover ? ` (with ${region.mover})` : ""}`]);
  if (faults) facts.push(["page faults", faults.toLocaleString()]);
  const start = BigInt(`0x${region.start}`);
  if (process.levels.length) facts.push(["table indices", process.levels.map(([name, low, wide]) =>
    `${name} ${(start >> BigInt(low)) & ((1n << BigInt(wide)) - 1n)}`).join(", ")]);
  const table = make("dl");
  for (const [name, text] of facts) table.append(make("dt", "", name), make("dd", "", text));
  $("region").replaceChildren(table);
}

function showAddress(row) {
  const address = addressOf(row), pid = tracks[trackOf[row]][0];
  const owner = processes.find((one) => one.pid === pid);
  if (!address || !owner) return;
  if (owner !== process) { process = owner; $("process").value = processes.indexOf(owner); drawMap(); }
  pick(items.findIndex(({ at }) => at === regionAt(process.regions, address)));
  $("regions").focus();
}

// -- page tables ----------------------------------------------------------------------------------------------------

function showTables(root, start, last, title) {
  $("tables-title").textContent = title;
  const holder = $("tables"), filtered = start !== undefined;
  holder.replaceChildren();
  if (!root) {
    holder.append(make("div", "", "Physical addresses: no table translates them."));
    return;
  }
  const overlaps = (part) => !filtered || (part.start <= last && part.last >= start);
  const leads = (part) => overlaps(part) && (!part.parts || part.cut || part.parts.some(leads));
  if (filtered && !leads(root)) {
    holder.append(make("div", "", title.endsWith("not canonical")
      ? "These are no linear addresses: an access is a general-protection fault, and no table is looked at."
      : "No entry maps anything here: a walk ends at an entry whose P is 0."));
    return;
  }
  holder.append(branch(root, null, filtered ? leads : () => true, filtered));
  if (process.user_cr3 && root !== data.kernel)
    holder.append(make("div", "dim", `Page-table isolation: ring 3 runs on the tables at ${process.user_cr3}, which lack the kernel.`));
}

function branch(table, above, wanted, open) {
  const element = make("details");
  const head = above ? `${above.level}[${table.index}] ${table.start}-${table.last} \u2192 table ${table.table} \u00b7 ${table.bits}`
    : table === data.kernel ? `${table.level}s of the kernel, the same in every process's root table`
      : `CR3 \u2192 table ${table.table} of ${table.level}s`;
  element.append(make("summary", "", head));
  let filled = false;
  const fill = () => {
    if (filled) return;
    filled = true;
    for (const part of table.parts) {
      if (!wanted(part)) continue;
      element.append(part.parts ? branch(part, table, wanted, open) : run(part));
    }
    if (table.cut) element.append(make("div", "run", `${table.cut} more entries are left out`));
  };
  element.addEventListener("toggle", () => { if (element.open) fill(); });
  if (open || !above) { fill(); element.open = true; }
  return element;
}

function run(part) {
  const last = part.count > 1 ? `..${part.index + part.count - 1}` : "";
  const style = part.rights.includes("kernel") ? " kernel" : part.rights[1] === "w" ? " writable" : "";
  const pages = part.count > 1 ? `${part.count} pages of ${part.page}` : part.size;
  return make("div", `run${style}`, `${part.level}[${part.index}${last}] ${part.start}-${part.last} ${pages} ${part.rights} ` +
    `\u2192 ${part.frames} \u00b7 ${part.bits}`);
}
