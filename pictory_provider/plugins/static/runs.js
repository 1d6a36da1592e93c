// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The newest runs with pictures, of one DAG or of all.
import { PAGE, ROOT, enc, kinds, taskInstances } from "./airflow.js";
import { loadBatch, loadFirst } from "./batches.js";
import { gridOf } from "./cards.js";
import { HINT, body, message, pager } from "./frame.js";
import { relatedTasks, isText, loadItem, mergeRelated, shownOf } from "./items.js";
import { arrange, el, moment } from "./parts.js";

const STRIP = 6; // pictures of each run in the list
const RUNS = 8;
const DAY = 86_400_000;
const WINDOWS = [1, 8, 40, 400]; // days that are searched for the newest runs, so that no request is too large

let olderThan = null;

/** Load the newest tasks that generate pictures; each request searches a limited number of days. */
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

export async function runs(scope, refresh) {
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
    nodes.push(message("No pictures yet", scope.dag ? "No run of this DAG has one." : "No run that you may see has one.", HINT));
  }
  arrange(body, nodes);
  const isTemporary = sections.some(({ items, batches }) => [...items, ...batches].some((one) => one.isTemporary));
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
  return isTemporary ? "later" : false;
}

async function stripOf(tasks) {
  const items = [], batches = [];
  const isWithoutPicture = (ti) => ["failed", "up_for_retry", "skipped"].includes(ti.state) && kinds.get(ti.operator) !== "batch";
  for (const ti of [...tasks].sort((one, other) => isWithoutPicture(one) - isWithoutPicture(other))) {
    if (items.length >= STRIP) break;
    if (kinds.get(ti.operator) === "batch") {
      const batch = await loadBatch(ti);
      batches.push(batch);
      items.push(...(await loadFirst(batch, STRIP - items.length)));
    } else items.push(...shownOf(await loadItem(ti)).slice(0, STRIP - items.length));
  }
  const open = items.filter((item) => item.state === "submitted");
  if (open.length) {
    const others = await relatedTasks({ dag: tasks[0].dag_id, run: tasks[0].dag_run_id }, open.map((item) => item.job).filter(isText));
    for (const item of open) items[items.indexOf(item)] = await mergeRelated(item, others.get(item.job) || []);
  }
  return { items: items.filter((item) => item.state !== "none"), batches };
}

function runSection(scope, { of, items, batches }) {
  const [ti] = of;
  const singleTasks = of.filter((one) => kinds.get(one.operator) !== "batch").length;
  const count = singleTasks + batches.reduce((sum, batch) => sum + batch.slots, 0);
  const href = `${ROOT}run/${enc(ti.dag_id)}/${enc(ti.dag_run_id)}${scope.dag ? "#dag" : "#newest"}`;
  const name = scope.dag ? moment(ti.run_after) : ti.dag_display_name || ti.dag_id;
  return el(`section.run.n${Math.min(STRIP, Math.max(1, items.length))}`, {},
    el("div.head", {}, el("h2", {}, el("a", { href }, name)),
      el("p", { title: ti.dag_run_id }, scope.dag ? ti.dag_run_id : `${moment(ti.run_after)} · ${ti.dag_run_id}`),
      count > items.length ? el("a.more", { href, "aria-label": `All ${count.toLocaleString("en")} of ${name}` }, `All ${count.toLocaleString("en")}`) : null),
    gridOf(JSON.stringify([ti.dag_id, ti.dag_run_id]), items, `Pictures of ${name}`));
}
