// The page: asks for one picture after the other, and for the status twice a second.
//
// A picture is asked for while the one before it is drawn, so at most two are under way, and none
// waits in a queue. The result of the very same frame comes in the answer's header.
"use strict";

const STATUS_EVERY_MS = 500;
const STALE_AFTER_MS = 1000;
const GIVE_UP_MS = 15000; // an answer comes after 5 s at the latest, with a picture or without
const SPOKEN_EVERY_MS = 3000;
const SPARK_FRAMES = 240;
const DRAW_FRAMES = 100;
const LARGEST_CANVAS = 2048;
const CLOCKS = {
  sensor: "sensor's clock",
  driver: "driver's clock",
  arrival: "arrival clock, without the way here",
};

const byId = (id) => document.getElementById(id);
const client = crypto.getRandomValues(new Uint32Array(2)).join("-");
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// What is on show. `page` is read by tests as well.
const page = {
  shown: null, // the result of the picture on show
  bitmap: null,
  drawnAt: 0, // performance.now()
  ageWhenDrawn: 0, // ms, by the frame's clock
  interval: null, // ms between frames, smoothed
  status: null,
  trouble: null, // why no pictures come, in words
  pictures: 0,
};
window.edgenet = page;

// The cookie is there now: the token need not stay in the address bar and in the history.
if (new URLSearchParams(location.search).has("token")) {
  history.replaceState(null, "", location.pathname);
}

/* Asking. */

class Refused extends Error {
  constructor(words, again) {
    super(words);
    this.again = again; // ms until asking once more, null for never
  }
}

async function get(path) {
  let answer;
  try {
    answer = await fetch(path, { signal: AbortSignal.timeout(GIVE_UP_MS), cache: "no-store" });
  } catch {
    throw new Refused("No connection: the run has ended, or the board is out of reach.", 1000);
  }
  if (answer.status === 401) {
    throw new Refused("Not allowed in. Open the address that edgenet printed, with its token.", null);
  }
  if (answer.status === 503) {
    throw new Refused("Too many are looking on already; waiting for a place.", 5000);
  }
  if (!answer.ok) throw new Refused(`The board answered ${answer.status}.`, 2000);
  return answer;
}

// The next picture after a frame, ready to be drawn; null where none came in time.
async function nextPicture(after) {
  const answer = await get(`frame.jpg?after=${after}&client=${client}`);
  const cameAt = performance.now();
  if (answer.status === 204) return null;
  const result = JSON.parse(answer.headers.get("X-Result"));
  const age = Number(answer.headers.get("X-Age-Ms"));
  try {
    return { result, age, cameAt, blob: await answer.blob() };
  } catch {
    throw new Refused("The connection broke within a picture.", 500);
  }
}

async function showPictures() {
  let after = -1;
  let coming = null;
  for (;;) {
    await untilVisible();
    try {
      const picture = await (coming ?? nextPicture(after));
      coming = null;
      page.trouble = null;
      if (picture === null) continue;
      after = picture.result.sequence;
      if (!document.hidden) {
        coming = nextPicture(after);
        coming.catch(() => {}); // told when it is waited for
      }
      await show(picture);
    } catch (error) {
      coming = null;
      page.trouble = error instanceof Refused ? error.message : `This page failed: ${error.message}`;
      update();
      if (error instanceof Refused && error.again === null) return;
      await sleep(error.again ?? 2000);
      after = -1; // another run may be there now, which counts from 0 again
    }
  }
}

async function showStatus() {
  for (;;) {
    await untilVisible();
    try {
      page.status = (await (await get("status.json")).json()).status;
      if (page.status !== null) drawStatus(page.status);
    } catch (error) {
      if (error.again === null) return; // the pictures say so
    }
    await sleep(STATUS_EVERY_MS);
  }
}

function untilVisible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((done) => {
    document.addEventListener("visibilitychange", () => done(), { once: true });
  });
}

/* The picture. */

const canvas = byId("picture");
const latencies = []; // {age, infer} of the last frames
const drawTimes = []; // ms, of the last pictures in this browser
let lastSpoken = { label: null, at: -Infinity };

