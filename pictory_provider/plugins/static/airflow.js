// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// Requests to Airflow's REST API with the user's permissions, a few at a time.

export const ROOT = new URL("../..", import.meta.url).pathname; // .../pictory/
const API = new URL("../api/v2/", new URL(ROOT, location.href)).href;
export const SIGN_IN = new URL(`auth/login?${new URLSearchParams({ next: location.href })}`, API).href; // and back to this page
export const CONFIG = JSON.parse(document.getElementById("config").textContent);
export const PAGE = 50; // pictures on one page, and rows of a batch in one XCom
export const FAILED = ["failed", "up_for_retry"];
export const NOT_FAILED = ["running", "deferred", "success", "up_for_reschedule", "restarting", "skipped"];
export const FINISHED = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);

/** A reply with an error status, and the detail that Airflow gives. */
export class HttpError extends Error {
  constructor(status, detail) {
    super(`HTTP ${status}`);
    this.status = status;
    this.detail = typeof detail === "string" ? detail.slice(0, 200) : "";
  }

  static async fromReply(reply) {
    const body = await reply.json().catch(() => null);
    return new HttpError(reply.status, body && body.detail);
  }

  /** Not signed in, or Airflow does not accept the token: a 403 that Airflow's UI recognises by this text too. */
  get isSignedOut() {
    return this.status === 401 || (this.status === 403 && this.detail === "Invalid JWT token");
  }
}

/** The XCom exists, but its value cannot be read. An XCom that does not exist is null instead. */
export class Unreadable extends Error {
  constructor(isGone) {
    super(!isGone ? "Its record could not be read: the XCom backend does not answer. This page tries again automatically; the log of the API server has the error."
      : CONFIG.has_backend ? "Its record cannot be read: the XCom backend no longer has it, or it was edited."
        : "Its record cannot be read here: it was edited, or it is in an XCom backend that is not configured for the API server ([core] xcom_backend).");
    this.isGone = isGone;
  }
}

const queue = [];
let active = 0;

/** Run at most five requests at a time: a browser has six connections, and Airflow's UI needs some. */
function enqueue(work) {
  return new Promise((resolve, reject) => {
    queue.push(async () => {
      try {
        resolve(await work());
      } catch (error) {
        reject(error);
      }
      active -= 1;
      runNext();
    });
    runNext();
  });
}

function runNext() {
  while (active < 5 && queue.length) {
    active += 1;
    queue.shift()();
  }
}

export const enc = encodeURIComponent;

/** Get JSON from Airflow's REST API; null for a 404. */
export function get(path, params = {}) {
  const url = new URL(path, API);
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) if (one !== undefined && one !== null) url.searchParams.append(name, one);
  }
  return enqueue(() => fetchJson(url));
}

async function fetchJson(url) {
  const reply = await fetch(url, { credentials: "same-origin", headers: { Accept: "application/json" } });
  if (reply.status === 404) return null;
  if (!reply.ok) throw await HttpError.fromReply(reply);
  return reply.json();
}

export const runPath = (dag, run) => `dags/${enc(dag)}/dagRuns/${enc(run)}`;
export const keyOf = (ti) => JSON.stringify([ti.dag_id, ti.dag_run_id, ti.task_id, ti.map_index, ti.region_id, ti.region_index]);

/** Select one instance of a task by its map index, or its region (Airflow 3.4 and later). */
const instanceParams = (ti) => (ti.region_id ? { region_id: ti.region_id, region_index: ti.region_index } : { map_index: ti.map_index });

const retryAt = new Map(); // by path: the time before which it is not requested again
const RETRY_AFTER = 9_000, SLOW = 2_000;

/** Read an XCom through the server's XCom backend. If that fails slowly, all such requests pause. */
function backendXcom(ti, key) {
  const parts = [ti.dag_id, ti.dag_run_id, ti.task_id, ...Object.values(instanceParams(ti)), key];
  const path = `${ROOT}xcom/${parts.map(enc).join("/")}`;
  return enqueue(async () => {
    const began = Date.now();
    if ([path, ROOT].some((one) => retryAt.get(one) > began)) throw new Unreadable(false);
    try {
      return await fetchJson(path);
    } catch (error) {
      if (!(error instanceof HttpError) || (error.status !== 410 && error.status < 500)) throw error;
      const now = Date.now();
      if (error.status !== 410) retryAt.set(now - began > SLOW ? ROOT : path, now + RETRY_AFTER);
      throw new Unreadable(error.status === 410);
    }
  });
}

