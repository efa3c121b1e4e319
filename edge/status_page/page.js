// Draws /status.json once a second. What is abnormal the station has decided; the page decides only
// whether what it shows is still true.
"use strict";

const EVERY_MS = 1000;
const PATIENCE_MS = 3000;      // an answer that takes longer will not come
const STALE_MS = 4000;         // what is older is shown as what it is: old
const SUM_WORDS = {
  received: "received", malformed: "malformed", redelivered: "redelivered",
  recorded: "recorded", under_way: "under way",
};
const SWAP_WORDS = {
  idle: "none since the start", verifying: "verifying", loading: "loading", proving: "golden frames",
  shadow: "in shadow", activating: "taking over", probation: "active, on probation",
  steady: "active", rolled_back: "ROLLED BACK", refused: "REFUSED",
};

const by = (id) => document.getElementById(id);
let heardMs = null;            // when the station last answered, on this machine's clock
let said = null;               // what it said
let before = null;             // what it said before, for the rate
let shownAlarms = "";

async function ask() {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), PATIENCE_MS);
  try {
    const answer = await fetch("/status.json", { cache: "no-store", signal: abort.signal });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = await answer.json();
    before = said;
    said = fresh;
    heardMs = performance.now();
    draw();
  } catch {
    drawAge();
  } finally {
    clearTimeout(timer);
    setTimeout(ask, EVERY_MS);
  }
}

function draw() {
  by("station").textContent = said.station;
  by("when").textContent = `as of ${clockTime(said.unix_s)}`;
  by("rate").textContent = rate();
  drawSums();
  rows("latest", said.latest.map(verdictRow), "no frame yet");
  rows("latency", Object.entries(said.latency_ms).map(([stage, ms]) =>
    row([head(stage), number(ms.p50.toFixed(1)), number(ms.p99.toFixed(1))])), "no frame yet");
  rows("unknown", Object.entries(said.unknown).map(([reason, n]) =>
    row([head(words(reason)), number(count(n))])), "none");
  rows("cameras", said.cameras.map((camera) => row([
    head(camera.name), number(count(camera.frames)), number(count(camera.unknown)),
    number(ago(camera.seen_s))])), "none has sent a frame");
  drawFacts();
  drawAge();
}

function drawAge() {
  const ageMs = heardMs === null ? null : performance.now() - heardMs;
  const stale = ageMs === null ? performance.now() > STALE_MS : ageMs > STALE_MS;
  document.body.classList.toggle("stale", stale);
  const alarms = stale ? [] : [...(said?.alarms ?? [])];
  if (stale) {
    const since = ageMs === null
      ? "the station has not answered yet"
      : `the station does not answer; everything below is as of ${clockTime(said.unix_s)}`;
    alarms.push({ level: "alarm", name: "stale", text: since });
  }
  drawAlarms(alarms);
  const state = stale ? "stale" : said?.state;
  if (state && by("state").dataset.state !== state) {
    by("state").dataset.state = state;
    by("state").replaceChildren(shape(state), state.toUpperCase());
  }
  const word = stale ? "STALE" : alarms.length ? `${alarms.length} ABNORMAL` : state ?? "";
  document.title = `${word} · ${said?.station ?? "station"} · dualbank`;
}

function drawAlarms(alarms) {
  // Only what has changed is drawn again: a screen reader reads every new line aloud.
  const key = JSON.stringify(alarms);
  if (key === shownAlarms) return;
  shownAlarms = key;
  by("alarms").replaceChildren(...alarms.map((alarm) => {
    const line = element("p", alarm.name === "insecure" ? "insecure" : alarm.level);
    const name = element("b");
    name.append(shape(alarm.level), alarm.name);
    line.append(name, element("i", "", alarm.text));
    return line;
  }));
}

function drawSums() {
  const { received, ...ends } = said.frames;
  sum("received", received, Object.entries(ends).map(([name, n]) => [SUM_WORDS[name], n, null]));
  sum("recorded", said.frames.recorded,
    Object.entries(said.verdicts).map(([name, n]) => [name, n, name]));
}

function sum(id, total, terms) {
  const parts = [term(id, total, null)];
  terms.forEach(([name, n, symbol], i) => {
    const pair = element("span", "pair");
    pair.append(element("span", "sign", i ? "+" : "="), term(name, n, symbol));
    parts.push(pair);
  });
  const holds = total === terms.reduce((all, [, n]) => all + n, 0);
  parts.push(element("span", holds ? "check" : "check alarm", holds ? "✓ adds up" : "✗ DOES NOT ADD UP"));
  by(id).replaceChildren(...parts);
}