async function show({ result, age, cameAt, blob }) {
  const began = performance.now();
  const bitmap = await createImageBitmap(blob);
  page.bitmap?.close();
  page.bitmap = bitmap;
  const now = performance.now();
  const decoded = now - began;
  if (page.shown !== null) {
    const since = Math.min(now - page.drawnAt, 5000);
    page.interval = page.interval === null ? since : 0.9 * page.interval + 0.1 * since;
  }
  page.shown = result;
  page.pictures += 1;
  draw();
  page.drawnAt = performance.now();
  drawTimes.push(page.drawnAt - now + decoded);
  if (drawTimes.length > DRAW_FRAMES) drawTimes.shift();
  page.ageWhenDrawn = age + page.drawnAt - cameAt;
  drawGuesses(result.guesses);
  latencies.push({ age: result.age_at_label_ms, infer: result.stages_ms.infer });
  if (latencies.length > SPARK_FRAMES) latencies.shift();
  speak(result.guesses[0]);
  update();
}

// Picture and label in one go, so that one is never seen with another's.
function draw() {
  if (page.bitmap === null) return;
  const { width, height } = page.bitmap;
  const wanted = Math.round(canvas.clientWidth * devicePixelRatio);
  const scale = Math.min(LARGEST_CANVAS, Math.max(wanted, 320)) / width;
  const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(page.bitmap, 0, 0, w, h);
  const [best] = page.shown.guesses;
  const unit = Math.max(14 * devicePixelRatio, Math.min(w * 0.034, h * 0.06));
  const shade = pen.createLinearGradient(0, h - unit * 4.2, 0, h);
  shade.addColorStop(0, "rgba(5, 7, 10, 0)");
  shade.addColorStop(0.55, "rgba(5, 7, 10, .62)");
  shade.addColorStop(1, "rgba(5, 7, 10, .86)");
  pen.fillStyle = shade;
  pen.fillRect(0, h - unit * 4.2, w, unit * 4.2);
  pen.textBaseline = "alphabetic";
  pen.font = `650 ${unit * 1.15}px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;
  const sure = percent(best.probability);
  const sureWidth = pen.measureText(sure).width;
  const left = unit * 0.9;
  const baseline = h - unit * 1.15;
  pen.fillStyle = "#fff";
  pen.fillText(fitted(pen, best.label, w - 3 * left - sureWidth), left, baseline);
  pen.fillStyle = "#5eead4";
  pen.fillText(sure, w - left - sureWidth, baseline);
  const line = { y: h - unit * 0.72, height: Math.max(2, unit * 0.16), width: w - 2 * left };
  pen.fillStyle = "rgba(255, 255, 255, .18)";
  pen.fillRect(left, line.y, line.width, line.height);
  pen.fillStyle = "#5eead4";
  pen.fillRect(left, line.y, line.width * (best.probability ?? 0), line.height);
  canvas.setAttribute("aria-label", `live picture: ${best.label}, ${sure}`);
}

function fitted(pen, text, room) {
  if (pen.measureText(text).width <= room) return text;
  let length = text.length;
  while (length > 1 && pen.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return `${text.slice(0, length)}…`;
}

function speak(best) {
  const now = performance.now();
  if (best.label === lastSpoken.label || now - lastSpoken.at < SPOKEN_EVERY_MS) return;
  lastSpoken = { label: best.label, at: now };
  byId("spoken").textContent = `${best.label}, ${percent(best.probability)}`;
}

/* Beside it. */

const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`);
const ms = (value) => {
  if (value === null || value === undefined) return "–";
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
};
const count = (value) => value.toLocaleString("en").replaceAll(",", "\u202f");
const words = (id, text) => {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
  return element;
};

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// As many rows in a list as there are things, each made once.
function rows(list, number, make) {
  while (list.children.length > number) list.lastChild.remove();
  while (list.children.length < number) list.append(make());
  return [...list.children];
}

function drawGuesses(guesses) {
  const items = rows(byId("guesses"), guesses.length, () => {
    const item = element("li", "");
    const track = element("span", "track");
    track.append(element("i", ""));
    item.append(element("span", "name"), element("span", "sure"), track);
    return item;
  });
  guesses.forEach(({ label, probability }, index) => {
    const [name, sure, track] = items[index].children;
    name.textContent = name.title = label;
    sure.textContent = percent(probability);
    track.firstChild.style.transform = `scaleX(${probability ?? 0})`;
  });
}