/** The value of an XCom that our tasks push; null if it does not exist. */
export async function xcom(ti, key) {
  const path = `${runPath(ti.dag_id, ti.dag_run_id)}/taskInstances/${enc(ti.task_id)}/xcomEntries/${enc(key)}`;
  const entry = CONFIG.has_backend ? await backendXcom(ti, key) : await get(path, instanceParams(ti));
  let value = entry && entry.value;
  for (let times = 0; times < 2 && typeof value === "string" && /^["{[]/.test(value); times += 1) {
    try {
      value = JSON.parse(value); // Airflow 3.1 stores an edited XCom as JSON within JSON
    } catch {
      break; // a plain string
    }
  }
  if (value !== null && value !== undefined && typeof value !== "object") throw new Unreadable(true); // a reference, or it was edited
  return value ?? null;
}

export const kinds = new Map(Object.entries(CONFIG.kinds));
const classesOf = (...wanted) => [...kinds].filter(([, kind]) => wanted.includes(kind)).map(([name]) => name);

const LINKS = ["Pictory image", "Pictory images"];

/** Find a DAG's own operator classes derived from ours: they have our link. */
export async function learnClasses(dag) {
  const found = await get(`dags/${enc(dag)}/tasks`).catch(() => null);
  for (const task of (found && found.tasks) || []) {
    const { module_path: module, class_name: name } = task.class_ref || {};
    const fields = task.template_fields || [];
    const isOurs = (task.extra_links || []).some((link) => LINKS.includes(link)) || String(module).startsWith("pictory_provider.");
    if (!name || kinds.has(name) || !isOurs) continue;
    const has = (field) => fields.includes(field);
    kinds.set(name, has("requests") ? "batch" : has("prompt") ? "generate" : has("path") ? "save" : "wait");
  }
}

const MOST = 100; // that Airflow's API lists at a time
let list = null; // all tasks with pictures of a run, or all instances of one task
const tooLong = new Set(); // scopes with more of them

/** Load all task instances of a run or a task with one request, if they are few; then `taskInstances` sends none for them. */
export async function listTasks(scope) {
  list = null;
  const name = JSON.stringify([scope.dag, scope.run, scope.task, scope.map]);
  if (tooLong.has(name)) return [];
  const wanted = scope.task === undefined ? ["generate", "batch", "wait", "save"] : null;
  const { all, total } = await taskInstances(scope, wanted, { limit: MOST });
  if (total > all.length) tooLong.add(name);
  else list = { scope, all };
  return all;
}

/** The task instances that the list has for a request; null if it may not have all of them. */
function listed({ dag, run, task, map }, wanted, { state = [...FAILED, ...NOT_FAILED], offset = 0, limit = PAGE }) {
  const { scope, all } = list || {};
  if (!scope || scope.dag !== dag || scope.run !== run) return null;
  const isWhole = scope.task === undefined ? wanted !== null : scope.task === task && scope.map === map;
  if (!isWhole) return null;
  const found = all.filter((ti) => state.includes(ti.state) && (wanted === null || wanted.includes(kinds.get(ti.operator))) &&
    (task === undefined || ti.task_id === task) && (map === undefined || ti.map_index === map));
  return { all: found.slice(offset, offset + limit), total: found.length };
}

export async function taskInstances({ dag = "~", run = "~", task, map }, wanted, more = {}) {
  const known = listed({ dag, run, task, map }, wanted, more);
  if (known) return known;
  const found = await get(`${runPath(dag, run)}/taskInstances`, {
    operator: wanted && classesOf(...wanted),
    state: [...FAILED, ...NOT_FAILED],
    task_id: task,
    map_index: map,
    order_by: "-start_date",
    limit: PAGE,
    ...more,
  });
  return { all: (found && found.task_instances) || [], total: (found && found.total_entries) || 0 };
}
