// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// What becomes of an image request, as Airflow keeps it: one item for each picture.
import { ENDED, PAGE, ROOT, TOLD, enc, keyOf, kinds, taskInstances, xcom } from "./airflow.js";

// Errors of a task that has bought nothing, where no job is on record.
export const BOUGHT_NOTHING = new Set(["PictoryRequestInvalid", "PictoryAuthenticationError", "PictoryBudgetExceeded", "PictoryUnavailable",
  "PictoryRateLimited"]);

export const isText = (value) => typeof value === "string" && value !== "";
export const number = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);

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
export function take(item, record, key, index = 0) {
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
    const { dag_id: dag, dag_run_id: run, task_id: task, map_index: map, region_id: region, region_index: at } = item.ti;
    const place = isText(region) ? [region, at] : [map];
    const which = isText(record.sha256) ? `?${enc(record.sha256)}` : ""; // what lies there changes, and a place does not
    item.sources.push(`${ROOT}file/${[dag, run, task, ...place, key, index].map(enc).join("/")}${which}`);
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
export function explain(item, failure) {
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

export const known = new Map(); // items of tasks that have ended, and requests of those that have not

export async function itemOf(ti) {
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
export async function companionsOf(scope, jobs) {
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
export async function joined(item, others, isGoingOn = false) {
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

export async function singles(scope, isGoingOn, offset = 0) {
  const isOfTask = scope.task !== undefined;
  const page = await taskInstances(scope, isOfTask ? null : ["generate"], { offset });
  const ours = page.all.filter((ti) => ["generate", "wait", "save"].includes(kinds.get(ti.operator)));
  let items = await Promise.all(ours.map(itemOf));
  const open = items.filter((item) => item.state === "submitted" && kinds.get(item.ti.operator) === "generate");
  const mayHaveOthers = !isOfTask && page.total <= PAGE;
  if (open.length || mayHaveOthers) {
    const others = await companionsOf({ dag: scope.dag, run: scope.run }, open.map((item) => item.job).filter(isText));
    items = await Promise.all(items.map((item) => (open.includes(item) ? joined(item, others.get(item.job) || [], isGoingOn) : item)));
    if (mayHaveOthers) {
      const jobs = new Set(items.map((item) => item.job));
      const isUnknown = (tis) => items.length > 0 && !ENDED.has(tis[0].state) && !rendered(tis[0], "job_id");
      const alone = [...others].filter(([job, tis]) => !jobs.has(job) && !isUnknown(tis)).map(([, tis]) => tis).slice(0, PAGE - items.length);
      items.push(...(await Promise.all(alone.map(async (tis) => joined(await itemOf(tis[0]), tis, isGoingOn)))));
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
