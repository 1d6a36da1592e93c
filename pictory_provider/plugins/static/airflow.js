// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// What Airflow says: its REST API, asked in the user's name, a few requests at a time.

export const ROOT = new URL("../..", import.meta.url).pathname; // .../pictory/
const API = new URL("../api/v2/", new URL(ROOT, location.href)).href;
export const TOLD = JSON.parse(document.getElementById("told").textContent);
export const PAGE = 50; // pictures in the page at once, and rows of a batch in one XCom
const STARTED = ["running", "deferred", "success", "failed", "up_for_retry", "up_for_reschedule", "restarting", "skipped"];
export const ENDED = new Set(["success", "failed", "skipped", "upstream_failed", "removed"]);

export class Trouble extends Error {
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

export const enc = encodeURIComponent;

/** Ask Airflow's REST API; null for what is not there. */
export function get(path, params = {}) {
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

export const runPath = (dag, run) => `dags/${enc(dag)}/dagRuns/${enc(run)}`;
export const keyOf = (ti) => JSON.stringify([ti.dag_id, ti.dag_run_id, ti.task_id, ti.map_index, ti.region_id, ti.region_index]);

/** What Airflow asks for to tell a task instance from the others of its task: a region, where it is in one (3.4 and later). */
const placeOf = (ti) => (ti.region_id ? { region_id: ti.region_id, region_index: ti.region_index } : { map_index: ti.map_index });

/** The value of an XCom; null where there is none. */
export async function xcom(ti, key) {
  const path = `${runPath(ti.dag_id, ti.dag_run_id)}/taskInstances/${enc(ti.task_id)}/xcomEntries/${enc(key)}`;
  const entry = await get(path, placeOf(ti));
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

export const kinds = new Map(Object.entries(TOLD.kinds));
const classesOf = (...wanted) => [...kinds].filter(([, kind]) => wanted.includes(kind)).map(([name]) => name);

const LINKS = ["Pictory image", "Pictory images"];

/** Learn the names of a DAG's own classes that are made of ours: our link is on them. */
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

export async function taskInstances({ dag = "~", run = "~", task, map }, wanted, more = {}) {
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