// What this browser takes from JPEG to canvas; the board does not pay for it.
function drawnHere() {
  const sorted = [...drawTimes].sort((one, other) => one - other);
  const at = (share) => sorted[Math.floor(share * sorted.length)] ?? null;
  return { n: sorted.length, p50_ms: at(0.5), p95_ms: sorted.length < 100 ? null : at(0.95),
    p99_ms: null };
}

function drawStages(stages) {
  const known = stages.filter(({ latency }) => latency.p50_ms !== null);
  const longest = Math.max(0.001, ...known.map(({ latency }) => latency.p95_ms ?? latency.p50_ms));
  const items = rows(byId("stages"), stages.length, () => {
    const item = element("li", "");
    const bar = element("span", "bar");
    bar.append(element("i", "tail"), element("i", "middle"));
    item.append(element("span", "name"), bar, element("span", "value"));
    return item;
  });
  stages.forEach(({ name, latency }, index) => {
    const [label, bar, value] = items[index].children;
    items[index].className = ["draw", "encode", "draw, here"].includes(name) ? "beside" : name;
    label.textContent = name;
    value.textContent = latency.p50_ms === null ? "–" : `${ms(latency.p50_ms)} ms`;
    value.title = `p95 ${ms(latency.p95_ms)} ms, p99 ${ms(latency.p99_ms)} ms, n ${latency.n}`;
    bar.firstChild.style.transform = `scaleX(${(latency.p95_ms ?? 0) / longest})`;
    bar.lastChild.style.transform = `scaleX(${(latency.p50_ms ?? 0) / longest})`;
  });
}

function drawStatus(status) {
  words("artifact", status.artifact);
  document.title = `${status.artifact} – edgenet`;
  words("device", `on ${status.device}`);
  words("source", status.source).title = status.source;
  const { delivered: d, tally, frame_to_label: age, accuracy, agreement } = status;
  words("delivered", d === null ? "" : [
    `${d.width} × ${d.height}`,
    d.frames_per_second === null ? null : `${Number(d.frames_per_second.toFixed(1))} fps`,
    d.format,
  ].filter((part) => part !== null).join(" · "));
  for (const name of ["delivered", "classified", "dropped", "repeated", "stale"]) {
    words(`${name}-count`, tally === null ? "–" : count(tally[name]));
  }
  words("rate", status.labels_per_second === null ? "–" : status.labels_per_second.toFixed(1));
  words("latency-p50", ms(age?.p50_ms));
  words("latency-p95", ms(age?.p95_ms));
  words("latency-p99", ms(age?.p99_ms));
  words("window", `last ${Number(status.window_s.toFixed(0))} s in figures`);
  drawStages([...status.stages, { name: "draw, here", latency: drawnHere() }]);
  const hot = status.temperature_c;
  words("temperature", hot === null ? "–" : `${hot.toFixed(1)} °C`).className = hot >= 80 ? "warn" : "";
  words("mhz", status.clock_mhz === null ? "–" : `${(status.clock_mhz / 1000).toFixed(2)} GHz`);
  const throttled = status.throttled;
  words("throttled", throttled === null ? "–" : throttled ? "yes" : "no")
    .className = throttled ? "bad" : "";
  const reasons = words("throttle-reasons", status.throttle_reasons.join("; "));
  reasons.hidden = status.throttle_reasons.length === 0;
  byId("accuracy").hidden = accuracy === null;
  if (accuracy !== null) drawAccuracy(accuracy);
  byId("agreement").hidden = agreement === null;
  if (agreement !== null) drawAgreement(agreement);
  drawSpark();
  update();
}

// How often the label is the float reference's: no accuracy, nobody knows here what is right.
function drawAgreement(agreement) {
  const share = (value) => (100 * value).toFixed(1);
  words("agreement-frames", `over ${count(agreement.frames)} frames, not accuracy`);
  words("agreement-top1", share(agreement.top1));
  words("agreement-interval", `95 % interval ${share(agreement.low)} to ${share(agreement.high)} %`);
  byId("agreement-alarms").hidden = agreement.alarms.length === 0;
  words("agreement-alarms", `Alarm, unlike the calibration set: ${agreement.alarms.join(", ")}`);
}

