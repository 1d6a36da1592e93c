// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The pictures of a run, of a task, of a DAG, or the newest of all: asked for at Airflow's own API, in the user's name.
// Whatever comes from there is text from strangers: it goes into the page as text, and nowhere as markup.
(() => {
"use strict";

const ROOT = new URL("..", document.currentScript.src).pathname; // .../pictory/
const API = new URL("../api/v2/", new URL(ROOT, location.href)).href;
const TOLD = JSON.parse(document.getElementById("told").textContent);
const PAGE = 50; // pictures in the page at once, and rows of a batch in one XCom
const STRIP = 6; // pictures of each run in a list of runs
const RUNS = 8;
const POLL = 3_000, POLL_HIDDEN = 30_000;
const DAY = 86_400_000;
const WINDOWS = [1, 8, 40, 400]; // days that are looked through for the newest runs, so that no request grows
const STARTED = ["running", "deferred", "success", "failed", "up_for_retry", "up_for_reschedule", "restarting", "skipped"];
// Errors of a task that has bought nothing, where no job is on record.
const BOUGHT_NOTHING = new Set(["PictoryRequestInvalid", "PictoryAuthenticationError", "PictoryBudgetExceeded", "PictoryUnavailable",
  "PictoryRateLimited"]);
const ENDED = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);
const main = document.getElementById("main");

// ---------------------------------------------------------------------------------------------- what Airflow says

class Trouble extends Error {
  constructor(status) {
    super(`HTTP ${status}`);
    this.status = status;
  }
}

const queue = [];
let underWay = 0;

/** Let a few requests go side by side: a browser has six connections, and Airflow's own page needs some. */
function inTurn(work) {
  return new Promise((resolve, reject) => {
    queue.push(async () => {
      try {
        resolve(await work());
      } catch (error) {
        reject(error);
      }
      underWay -= 1;
      next();
    });
    next();
  });
}

function next() {
  while (underWay < 5 && queue.length) {
    underWay += 1;
    queue.shift()();
  }
}

const enc = encodeURIComponent;

/** Ask Airflow's REST API; null for what is not there. */
function get(path, params = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null) url.searchParams.append(name, one);
  }
  return inTurn(async () => {
    const reply = await fetch(url, { credentials: "same-origin", headers: { Accept: "application/json" } });
    if (reply.status === 404) return null;
    if (!reply.ok) throw new Trouble(reply.status);
    return reply.json();
  });
}

const runPath = (dag, run) => `dags/${enc(dag)}/dagRuns/${enc(run)}`;
const keyOf = (ti) => JSON.stringify([ti.dag_id, ti.dag_run_id, ti.task_id, ti.map_index]);

