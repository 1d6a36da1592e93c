// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The state of each image request, as Airflow stores it: one item per picture.
import { CONFIG, FAILED, FINISHED, NOT_FAILED, PAGE, ROOT, Unreadable, enc, keyOf, kinds, taskInstances, xcom } from "./airflow.js";

// With one of these errors and without a recorded job, a task has bought nothing.
export const BOUGHT_NOTHING = new Set(["PictoryRequestInvalid", "PictoryAuthenticationError", "PictoryBudgetExceeded", "PictoryUnavailable",
  "PictoryRateLimited", "RequestInvalid"]); // the last is that of a row of a batch

export const isFailed = (item) => item.state === "failed" || item.hasFailed === true;
export const isText = (value) => typeof value === "string" && value !== "";
export const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

/** A picture's URL. One from an XCom is never requested from Airflow's own host, where it could have an effect. */
function webUrl(value) {
  if (!isText(value) || !/^https?:\/\//i.test(value)) return null;
  try {
    return new URL(value).host === location.host ? null : value;
  } catch {
    return null;
  }
}

const FILES = `${ROOT}file/`, THUMBNAILS = `${ROOT}thumbnail/`;

/** A source of a picture as a card loads it: of a saved file, its thumbnail. */
export const thumbnailOf = (source) => (source.startsWith(FILES) ? THUMBNAILS + source.slice(FILES.length) : source);
export const isSavedFile = (path) => path.startsWith(FILES) || path.startsWith(THUMBNAILS);

/** A rendered field, unless Airflow has truncated it or it was not rendered yet. */
export function rendered(ti, field) {
  const value = (ti.rendered_fields || {})[field];
  return isText(value) && !/^(Truncated\.|DYNAMIC \()/.test(value) && value !== "None" ? value : null;
}

export function labelOf(ti) {
  const name = ti.task_display_name || ti.task_id;
  const mapped = ti.map_index >= 0 ? ` [${ti.rendered_map_index || ti.map_index}]` : "";
  const { iteration } = ti.loop_iteration || {};
  return Number.isInteger(iteration) ? `${name}${mapped}, iteration ${iteration}` : name + mapped;
}

export function blank(ti) {
  return {
    key: keyOf(ti), ti, task: labelOf(ti), state: "working", summary: null, why: null, prompt: rendered(ti, "prompt"),
    model: rendered(ti, "model"), credits: null, listed: null, width: null, height: null, sources: [], path: null,
    job: null, since: null, isReused: false, ratio: ratioOf(rendered(ti, "aspect_ratio")),
  };
}

function ratioOf(text) {
  const found = /^(\d+):(\d+)$/.exec(text || "");
  return found ? `${found[1]} / ${found[2]}` : null;
}

/** Write an image record into an item. */
function applyRecord(item, record, key) {
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
  if (CONFIG.has_files && item.path && isText(record.sha256)) {
    const { dag_id: dag, dag_run_id: run, task_id: task, map_index: map, region_id: region, region_index: at } = item.ti;
    const instance = isText(region) ? [region, at] : [map];
    item.sources.push(`${FILES}${[dag, run, task, ...instance, key, record.sha256].map(enc).join("/")}`);
  }
  if (webUrl(record.url)) item.sources.push(record.url);
  return item;
}

/** Do the same for one of several pictures, which has the name of its file. */
export function applySaved(item, record, key) {
  applyRecord(item, record, key);
  return Object.assign(item, { name: item.path && item.path.split("/").pop() });
}

function applyRequest(item, request) {
  if (!request || typeof request !== "object") return;
  item.job = isText(request.job_id) ? request.job_id : item.job;
  item.prompt = isText(request.prompt) ? request.prompt : item.prompt;
  item.model = isText(request.model) ? request.model : item.model;
  const { candidates } = request;
  item.listed = number(request.credits) === null ? null : request.credits * (number(candidates) || 1);
  if (candidates > 1) item.generating = `Generating ${candidates} candidates`;
  item.ratio = ratioOf(request.aspectRatio) || item.ratio;
  if (number(request.submitted_at)) item.since = request.submitted_at * 1000;
}

/** Write into an item why its task failed. */
export function applyFailure(item, failure) {
  const text = failure && isText(failure.message) ? failure.message : null;
  item.state = item.ti.state === "skipped" ? "skipped" : "failed";
  item.why = text || "The task published no reason; its log may have one.";
  item.summary = firstSentence(item.why);
  item.error = failure && isText(failure.error) ? failure.error : null;
}

/** Write into an item that its record cannot be read. */
export function applyUnreadable(item, error) {
  item.isUnread = true;
  if (FAILED.includes(item.ti.state)) applyFailure(item, { message: error.message });
  else if (item.ti.state === "skipped") item.state = "none";
  else {
    item.state = FINISHED.has(item.ti.state) ? "unread" : "working";
    item.why = error.message;
    item.summary = item.state === "unread" ? firstSentence(item.why) : "In progress";
    item.since ??= Date.parse(item.ti.start_date) || null;
  }
}

function firstSentence(text) {
  const first = /^[\s\S]*?[.?!](?=\s+[A-Z`"']|\s*$)/.exec(text.trim());
  return (first ? first[0] : text.trim()).replace(/\s+/g, " ");
}

export const itemCache = new Map(); // items of finished tasks, and of running tasks whose request is known

export async function loadItem(ti) {
  const stamp = [ti.state, ti.try_number, ti.end_date].join();
  const before = itemCache.get(keyOf(ti));
  if (before && before.stamp === stamp && (FINISHED.has(ti.state) || ti.state === "up_for_retry" || before.isRequestKnown)) return before.item;
  const item = blank(ti);
  try {
    const isRequestKnown = await readXcoms(item, ti);
    itemCache.set(item.key, { stamp, item, isRequestKnown });
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    applyUnreadable(item, error);
    if (error.isGone) itemCache.set(item.key, { stamp, item, isRequestKnown: true });
    else item.isTemporary = true;
  }
  item.listed ??= number(CONFIG.prices[item.model]);
  return item;
}

/** Read the XComs of a task into its item; return whether the task is running and its request is known. */
async function readXcoms(item, ti) {
  const kind = kinds.get(ti.operator);
  let isRequestKnown = false;
  if (kind === "wait" || kind === "save") item.job = rendered(ti, "job_id");
  if (ti.state === "success") {
    const key = kind === "generate" ? "image" : "return_value";
    const hasPath = rendered(ti, "path") !== null; // then the record has the prompt too
    const request = kind === "generate" && !hasPath ? await xcom(ti, "pictory_request") : null;
    const record = request && request.is_waited_for === false ? null : await xcom(ti, key);
    const isRecord = record && typeof record === "object" && !Array.isArray(record);
    applyRequest(item, request);
    if (isRecord) applyRecord(item, record, key);
    else item.state = kind === "generate" && hasPath && (await readCandidates(item)) ? "done" : "submitted";
  } else if (["failed", "up_for_retry", "skipped"].includes(ti.state)) {
    const failure = await xcom(ti, "pictory_failure");
    applyFailure(item, failure);
    if (failure) for (const [to, from] of [["prompt", "prompt"], ["model", "model"], ["job", "job_id"]]) item[to] ??= isText(failure[from]) && failure[from] !== "None" ? failure[from] : null;
    const mayHaveBought = kind === "generate" && ti.state !== "skipped" && !BOUGHT_NOTHING.has(item.error);
    if (mayHaveBought || (kind === "generate" && !item.prompt)) applyRequest(item, await xcom(ti, "pictory_request"));
    if (item.generating) await readCandidates(item);
    else if (kind === "generate" && ti.state !== "skipped") await readSaved(item);
    if (ti.state === "skipped" && !failure) item.state = "none";
    if (ti.state === "up_for_retry") item.summary = `${item.summary} Airflow retries it.`;
  } else {
    if (kind === "generate") applyRequest(item, await xcom(ti, "pictory_request"));
    isRequestKnown = item.job !== null;
    item.since ??= Date.parse(ti.start_date) || null;
    item.summary = isRequestKnown ? item.generating || "Generating" : "Submitting";
  }
  return isRequestKnown;
}

/** Read the picture that a task has saved although it has failed: a copy of it could not be made. */
async function readSaved(item) {
  const record = await xcom(item.ti, "image");
  if (record && isText(record.path)) Object.assign(applyRecord(item, record, "image"), { hasFailed: true });
}

/** Read the candidates of a task, each as an item of its own; return whether there are any. */
async function readCandidates(item) {
  const images = await xcom(item.ti, "images");
  const records = Array.isArray(images) ? images.filter((one) => one && typeof one === "object") : [];
  item.candidates = records.map((record, at) => applySaved({ ...item, key: JSON.stringify([item.key, at]), why: null, summary: null }, record, "images"));
  return records.length > 0;
}

/** The items to show for one task: both itself and its candidates if it has failed. */
export const shownOf = (item) => (item.state === "done" && item.candidates) || [item, ...(item.candidates || [])];

/** Find the tasks of a run that wait for jobs or save pictures, by job. */
export async function relatedTasks(scope, jobs) {
  const found = new Map();
  const missing = new Set(jobs);
  for (let offset = 0; offset < 1100; offset += 100) {
    const page = await taskInstances(scope, ["wait", "save"], { limit: 100, offset });
    for (const ti of page.all) {
      // Airflow 3.1 lists no rendered fields
      const job = rendered(ti, "job_id") || (found.size < 100 ? (await loadItem(ti)).job : null);
      const name = job || keyOf(ti);
      found.set(name, [...(found.get(name) || []), ti]);
      if (kinds.get(ti.operator) === "save" || ti.state !== "success") missing.delete(job);
    }
    if (page.all.length < 100 || (jobs.length && !missing.size)) break;
  }
  return found;
}

/** Merge the item of a submitted job with those of the tasks that wait for it or save its picture. */
export async function mergeRelated(item, others, isRunning = false) {
  const saver = others.find((ti) => kinds.get(ti.operator) === "save" && ti.state === "success");
  const waiter = others.find((ti) => ti.state === "success");
  const failed = others.find((ti) => ["failed", "up_for_retry"].includes(ti.state));
  const other = saver || waiter || failed || others.find((ti) => !FINISHED.has(ti.state));
  const of = other ? await loadItem(other) : null;
  if (!of && item.state === "submitted" && isRunning) return { ...item, state: "working", summary: "Generating" };
  if (!of) return item;
  return {
    ...item, ti: of.ti, state: of.state, why: of.why, summary: of.state === "working" ? "Generating" : of.summary,
    error: of.error, credits: of.credits, width: of.width, height: of.height, sources: of.sources, path: of.path,
    isReused: of.isReused, isUnread: of.isUnread, isTemporary: of.isTemporary, job: of.job || item.job, since: item.since || of.since, prompt: item.prompt || of.prompt,
    task: item.task === of.task ? item.task : `${item.task}, ${of.task}`,
  };
}

/** Fetch a page of tasks, failed ones first. */
async function fetchFailedFirst(scope, wanted, offset) {
  const failed = await taskInstances(scope, wanted, { state: FAILED, offset });
  const left = Math.max(1, PAGE - failed.all.length); // at least one, to learn the total
  const rest = await taskInstances(scope, wanted, { state: NOT_FAILED, offset: Math.max(0, offset - failed.total), limit: left });
  const seen = new Set(failed.all.map(keyOf));
  return { all: [...failed.all, ...rest.all.filter((ti) => !seen.has(keyOf(ti)))].slice(0, PAGE), total: failed.total + rest.total };
}

export async function singleItems(scope, isRunning, offset = 0) {
  const isOfTask = scope.task !== undefined;
  const page = await fetchFailedFirst(scope, isOfTask ? null : ["generate"], offset);
  const ours = page.all.filter((ti) => ["generate", "wait", "save"].includes(kinds.get(ti.operator)));
  let items = (await Promise.all(ours.map(loadItem))).flatMap(shownOf);
  const open = items.filter((item) => item.state === "submitted" && kinds.get(item.ti.operator) === "generate");
  const mayHaveOthers = !isOfTask && page.total <= PAGE;
  if (open.length || mayHaveOthers) {
    const others = await relatedTasks({ dag: scope.dag, run: scope.run }, open.map((item) => item.job).filter(isText));
    items = await Promise.all(items.map((item) => (open.includes(item) ? mergeRelated(item, others.get(item.job) || [], isRunning) : item)));
    if (mayHaveOthers) {
      const jobs = new Set(items.map((item) => item.job));
      const isUnknown = (tis) => items.length > 0 && !FINISHED.has(tis[0].state) && !rendered(tis[0], "job_id");
      const alone = [...others].filter(([job, tis]) => !jobs.has(job) && !isUnknown(tis)).map(([, tis]) => tis).slice(0, PAGE - items.length);
      items.push(...(await Promise.all(alone.map(async (tis) => mergeRelated(await loadItem(tis[0]), tis, isRunning)))));
    }
  }
  if (isOfTask) await Promise.all(items.map((item) => addPrompt(item, scope)));
  items = failedFirst(items.filter((item) => item.state !== "none"));
  const total = page.total > PAGE ? page.total : Math.min(PAGE, Math.max(page.total, items.length));
  return { items, total: isOfTask ? Math.min(PAGE, items.length) : total, isOurs: ours.length > 0 };
}

const failedFirst = (items) => [...items.filter(isFailed), ...items.filter((item) => !isFailed(item))];

/** Take the prompt of a task that waits or saves from the task that has submitted the job. */
async function addPrompt(item, scope) {
  if (item.prompt || !item.job) return;
  const near = await taskInstances({ dag: scope.dag, run: scope.run, map: item.ti.map_index }, ["generate"], { limit: 10 });
  for (const ti of near.all) {
    const submitter = await loadItem(ti);
    if (submitter.job === item.job) {
      item.prompt = submitter.prompt;
      item.model ??= submitter.model;
      return;
    }
  }
}