function drawAccuracy(accuracy) {
  const share = (value) => (100 * value).toFixed(1);
  words("accuracy-pictures", `over ${count(accuracy.pictures)} pictures`);
  words("accuracy-top1", share(accuracy.top1));
  byId("accuracy-top5-row").hidden = accuracy.top5 === null;
  words("accuracy-top5", accuracy.top5 === null ? "" : `${share(accuracy.top5)} %`);
  byId("accuracy-window-row").hidden = accuracy.window_top1 === null;
  words("accuracy-window-row", accuracy.window_top1 === null ? "" :
    `last ${accuracy.window_pictures}: ${share(accuracy.window_top1)} %`);
  const bar = byId("accuracy-range").style;
  [bar.left, bar.right] = [`${100 * accuracy.low}%`, `${100 - 100 * accuracy.high}%`];
  byId("accuracy-mark").style.left = `${100 * accuracy.top1}%`;
  words("accuracy-interval", `95 % interval ${share(accuracy.low)} to ${share(accuracy.high)} %`);
}

function drawSpark() {
  const spark = byId("spark");
  const ratio = devicePixelRatio;
  const [w, h] = [Math.round(spark.clientWidth * ratio), Math.round(spark.clientHeight * ratio)];
  if (w === 0 || latencies.length < 2) return;
  if (spark.width !== w || spark.height !== h) [spark.width, spark.height] = [w, h];
  const pen = spark.getContext("2d");
  const top = niceAbove(Math.max(...latencies.map(({ age, infer }) => Math.max(age, infer))));
  const y = (value) => h - ratio - (value / top) * (h - 14 * ratio);
  const x = (index) => w - ((latencies.length - 1 - index) / (SPARK_FRAMES - 1)) * w;
  pen.clearRect(0, 0, w, h);
  pen.strokeStyle = "#1e262f";
  pen.lineWidth = ratio;
  for (const level of [0, top]) {
    pen.beginPath();
    pen.moveTo(0, y(level));
    pen.lineTo(w, y(level));
    pen.stroke();
  }
  pen.fillStyle = "#8b98a7";
  pen.font = `${11 * ratio}px system-ui, "DejaVu Sans", sans-serif`;
  pen.fillText(`${top} ms`, 0, y(top) - 3 * ratio);
  for (const [name, colour] of [["infer", "#7aa2f7"], ["age", "#5eead4"]]) {
    pen.beginPath();
    latencies.forEach((entry, index) => pen.lineTo(x(index), y(entry[name])));
    pen.strokeStyle = colour;
    pen.lineWidth = 1.5 * ratio;
    pen.lineJoin = "round";
    pen.stroke();
  }
  const last = latencies.at(-1);
  spark.setAttribute("aria-label",
    `latency of the last ${latencies.length} frames; now ${ms(last.age)} ms`);
}

function niceAbove(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 0.1)));
  return Number((power * [1, 1.5, 2, 3, 5, 7.5, 10].find((step) => step * power >= value)).toPrecision(3));
}

/* Whether it is live: said from what is known now, several times a second. */

function update() {
  const age = page.shown === null ? null : page.ageWhenDrawn + performance.now() - page.drawnAt;
  const late = page.shown !== null
    && performance.now() - page.drawnAt > Math.max(STALE_AFTER_MS, 2.5 * (page.interval ?? 0));
  const fault = page.status?.fault ?? null;
  let state = "live";
  let banner = null;
  if (page.trouble !== null) [state, banner] = ["away", page.trouble];
  else if (fault !== null) [state, banner] = ["fault", fault];
  else if (page.shown === null) state = "waiting";
  else if (late) [state, banner] = ["stale", `No new picture for ${(age / 1000).toFixed(0)} s.`];
  document.body.dataset.state = state;
  words("state", { live: "LIVE", stale: "STALE", fault: "FAULT", away: "NO PICTURE",
    waiting: "WAITING" }[state]);
  words("banner", banner ?? "").hidden = banner === null;
  const clock = page.shown?.clock;
  words("age", age === null ? "–" : age < 9995 ? `${age.toFixed(0)} ms` : `${(age / 1000).toFixed(0)} s`);
  words("clock", clock === undefined ? "" : CLOCKS[clock]);
  words("latency-clock", clock === undefined ? "" : CLOCKS[clock]);
}

new ResizeObserver(() => { draw(); drawSpark(); }).observe(canvas);
document.addEventListener("visibilitychange", update);
setInterval(update, 100);
showPictures();
showStatus();