function term(name, n, symbol) {
  const cell = element("span");
  const label = element("small");
  if (symbol) label.append(shape(symbol));
  label.append(name);
  cell.append(element("b", "", count(n)), label);
  return cell;
}

function verdictRow(each) {
  const verdict = element("td");
  verdict.append(shape(each.verdict), each.verdict);
  const why = cell(each.reason ? words(each.reason) : "");
  why.title = each.detail ?? "";
  const line = row([
    verdict, why, cell(each.part ?? ""), cell(each.camera), cell(each.product ?? ""),
    cell(clockTime(each.unix_s)), number(each.score === null ? "–" : each.score.toFixed(2)),
    number(each.total_ms === null ? "–" : each.total_ms.toFixed(1)), number(count(each.station_seq))]);
  line.className = each.verdict;
  return line;
}

function drawFacts() {
  const { model, swap, ledger, disk, labels, transports, events } = said;
  const swapped = swap.bundle ? ` · ${swap.bundle.slice(0, 12)}` : "";
  facts([
    ["scorer", model?.scorer ?? "not loaded yet"],
    ["bundle", code(model?.bundle.slice(0, 12) ?? "–")],
    ["bank", code(model?.bank.slice(0, 12) ?? "–")],
    ["swap", `${SWAP_WORDS[swap.step] ?? swap.step}${swapped}`],
    ["ledger", `${count(ledger.entries)} entries · ${bytes(ledger.bytes)}`],
    ["ledger head", code(ledger.head?.slice(0, 16) ?? "–")],
    ["disk", `${bytes(disk.free_bytes)} free of ${bytes(disk.bytes)}`],
    ["to label", `${count(labels.items ?? 0)} parts · ${bytes(labels.bytes ?? 0)}`],
    ["came by", list(transports)],
    ["peers", `${count(said.peers)} connected`],
    ["events", list(events)],
    ["version", said.version],
  ]);
}

function facts(pairs) {
  by("facts").replaceChildren(...pairs.map(([name, value]) => {
    const pair = element("div"), shown = element("dd");
    shown.append(value);
    pair.append(element("dt", "", name), shown);
    return pair;
  }));
}

function rows(id, lines, none) {
  const table = by(id);
  if (!lines.length) {
    const empty = element("td", "none", none);
    empty.colSpan = Math.max(1, table.querySelectorAll("thead th").length);
    lines = [row([empty])];
  }
  table.tBodies[0].replaceChildren(...lines);
}

function rate() {
  if (!before) return "";
  const seconds = said.unix_s - before.unix_s;
  const frames = said.frames.received - before.frames.received;
  return seconds > 0 && frames >= 0 ? `${(frames / seconds).toFixed(1)} frames/s` : "";
}

// Everything a camera may have named goes through textContent or append: never as HTML.
function element(name, kind = "", text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  if (text !== "") made.textContent = text;
  return made;
}
function shape(symbol) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  drawn.setAttribute("class", "shape");
  drawn.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#${symbol}`);
  drawn.append(use);
  return drawn;
}
function row(cells) { const line = element("tr"); line.append(...cells); return line; }
function cell(text) { const made = element("td", "", text); made.title = text; return made; }
function number(text) { return element("td", "number", text); }
function head(text) { const made = element("th", "", text); made.scope = "row"; return made; }
function list(counts) {
  const some = Object.entries(counts).filter(([, n]) => n);
  return some.map(([name, n]) => `${words(name)} ${count(n)}`).join(" · ") || "none";
}
function code(text) { return element("code", "", text); }
function words(name) { return name.replaceAll("_", " "); }
function count(n) { return n.toLocaleString("en").replaceAll(",", "\u202f"); }
function clockTime(unixS) { return new Date(unixS * 1000).toLocaleTimeString("en-GB"); }
function ago(seconds) {
  if (seconds < 2) return "now";
  if (seconds < 120) return `${Math.floor(seconds)} s ago`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ago`;
  return `${Math.floor(seconds / 3600)} h ago`;
}
function bytes(n) {
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (n < 1024) return `${unit === "B" ? n : n.toFixed(1)} ${unit}`;
    n /= 1024;
  }
  return `${n.toFixed(1)} TiB`;
}

setInterval(drawAge, EVERY_MS);
ask();