/** The value of an XCom; null where there is none. */
async function xcom(ti, key) {
  const path = `${runPath(ti.dag_id, ti.dag_run_id)}/taskInstances/${enc(ti.task_id)}/xcomEntries/${enc(key)}`;
  const entry = await get(path, { map_index: ti.map_index });
  let value = entry && entry.value;
  for (let times = 0; times < 2 && typeof value === "string" && /^["{[]/.test(value); times += 1) {
    try {
      value = JSON.parse(value); // Airflow 3.1 keeps what was edited over its API as JSON within JSON
    } catch {
      break; // it is the string itself
    }
  }
  return value === undefined ? null : value;
}

const kinds = new Map(Object.entries(TOLD.kinds));
const classesOf = (...wanted) => [...kinds].filter(([, kind]) => wanted.includes(kind)).map(([name]) => name);

/** Learn the names of a DAG's own classes that are made of ours: our link is on them. */
async function learnClasses(dag) {
  const found = await get(`dags/${enc(dag)}/tasks`).catch(() => null);
  for (const task of (found && found.tasks) || []) {
    const { module_path: module, class_name: name } = task.class_ref || {};
    const fields = task.template_fields || [];
    const isOurs = (task.extra_links || []).includes("Pictory image") || String(module).startsWith("pictory_provider.");
    if (!name || kinds.has(name) || !isOurs) continue;
    const has = (field) => fields.includes(field);
    kinds.set(name, has("requests") ? "batch" : has("prompt") ? "generate" : has("path") ? "save" : "wait");
  }
}

async function taskInstances({ dag = "~", run = "~", task, map }, wanted, more = {}) {
  const found = await get(`${runPath(dag, run)}/taskInstances`, {
    operator: wanted && classesOf(...wanted),
    state: STARTED,
    task_id: task,
    map_index: map,
    order_by: "-start_date",
    limit: PAGE,
    ...more,
  });
  return { all: (found && found.task_instances) || [], total: (found && found.total_entries) || 0 };
}

// ------------------------------------------------------------------------------- what becomes of it: one item a picture

const isText = (value) => typeof value === "string" && value !== "";
const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
/** A picture's URL at another host. Airflow's own is never asked for what an XCom names: it might do something. */
function webUrl(value) {
  if (!isText(value) || !/^https?:\/\//i.test(value)) return null;
  try {
    return new URL(value).host === location.host ? null : value;
  } catch {
    return null;
  }
}

/** What Airflow keeps of a template, unless it was cut or set later. */
function rendered(ti, field) {
  const value = (ti.rendered_fields || {})[field];
  return isText(value) && !/^(Truncated\.|DYNAMIC \()/.test(value) && value !== "None" ? value : null;
}

function labelOf(ti) {
  const name = ti.task_display_name || ti.task_id;
  return ti.map_index >= 0 ? `${name} [${ti.rendered_map_index || ti.map_index}]` : name;
}

function blank(ti) {
  return {
    key: keyOf(ti), ti, task: labelOf(ti), state: "working", says: null, why: null, prompt: rendered(ti, "prompt"),
    model: rendered(ti, "model"), credits: null, listed: null, width: null, height: null, sources: [], path: null,
    job: null, since: null, isReused: false, ratio: ratioOf(rendered(ti, "aspect_ratio")),
  };
}

function ratioOf(text) {
  const found = /^(\d+):(\d+)$/.exec(text || "");
  return found ? `${found[1]} / ${found[2]}` : null;
}

/** Put an image record into an item. */
function take(item, record, key, index = 0) {
  item.job = isText(record.job_id) ? record.job_id : item.job;
  item.prompt = isText(record.prompt) ? record.prompt : item.prompt;
  item.model = isText(record.model) ? record.model : item.model;
  item.credits = number(record.ai_credits_used);
  item.width = number(record.width);
  item.height = number(record.height);
  item.path = isText(record.path) ? record.path : item.path;
  item.isReused = record.reused === true;
  item.state = "done";
  item.sources = [];
  if (TOLD.has_files && item.path) {
    const { dag_id: dag, dag_run_id: run, task_id: task, map_index: map } = item.ti;
    const which = isText(record.sha256) ? `?${enc(record.sha256)}` : ""; // what lies there changes, and a place does not
    item.sources.push(`${ROOT}file/${[dag, run, task, map, key, index].map(enc).join("/")}${which}`);
  }
  if (webUrl(record.url)) item.sources.push(record.url);
  return item;
}

function askedFor(item, request) {
  if (!request || typeof request !== "object") return;
  item.job = isText(request.job_id) ? request.job_id : item.job;
  item.prompt = isText(request.prompt) ? request.prompt : item.prompt;
  item.model = isText(request.model) ? request.model : item.model;
  item.listed = number(request.credits);
  item.ratio = ratioOf(request.aspectRatio) || item.ratio;
  if (number(request.submitted_at)) item.since = request.submitted_at * 1000;
}

/** Say why a task failed: what it left behind for that, in one sentence and in full. */
function explain(item, failure) {
  const text = failure && isText(failure.message) ? failure.message : null;
  item.state = item.ti.state === "skipped" ? "skipped" : "failed";
  item.why = text || "The task ended without a word of its own; its log may say more.";
  item.says = sentence(item.why);
  item.error = failure && isText(failure.error) ? failure.error : null;
}

function sentence(text) {
  const first = /^[\s\S]*?[.?!](?=\s+[A-Z`"']|\s*$)/.exec(text.trim());
  return (first ? first[0] : text.trim()).replace(/\s+/g, " ");
}

const known = new Map(); // items of tasks that have ended, and requests of those that have not

async function itemOf(ti) {
  const stamp = [ti.state, ti.try_number, ti.end_date].join();
  const before = known.get(keyOf(ti));
  if (before && before.stamp === stamp && (ENDED.has(ti.state) || before.isAsked)) return before.item;
  const kind = kinds.get(ti.operator);
  const item = blank(ti);
  let isAsked = false;
  if (kind === "wait" || kind === "save") item.job = rendered(ti, "job_id");
  if (ti.state === "success") {
    const key = kind === "generate" ? "image" : "return_value";
    const hasPath = rendered(ti, "path") !== null; // then the record tells the prompt too
    const request = kind === "generate" && !hasPath ? await xcom(ti, "pictory_request") : null;
    const record = request && request.is_waited_for === false ? null : await xcom(ti, key);
    const isRecord = record && typeof record === "object" && !Array.isArray(record);
    askedFor(item, request);
    if (isRecord) take(item, record, key);
    else item.state = "submitted";
  } else if (["failed", "up_for_retry", "skipped"].includes(ti.state)) {
    const failure = await xcom(ti, "pictory_failure");
    explain(item, failure);
    if (failure) for (const [to, from] of [["prompt", "prompt"], ["model", "model"], ["job", "job_id"]]) item[to] ??= isText(failure[from]) && failure[from] !== "None" ? failure[from] : null;
    const mayHaveBought = kind === "generate" && ti.state !== "skipped" && !BOUGHT_NOTHING.has(item.error);
    if (mayHaveBought || (kind === "generate" && !item.prompt)) askedFor(item, await xcom(ti, "pictory_request"));
    if (ti.state === "skipped" && !failure) item.state = "none";
    if (ti.state === "up_for_retry") item.says = `${item.says} It is tried again.`;
  } else {
    if (kind === "generate") askedFor(item, await xcom(ti, "pictory_request"));
    isAsked = item.job !== null;
    item.since ??= Date.parse(ti.start_date) || null;
    item.says = isAsked ? "Pictory draws" : "Being sent";
  }
  item.listed ??= number(TOLD.prices[item.model]);
  known.set(item.key, { stamp, item, isAsked });
  return item;
}

/** Find the tasks of a run that wait for jobs or save them, by the job that they name. */
async function companionsOf(scope, jobs) {
  const found = new Map();
  const missing = new Set(jobs);
  for (let offset = 0; offset < 1100; offset += 100) {
    const page = await taskInstances(scope, ["wait", "save"], { limit: 100, offset });
    for (const ti of page.all) {
      // Airflow 3.1 lists no rendered fields
      const job = rendered(ti, "job_id") || (found.size < 100 ? (await itemOf(ti)).job : null);
      const name = job || keyOf(ti);
      found.set(name, [...(found.get(name) || []), ti]);
      if (kinds.get(ti.operator) === "save" || ti.state !== "success") missing.delete(job);
    }
    if (page.all.length < 100 || (jobs.length && !missing.size)) break;
  }
  return found;
}

/** Let an item whose job others wait for have what they know. */
async function joined(item, others) {
  const saver = others.find((ti) => kinds.get(ti.operator) === "save" && ti.state === "success");
  const waiter = others.find((ti) => ti.state === "success");
  const ill = others.find((ti) => ["failed", "up_for_retry"].includes(ti.state));
  const busy = others.find((ti) => !ENDED.has(ti.state));
  const of = await (saver || waiter || ill || busy ? itemOf(saver || waiter || ill || busy) : null);
  if (!of && item.state === "submitted" && isGoingOn) return { ...item, state: "working", says: "Pictory draws" };
  if (!of) return item;
  return {
    ...item, ti: of.ti, state: of.state, why: of.why, says: of.state === "working" ? "Pictory draws" : of.says,
    error: of.error, credits: of.credits, width: of.width, height: of.height, sources: of.sources, path: of.path,
    isReused: of.isReused, job: of.job || item.job, since: item.since || of.since, prompt: item.prompt || of.prompt,
    task: item.task === of.task ? item.task : `${item.task}, ${of.task}`,
  };
}

async function singles(scope, offset = 0) {
  const isOfTask = scope.task !== undefined;
  const page = await taskInstances(scope, isOfTask ? null : ["generate"], { offset });
  const ours = page.all.filter((ti) => ["generate", "wait", "save"].includes(kinds.get(ti.operator)));
  let items = await Promise.all(ours.map(itemOf));
  const open = items.filter((item) => item.state === "submitted" && kinds.get(item.ti.operator) === "generate");
  const mayHaveOthers = !isOfTask && page.total <= PAGE;
  if (open.length || mayHaveOthers) {
    const others = await companionsOf({ dag: scope.dag, run: scope.run }, open.map((item) => item.job).filter(isText));
    items = await Promise.all(items.map((item) => (open.includes(item) ? joined(item, others.get(item.job) || []) : item)));
    if (mayHaveOthers) {
      const jobs = new Set(items.map((item) => item.job));
      const isUnknown = (tis) => items.length > 0 && !ENDED.has(tis[0].state) && !rendered(tis[0], "job_id");
      const alone = [...others].filter(([job, tis]) => !jobs.has(job) && !isUnknown(tis)).map(([, tis]) => tis).slice(0, PAGE - items.length);
      items.push(...(await Promise.all(alone.map(async (tis) => joined(await itemOf(tis[0]), tis)))));
    }
  }
  if (isOfTask) await Promise.all(items.map((item) => prompted(item, scope)));
  items = items.filter((item) => item.state !== "none");
  return { items, total: isOfTask ? items.length : Math.max(page.total, items.length), isOurs: ours.length > 0 };
}

/** A task that waits or saves knows no prompt: find the one that has bought the job. */
async function prompted(item, scope) {
  if (item.prompt || !item.job) return;
  const near = await taskInstances({ dag: scope.dag, run: scope.run, map: item.ti.map_index }, ["generate"], { limit: 10 });
  for (const ti of near.all) {
    const buyer = await itemOf(ti);
    if (buyer.job === item.job) {
      item.prompt = buyer.prompt;
      item.model ??= buyer.model;
      return;
    }
  }
}

const COUNTS = ["of", "to_do", "waiting", "saved", "reused", "failed", "unknown", "not_bought"];

/** The counts of a batch; whatever is none counts as 0. An XCom can be edited. */
function counts(progress) {
  if (!progress || typeof progress !== "object") return null;
  const isCount = (value) => Number.isInteger(value) && value >= 0 && value <= 1e7;
  const credits = number(progress.ai_credits_used);
  return {
    ...Object.fromEntries(COUNTS.map((name) => [name, isCount(progress[name]) ? progress[name] : 0])),
    ai_credits_used: credits !== null && credits >= 0 && credits <= 1e9 ? credits : 0,
  };
}

const batchPages = new Map();

/** How far a batch is, and why it stopped. */
async function batchOf(ti) {
  const stamp = [ti.state, ti.try_number, ti.end_date].join();
  const before = known.get(keyOf(ti));
  if (before && before.stamp === stamp && ENDED.has(ti.state)) return before.item;
  const progress = counts(await xcom(ti, "progress"));
  const batch = { key: keyOf(ti), ti, task: labelOf(ti), progress, of: progress ? progress.of : 0 };
  if (["failed", "up_for_retry"].includes(ti.state)) explain(batch, await xcom(ti, "pictory_failure"));
  known.set(batch.key, { stamp, item: batch });
  return batch;
}

/** Some pictures of a batch, by their places among those of its pages; after those of a page, its failures. */
async function rowsOf(batch, from, to) {
  const now = batch.progress || {};
  const hasLost = ENDED.has(batch.ti.state) && (now.failed || now.unknown || now.not_bought);
  const items = [];
  for (let page = Math.floor(from / PAGE); page * PAGE < to; page += 1) {
    const name = JSON.stringify([batch.key, page]);
    const stamp = JSON.stringify([batch.progress, batch.ti.state, batch.ti.try_number]);
    let kept = batchPages.get(name);
    if (!kept || kept.stamp !== stamp) {
      const [pictures, failures] = await Promise.all([
        now.saved || now.reused ? xcom(batch.ti, `pictures_${page}`) : null,
        hasLost ? xcom(batch.ti, `failures_${page}`) : null,
      ]);
      kept = { stamp, items: [
        ...listed(pictures).map((record, at) => rowOf(batch, page, record.job_id || at, (item) => take(item, record, `pictures_${page}`, pictures.indexOf(record)))),
        ...listed(failures).map((record, at) => rowOf(batch, page, record.file_name || at, (item) => lose(item, record))),
      ] };
      batchPages.set(name, kept);
    }
    items.push(...kept.items.slice(Math.max(0, from - page * PAGE), to - page * PAGE));
  }
  return items;
}

const listed = (value) => (Array.isArray(value) ? value.filter((one) => one && typeof one === "object") : []);

function rowOf(batch, page, name, put) {
  const item = blank(batch.ti);
  item.key = JSON.stringify([batch.key, page, name]);
  item.prompt = item.model = null;
  put(item);
  return item;
}

/** Put the end of a row without a picture into an item. */
function lose(item, record) {
  item.job = isText(record.job_id) ? record.job_id : null;
  item.prompt = isText(record.prompt) ? record.prompt : null;
  item.model = isText(record.model) ? record.model : null;
  item.name = isText(record.file_name) ? record.file_name : null;
  explain(item, { message: isText(record.message) ? record.message : LOST[record.status], error: record.error });
  item.state = "failed";
  item.isNotBought = record.status === "not_bought" || record.status === "to_do";
}

const LOST = {
  not_bought: "Not bought: purchases were stopped.", to_do: "Not bought: the task ended before.",
  unknown: "Nobody can know whether Pictory accepted it.", waiting: "It was still being drawn when the task ended.",
};

// ------------------------------------------------------------------------------------------------- how it is shown

/** Make an element. Texts are texts; there is no way here to pass markup. */
function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function svg(path, className) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", "aria-hidden": "true", class: className })) node.setAttribute(key, value);
  shape.setAttribute("d", path);
  node.append(shape);
  return node;
}

const SIGNS = {
  failed: "M12 8v5m0 3h.01M12 3 2.5 20h19z",
  gone: "m3 3 18 18M10 5h9a2 2 0 0 1 2 2v9M5 5a2 2 0 0 0-2 2v10a2 2 0 0 0 2 2h12M3 16l5-5 8 8",
  close: "M6 6l12 12M18 6 6 18", back: "m14 6-6 6 6 6", on: "m10 6 6 6-6 6",
  copy: "M9 9h10v10H9zM5 15V5h10", picture: "M4 5h16v14H4zM4 16l5-5 8 8M15 9h.01",
};

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const amount = (credits) => (Math.round(credits * 100) / 100).toLocaleString("en", { maximumFractionDigits: 2 });
const inCredits = (credits) => `${amount(credits)} ${credits === 1 ? "credit" : "credits"}`;

function ago(since) {
  const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

function moment(text) {
  const options = { dateStyle: "medium", timeStyle: "short" };
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return "";
  try {
    const zone = (localStorage.getItem("timezone") || "").replaceAll('"', "");
    return date.toLocaleString(undefined, { ...options, ...(zone && zone !== "local" ? { timeZone: zone } : {}) });
  } catch {
    return date.toLocaleString(undefined, options);
  }
}

function priceOf(item) {
  if (item.isReused) return "nothing spent";
  if (item.credits !== null) return inCredits(item.credits);
  if (item.isNotBought) return "nothing bought";
  if (["wait", "save"].includes(kinds.get(item.ti.operator))) return null; // it buys nothing
  if (item.state === "failed" || item.state === "skipped") {
    return item.job === null && (BOUGHT_NOTHING.has(item.error) || item.ti.state === "skipped") ? "nothing bought" : "charge unknown";
  }
  return item.listed === null ? "price unknown" : `${inCredits(item.listed)} listed`;
}

function altOf(item) {
  return item.prompt || `Picture of the task ${item.task}`;
}

/** Load a picture from the first of its sources that has it. */
function fill(image, item, failed) {
  const sources = [...item.sources];
  const next = () => {
    const source = sources.shift();
    if (source) image.src = source;
    else failed();
  };
  image.addEventListener("error", next);
  next();
}

const cards = new Map();

function cardOf(item) {
  const before = cards.get(item.key);
  const looks = JSON.stringify([item.state, item.sources, item.prompt, item.says, item.task, item.credits, item.isReused, item.since]);
  if (before && before.looks === looks) return before.node;
  const shot = el("div.shot");
  const title = item.prompt || item.job || item.task;
  const opener = el("button.open", { type: "button", "data-key": item.key }, shot);
  if (item.state === "done" && item.sources.length) {
    const image = el("img", { alt: altOf(item), loading: "lazy", decoding: "async", width: item.width, height: item.height });
    image.addEventListener("load", () => shot.classList.add("seen"));
    fill(image, item, () => shot.replaceChildren(emptied(item)));
    shot.append(image);
  } else {
    shot.append(emptied(item));
    opener.append(el("span.unseen", {}, altOf(item)));
  }
  const prompt = el("p.prompt", {}, title);
  const facts = el("p.facts", {}, el("span", {}, item.model), el("b", {}, priceOf(item)));
  const node = el("li.card", {}, opener, prompt,
    item.says && item.state !== "working" ? el("p.why", { title: item.why }, item.says) : null,
    facts,
    el("p.task", {}, item.isReused ? el("span.badge.reused", {}, "Reused") : null, el("span.name", { title: item.task }, item.task)));
  node.classList.add(item.state);
  opener.addEventListener("click", () => enlarge(item.key));
  if (before && before.node.isConnected) {
    const isFocused = before.node.contains(document.activeElement);
    before.node.replaceWith(node);
    if (isFocused) opener.focus();
  }
  cards.set(item.key, { looks, node, item });
  return node;
}

function stateOf(item) {
  const words = { done: "Picture", working: "In progress", submitted: "Submitted", failed: "Failed", skipped: "Skipped" };
  return item.isReused ? "Reused picture" : words[item.state];
}

/** What stands in place of a picture. */
function emptied(item) {
  if (item.state === "working") {
    return el("div.none.working", {}, el("span.spinner", { "aria-hidden": "true" }), el("span", {}, item.says),
      item.since ? el("span.age", { "data-since": item.since }, ago(item.since)) : null);
  }
  if (item.state === "failed" || item.state === "skipped") {
    const word = item.isNotBought ? "Not bought" : item.state === "failed" ? "No picture" : "Skipped";
    return el("div.none.failed", {}, svg(SIGNS.failed), el("span", {}, word));
  }
  if (item.state === "submitted") {
    return el("div.none", {}, svg(SIGNS.picture), el("span", {}, "Submitted, and not waited for"));
  }
  return el("div.none", {}, svg(SIGNS.gone),
    el("span", {}, item.path ? "Saved, and not shown here" : "No longer to be had from Pictory"));
}

/** Let a list hold these nodes in this order, and touch only what differs. */
function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] || null);
  });
}

const grids = new Map();

function gridOf(name, items, label) {
  if (!grids.has(name)) {
    const grid = el("ul.grid", { role: "list" });
    grid.addEventListener("keydown", (event) => walk(grid, event));
    grids.set(name, grid);
  }
  const grid = grids.get(name);
  grid.setAttribute("aria-label", label);
  arrange(grid, items.map(cardOf));
  return grid;
}

/** Go from picture to picture with the arrows, as in a table. */
function walk(grid, event) {
  const openers = [...main.querySelectorAll(".open")];
  const at = openers.indexOf(document.activeElement);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const to = { Home: 0, End: openers.length - 1 }[event.key] ?? at + step;
  if (at < 0 || Number.isNaN(to)) return;
  event.preventDefault();
  const opener = openers[Math.min(openers.length - 1, Math.max(0, to))];
  opener.focus();
}

// ------------------------------------------------------------------------------------------------------ enlarged

let lightbox = null;

function shownItems() {
  return [...main.querySelectorAll(".open")].map((opener) => cards.get(opener.dataset.key)).filter(Boolean).map((card) => card.item);
}

function enlarge(key) {
  if (!lightbox) lightbox = makeLightbox();
  lightbox.show(key);
}

function makeLightbox() {
  const stage = el("div.stage");
  const facts = el("dl.details");
  const count = el("span.count");
  const button = (label, sign, act) => el("button.icon", { type: "button", "aria-label": label, title: label, onclick: act }, svg(SIGNS[sign]));
  const dialog = el("dialog.lightbox", { "aria-label": "Picture" },
    el("div.bar", {}, count, button("Previous picture", "back", () => move(-1)), button("Next picture", "on", () => move(1)),
      button("Close", "close", () => dialog.close())),
    el("div.inside", {}, stage, facts));
  let current = null;
  function move(by) {
    const items = shownItems();
    const at = items.findIndex((item) => item.key === current);
    const item = items[Math.min(items.length - 1, Math.max(0, at + by))];
    if (item && item.key !== current) show(item.key);
  }
  function show(key) {
    const items = shownItems();
    const at = items.findIndex((item) => item.key === key);
    if (at < 0) return;
    const item = items[at];
    current = key;
    set(count, `${at + 1} of ${items.length}`);
    if (item.state === "done" && item.sources.length) {
      const image = el("img", { alt: altOf(item), width: item.width, height: item.height });
      fill(image, item, () => stage.replaceChildren(emptied(item)));
      stage.replaceChildren(image);
    } else stage.replaceChildren(emptied(item));
    facts.replaceChildren(...detailsOf(item));
    facts.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
  }
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by || event.target.closest(".details")) return;
    event.preventDefault();
    move(by);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target === stage) dialog.close();
  });
  dialog.addEventListener("close", () => {
    const card = cards.get(current);
    const opener = card && card.node.querySelector(".open");
    if (opener) opener.focus();
  });
  document.body.append(dialog);
  return { show };
}

function detailsOf(item) {
  const size = item.width && item.height ? `${item.width} × ${item.height}` : null;
  const rows = [
    ["Prompt", item.prompt, "text"], ["Why", item.why, "text"], ["Model", item.model], ["Price", priceOf(item)],
    ["State", item.isReused ? "Reused: it was there already" : item.state === "done" ? null : item.says || stateOf(item)],
    ["Size", size], ["Task", item.task], ["File", item.path || item.name, "copy"], ["Job", item.job, "copy"],
  ];
  return rows.filter(([, value]) => value).flatMap(([name, value, how]) => {
    const shown = el(how === "copy" ? "dd.code" : "dd", how === "text" ? { tabindex: "0" } : {}, el("span", {}, value));
    if (how === "copy" && navigator.clipboard) shown.append(copier(name, value));
    return [el("dt", {}, name), shown];
  });
}

function copier(name, value) {
  const label = `Copy ${name === "Job" ? "the job's id" : "the file's path"}`;
  const button = el("button.icon.small", { type: "button", "aria-label": label, title: label }, svg(SIGNS.copy));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(value);
      button.classList.add("done");
      setTimeout(() => button.classList.remove("done"), 1500);
    } catch {
      // the frame may not: the text can be marked by hand
    }
  });
  return button;
}

// ------------------------------------------------------------------------------------------------ parts of the page

function figure(value, words, kind) {
  return el(kind ? `span.figure.${kind}` : "span.figure", {}, el("b", {}, value), ` ${words}`);
}

function message(title, ...texts) {
  return el("section.message", {}, svg(SIGNS.picture), el("h2", {}, title), ...texts.map((text) => el("p", {}, text)));
}

const HOW = "A task of GenerateImageOperator, @task.pictory_image or GenerateImageBatchOperator makes one appear as soon as " +
  "Pictory has accepted it; PictoryJobSensor and DownloadImageOperator show theirs when they end.";

function troubled(error) {
  if (error instanceof Trouble && error.status === 403) {
    return message("You may not see these pictures", "They lie in the XComs of a DAG that your role may not read. An administrator can change that.");
  }
  if (error instanceof Trouble && error.status === 401) {
    return message("You are signed out", "Reload Airflow's page to sign in again.");
  }
  return message("Airflow does not answer", "The page asks again by itself.");
}

const isTurnedAway = (error) => error instanceof Trouble && [401, 403].includes(error.status);

// One of each, kept, so that nothing is drawn anew while a run goes on.
const top_ = el("header.top");
const body = el("div.body");
const pager = el("nav.pager", { "aria-label": "Pages of pictures" });

function skeleton() {
  const boxes = Array.from({ length: 6 }, () => el("li.card.skeleton", {}, el("div.shot"), el("p.prompt"), el("p.facts")));
  body.replaceChildren(el("ul.grid", { "aria-hidden": "true" }, ...boxes));
}

function progressOf(batch) {
  const now = batch.progress || {};
  const has = (now.saved || 0) + (now.reused || 0);
  const lost = (now.failed || 0) + (now.unknown || 0) + (now.not_bought || 0);
  const isOver = ENDED.has(batch.ti.state);
  const bar = el("div.progress", {
    role: "progressbar", "aria-label": `Pictures of ${batch.task}`, "aria-valuemin": 0, "aria-valuemax": batch.of || 1, "aria-valuenow": has,
  });
  for (const [count, kind] of [[has, "has"], [lost, "lost"]]) {
    const part = el(`span.${kind}`);
    part.style.width = `${batch.of ? (100 * count) / batch.of : 0}%`;
    bar.append(part);
  }
  const words = [
    `${has.toLocaleString("en")} of ${batch.of.toLocaleString("en")}`,
    now.waiting ? `${now.waiting.toLocaleString("en")} being drawn` : null,
    now.to_do ? `${now.to_do.toLocaleString("en")} to do` : null,
    now.reused ? `${now.reused.toLocaleString("en")} reused` : null,
    now.failed ? `${now.failed.toLocaleString("en")} failed` : null,
    now.unknown ? `${now.unknown.toLocaleString("en")} unknown` : null,
    now.not_bought ? `${now.not_bought.toLocaleString("en")} not bought` : null,
    number(now.ai_credits_used) !== null ? inCredits(now.ai_credits_used) : null,
  ];
  const text = batch.progress ? words.filter(Boolean).join(" · ") : isOver ? "Nothing was begun." : "Checking the table";
  return el("div.batch", {}, el("h2", {}, batch.task), bar, el("p.count", {}, text),
    batch.says ? el("p.why", { title: batch.why }, batch.says) : null);
}

// ------------------------------------------------------------------------------------------ the pictures of a run

let isGoingOn = false;
let shownPage = 0;
let timer = null;
let isAgain = false;

async function sheet(scope) {
  const run = await get(runPath(scope.dag, scope.run));
  isGoingOn = run !== null && !["success", "failed"].includes(run.state);
  const [ones, many] = await Promise.all([
    singles(scope, 0),
    scope.task === undefined ? taskInstances(scope, ["batch"], { limit: 100 }) : taskInstances(scope, null, { limit: 100 }),
  ]);
  const batches = await Promise.all(many.all.filter((ti) => kinds.get(ti.operator) === "batch").map(batchOf));
  const slots = ones.total + batches.reduce((sum, batch) => sum + batch.of, 0);
  const pages = Math.max(1, Math.ceil(slots / PAGE));
  shownPage = Math.min(shownPage, pages - 1);
  const from = shownPage * PAGE, to = from + PAGE;
  const sections = [];
  let shown = [];
  if (from < ones.total) {
    shown = from === 0 ? ones.items : (await singles(scope, from)).items;
    sections.push({ name: "single", items: shown });
  }
  let start = ones.total;
  for (const batch of batches) {
    const [first, last] = [Math.max(0, from - start), Math.min(batch.of, to - start)];
    if (last > first || (batch.of === 0 && start >= from && start <= to)) {
      sections.push({ name: batch.key, batch, items: last > first ? await rowsOf(batch, first, last) : [] });
    }
    start += batch.of;
  }
  drawSheet(scope, run, ones, batches, sections, { pages, from, to: Math.min(to, slots), slots });
  if (ones.total > PAGE) countAll(scope, ones.total, isGoingOn);
  return run !== null && (isGoingOn || stillGoing(ones.items, batches));
}

const stillGoing = (items, batches) => [...items, ...batches].some(({ ti }) => ["running", "deferred"].includes(ti.state));

let all = null;
let counted = "";

/** The sums of more than a page: go through the rest in the background, once more when something has changed. */
async function countAll(scope, total, goesOn) {
  const what = JSON.stringify([total, goesOn, goesOn ? Math.floor(Date.now() / 30000) : 0]);
  if (isAgain || what === counted) return;
  isAgain = true;
  try {
    const found = [];
    for (let offset = 0; offset < Math.min(total, 1100); offset += PAGE) found.push(...(await singles(scope, offset)).items);
    all = found;
    counted = what;
    setTimeout(refresh, 0);
  } catch {
    // the next poll asks again
  } finally {
    isAgain = false;
  }
}

function drawSheet(scope, run, ones, batches, sections, { pages, from, to, slots }) {
  const items = all && all.length >= ones.items.length ? all : ones.items;
  const isWhole = ones.total <= PAGE || items === all;
  const sum = (list, value) => list.reduce((total, one) => total + (value(one) || 0), 0);
  const progress = batches.map((batch) => batch.progress || {});
  const pictures = items.filter((item) => item.state === "done").length + sum(progress, (now) => (now.saved || 0) + (now.reused || 0));
  const paid = new Map(items.filter((item) => item.state === "done" && !item.isReused).map((item) => [item.job || item.key, item.credits]));
  const credits = sum([...paid.values()], (one) => one) + sum(progress, (now) => number(now.ai_credits_used));
  const working = items.filter((item) => item.state === "working").length + sum(progress, (now) => (now.waiting || 0) + (now.to_do || 0));
  const failed = items.filter((item) => item.state === "failed").length + sum(progress, (now) => (now.failed || 0) + (now.unknown || 0));
  const notBought = sum(progress, (now) => now.not_bought);
  const reused = items.filter((item) => item.isReused).length + sum(progress, (now) => now.reused);
  const least = isWhole ? "" : "≥ ";
  const figures = [
    figure(least + pictures.toLocaleString("en"), pictures === 1 ? "picture" : "pictures"),
    figure(least + amount(credits), "AI credits used"),
    reused ? figure(reused.toLocaleString("en"), "reused", "reused") : null,
    working ? figure(working.toLocaleString("en"), "in progress", "working") : null,
    failed ? figure(failed.toLocaleString("en"), "failed", "failed") : null,
    notBought ? figure(notBought.toLocaleString("en"), "not bought", "failed") : null,
  ].filter(Boolean);
  const isEmpty = !sections.some((section) => section.items.length || section.batch);
  const looks = JSON.stringify([figures.map((one) => one.textContent), run && run.state, isEmpty]);
  if (top_.dataset.looks !== looks) {
    top_.dataset.looks = looks;
    top_.replaceChildren(...[wayBack(scope), isEmpty ? null : el("p.figures", { role: "status" }, ...figures)].filter(Boolean));
  }
  if (isEmpty) return drawEmpty(scope, run, ones);
  const nodes = [];
  for (const { name, batch, items: some } of sections) {
    if (batch) nodes.push(keptBatch(batch));
    else if (batches.length && some.length) nodes.push(heading("Single pictures"));
    if (some.length) nodes.push(gridOf(name, some, batch ? `Pictures of ${batch.task}` : "Pictures"));
  }
  arrange(body, nodes);
  drawPager(scope, pages, from, to, slots);
}

const headings = new Map();
function heading(text) {
  if (!headings.has(text)) headings.set(text, el("h2.kind", {}, text));
  return headings.get(text);
}

const batchHeads = new Map();
function keptBatch(batch) {
  const looks = JSON.stringify([batch.progress, batch.ti.state, batch.why]);
  const kept = batchHeads.get(batch.key);
  if (kept && kept.looks === looks) return kept.node;
  const node = progressOf(batch);
  if (kept && kept.node.isConnected) kept.node.replaceWith(node);
  batchHeads.set(batch.key, { looks, node });
  return node;
}

async function drawEmpty(scope, run, ones) {
  pager.replaceChildren();
  if (run === null) return arrange(body, [message("There is no such run", "It may have been deleted.")]);
  const text = ["success", "failed"].includes(run.state)
    ? scope.task !== undefined && !ones.isOurs ? "This task has made none, or has not run." : "No task of this run has made one."
    : "None of its tasks that make pictures has begun.";
  if (body.dataset.empty === text && body.querySelector(".message")) return undefined;
  body.dataset.empty = text;
  return arrange(body, [message("No pictures yet", text, HOW)]);
}

function drawPager(scope, pages, from, to, slots) {
  const looks = JSON.stringify([pages, from, to, slots]);
  if (pager.dataset.looks === looks) return;
  pager.dataset.looks = looks;
  if (pages === 1) return pager.replaceChildren();
  const turn = (by) => async () => {
    shownPage += by;
    await refresh();
    scrollTo({ top: 0 });
    const first = main.querySelector(".open");
    if (first) first.focus({ preventScroll: true });
  };
  const button = (text, by, isOff) => el("button.page", { type: "button", disabled: isOff, onclick: turn(by) }, text);
  return pager.replaceChildren(
    el("span", {}, `${(from + 1).toLocaleString("en")} to ${to.toLocaleString("en")} of ${slots.toLocaleString("en")}`),
    button("Previous", -1, shownPage === 0), button("Next", 1, shownPage >= pages - 1));
}

/** Where a run was opened from a list within this frame, a way back to that. */
function wayBack(scope) {
  const from = { "#newest": ["newest", "All pictures"], "#dag": [`dag/${enc(scope.dag)}`, "All runs"] }[location.hash];
  if (!from) return null;
  return el("p.way", {}, el("a", { href: ROOT + from[0] }, from[1]), el("span", { "aria-hidden": "true" }, "/"), el("b", {}, scope.dag),
    el("span", { "aria-hidden": "true" }, "/"), el("span", {}, scope.run));
}

// ------------------------------------------------------------------------------------------------ the newest runs

let olderThan = null;

/** The newest tasks that make pictures, with a bound on how far back each request looks. */
async function newestTasks(scope) {
  const until = olderThan === null ? Date.now() : Date.parse(olderThan);
  let found = { all: [] };
  for (const days of WINDOWS) {
    found = await taskInstances(scope, ["generate", "batch"], {
      order_by: "-run_after", run_after_gte: new Date(until - days * DAY).toISOString(), run_after_lt: olderThan,
    });
    if (found.all.length === PAGE || new Set(found.all.map((ti) => ti.dag_id + ti.dag_run_id)).size >= RUNS) break;
  }
  return found.all;
}

async function runs(scope) {
  const tasks = await newestTasks(scope);
  const grouped = new Map();
  for (const ti of tasks) {
    const name = JSON.stringify([ti.dag_id, ti.dag_run_id]);
    if (!grouped.has(name)) grouped.set(name, []);
    grouped.get(name).push(ti);
  }
  const some = [...grouped.values()].slice(0, RUNS);
  const sections = await Promise.all(some.map(async (of) => ({ of, ...(await stripOf(of)) })));
  const nodes = sections.filter((section) => section.items.length || section.batches.length)
    .map((section) => runSection(scope, section));
  if (!nodes.length && olderThan === null) {
    nodes.push(message("No pictures yet", scope.dag ? "No run of this DAG has made one." : "No run has made one, or none that you may see.", HOW));
  }
  arrange(body, nodes);
  const last = some.length ? some[some.length - 1][0].run_after : null;
  const isMore = grouped.size > RUNS || tasks.length === PAGE;
  const to = (at) => async () => {
    olderThan = at;
    await refresh();
    scrollTo({ top: 0 });
  };
  pager.replaceChildren(...[
    olderThan !== null ? el("button.page", { type: "button", onclick: to(null) }, "Newest") : null,
    isMore && last ? el("button.page", { type: "button", onclick: to(last) }, "Older runs") : null,
  ].filter(Boolean));
  return false;
}

async function stripOf(tasks) {
  const items = [], batches = [];
  const isLost = (ti) => ["failed", "up_for_retry", "skipped"].includes(ti.state) && kinds.get(ti.operator) !== "batch";
  for (const ti of [...tasks].sort((one, other) => isLost(one) - isLost(other))) {
    if (items.length >= STRIP) break;
    if (kinds.get(ti.operator) === "batch") {
      const batch = await batchOf(ti);
      batches.push(batch);
      items.push(...(await rowsOf(batch, 0, Math.min(batch.of, STRIP - items.length))));
    } else items.push(await itemOf(ti));
  }
  const open = items.filter((item) => item.state === "submitted");
  if (open.length) {
    const others = await companionsOf({ dag: tasks[0].dag_id, run: tasks[0].dag_run_id }, open.map((item) => item.job).filter(isText));
    for (const item of open) items[items.indexOf(item)] = await joined(item, others.get(item.job) || []);
  }
  return { items: items.filter((item) => item.state !== "none"), batches };
}

function runSection(scope, { of, items, batches }) {
  const [ti] = of;
  const singleTasks = of.filter((one) => kinds.get(one.operator) !== "batch").length;
  const count = singleTasks + batches.reduce((sum, batch) => sum + batch.of, 0);
  const href = `${ROOT}run/${enc(ti.dag_id)}/${enc(ti.dag_run_id)}${scope.dag ? "#dag" : "#newest"}`;
  const name = scope.dag ? moment(ti.run_after) : ti.dag_display_name || ti.dag_id;
  return el(`section.run.n${Math.min(STRIP, Math.max(1, items.length))}`, {},
    el("div.head", {}, el("h2", {}, el("a", { href }, name)),
      el("p", { title: ti.dag_run_id }, scope.dag ? ti.dag_run_id : `${moment(ti.run_after)} · ${ti.dag_run_id}`),
      count > items.length ? el("a.more", { href, "aria-label": `All ${count.toLocaleString("en")} of ${name}` }, `All ${count.toLocaleString("en")}`) : null),
    gridOf(JSON.stringify([ti.dag_id, ti.dag_run_id]), items, `Pictures of ${name}`));
}

// ---------------------------------------------------------------------------------------------------- the account

/** The accounts, for whoever may read connections; their place is kept while Pictory is asked. */
async function accounts() {
  const found = await get("connections", { limit: 50, order_by: "connection_id" }).catch(() => null);
  if (found === null) return;
  const named = (found.connections || []).filter((one) => one.conn_type === "pictory").map((one) => one.connection_id);
  const ids = [...new Set([TOLD.connection, ...named])].slice(0, 5);
  const strip = el("section.accounts", { "aria-label": "Accounts at Pictory" });
  top_.replaceChildren(strip);
  for (const id of ids) {
    const place = el("div.account", { "aria-busy": "true" }, el("h2", {}, id));
    strip.append(place);
    account(id).then((told) => {
      if (told) place.replaceWith(accountOf(id, told));
      else place.remove();
    });
  }
}

async function account(id) {
  for (let tries = 0; tries < 15; tries += 1) {
    const reply = await fetch(`${ROOT}account/${enc(id)}`, { credentials: "same-origin" }).catch(() => null);
    if (!reply || !reply.ok) return null;
    if (reply.status !== 202) return reply.json();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return null;
}

function accountOf(id, told) {
  if (told.error) return el("div.account", {}, el("h2", {}, id), el("p.why", {}, told.error));
  const limits = told.limits || {};
  const figures = [
    ["Used this month", told.this_month, limits.month], limits.day === null ? [] : ["Used today", told.today, limits.day],
    ["Left", told.left, null, limits.reserve], ["Plan", told.plan],
  ].filter(([, value]) => number(value) !== null);
  return el("div.account", {}, el("h2", {}, id), el("dl", {}, ...figures.map(([name, value, limit, reserve]) => el("div", {},
    el("dt", {}, name),
    el("dd", {}, amount(value), el("span", {}, number(limit) !== null ? ` of ${amount(limit)} AI credits` : " AI credits",
      number(reserve) !== null ? `, ${amount(reserve)} kept back` : ""))))));
}

// ---------------------------------------------------------------------------------------------------- the whole page

function viewOf(path) {
  const [kind, ...parts] = path.slice(ROOT.length).split("/");
  const ids = parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // Airflow 3.1 does not encode what it puts in
    }
  });
  if (kind === "run") return { draw: sheet, scope: { dag: ids[0], run: ids[1] } };
  if (kind === "dag") return { draw: runs, scope: { dag: ids[0] } };
  if (kind === "task") {
    const map = /^\d+$/.test(ids[3]) ? Number(ids[3]) : undefined; // unmapped tasks have `{MAP_INDEX}` there
    return { draw: sheet, scope: { dag: ids[0], run: ids[1], task: ids[2], map } };
  }
  return { draw: runs, scope: {}, isNewest: true };
}

const view = viewOf(location.pathname);
let drawing = null;

/** Ask and draw once; one at a time. */
function refresh() {
  drawing = (drawing || Promise.resolve(true)).then(async () => {
    try {
      const isGoing = await view.draw(view.scope);
      main.removeAttribute("aria-busy");
      return isGoing;
    } catch (error) {
      main.removeAttribute("aria-busy");
      if (isTurnedAway(error) || !body.querySelector(".card:not(.skeleton)")) {
        arrange(body, [troubled(error)]);
        pager.replaceChildren();
      }
      if (!(error instanceof Trouble)) console.error(error);
      return !isTurnedAway(error);
    }
  });
  return drawing;
}

/** Follow a run quietly, and stop when it has ended. */
async function follow() {
  clearTimeout(timer);
  const isGoing = await refresh();
  clearTimeout(timer);
  timer = isGoing ? setTimeout(follow, document.hidden ? POLL_HIDDEN : POLL) : null;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) follow();
});

setInterval(() => {
  if (!document.hidden) for (const node of document.querySelectorAll("[data-since]")) set(node, ago(Number(node.dataset.since)));
}, 1000);

// -------------------------------------------------------------------------------------------- Airflow's own colours

const TOKENS = ["bg", "bg-subtle", "bg-muted", "bg-emphasized", "bg-panel", "fg", "fg-muted", "border", "border-emphasized",
  "brand-solid", "brand-contrast", "brand-fg", "brand-subtle", "brand-muted", "brand-focus-ring", "success-solid", "failed-solid",
  "failed-fg", "failed-subtle", "deferred-solid", "running-solid", "up_for_reschedule-fg", "up_for_reschedule-subtle"];

function dress() {
  let host = null;
  try {
    host = parent !== window ? parent.document.documentElement : null;
  } catch {
    // framed by a stranger: the policy forbids it anyway
  }
  const own = document.documentElement;
  const isDark = host ? host.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
  own.classList.toggle("dark", isDark);
  own.classList.toggle("framed", host !== null);
  if (!host) return;
  const styles = parent.getComputedStyle(host);
  for (const token of TOKENS) {
    const value = styles.getPropertyValue(`--chakra-colors-${token}`).trim();
    if (value) own.style.setProperty(`--${token}`, value);
    else own.style.removeProperty(`--${token}`);
  }
}

dress();
try {
  if (parent !== window) new MutationObserver(dress).observe(parent.document.documentElement, { attributes: true, attributeFilter: ["class", "data-theme", "style"] });
} catch {
  // not ours to watch
}

// -------------------------------------------------------------------------------------------------------------- go

main.classList.add(view.draw === sheet ? "sheet" : "runs");
main.replaceChildren(el("h1.unseen", {}, "Pictures"), top_, body, pager);
skeleton();
Promise.all([view.isNewest ? accounts() : null, view.scope.dag ? learnClasses(view.scope.dag) : null]).then(follow);
})();
