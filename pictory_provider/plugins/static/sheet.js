// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The pictures of a run, or of one of its tasks.
import { FAILED, FINISHED, PAGE, ROOT, enc, get, kinds, listTasks, runPath, taskInstances } from "./airflow.js";
import { loadBatch, loadRows } from "./batches.js";
import { gridOf } from "./cards.js";
import { HINT, body, header, main, message, pager } from "./frame.js";
import { isFailed, labelOf, number, singleItems } from "./items.js";
import { amount, arrange, el, inCredits } from "./parts.js";

let shownPage = 0;

export async function sheet(scope, refresh) {
  // While a task has not ended, its run has not either.
  const hasOpen = (await listTasks(scope)).some((ti) => !FINISHED.has(ti.state));
  const run = hasOpen ? { state: "running" } : await get(runPath(scope.dag, scope.run));
  const isRunning = run !== null && !["success", "failed"].includes(run.state);
  const [ones, many] = await Promise.all([
    singleItems(scope, isRunning),
    scope.task === undefined ? taskInstances(scope, ["batch"], { limit: 100 }) : taskInstances(scope, null, { limit: 100 }),
  ]);
  const batches = await Promise.all(many.all.filter((ti) => kinds.get(ti.operator) === "batch").map(loadBatch));
  const slots = ones.total + batches.reduce((sum, batch) => sum + batch.slots, 0);
  const pages = Math.max(1, Math.ceil(slots / PAGE));
  shownPage = Math.min(shownPage, pages - 1);
  const from = shownPage * PAGE, to = from + PAGE;
  const sections = [];
  if (from < ones.total) {
    sections.push({ name: "single", items: from === 0 ? ones.items : (await singleItems(scope, isRunning, from)).items });
  }
  let start = ones.total;
  for (const batch of batches) {
    const [first, last] = [Math.max(0, from - start), Math.min(batch.slots, to - start)];
    if (last > first || (batch.slots === 0 && start >= from && start <= to)) {
      sections.push({ name: batch.key, batch, items: last > first ? await loadRows(batch, first, last) : [] });
    }
    start += batch.slots;
  }
  const isEmpty = !sections.some((section) => section.items.length || section.batch);
  const empty = isEmpty ? await whyEmpty(scope, run, ones.isOurs) : null;
  drawSheet(scope, run, ones, batches, sections, empty);
  drawPager(refresh, { pages, from, to: Math.min(to, slots), slots });
  if (ones.total > PAGE) countAll(scope, ones.total, isRunning, refresh);
  if (run !== null && (isRunning || hasRunningTask(ones.items, batches))) return true;
  return [...batches, ...sections.flatMap((section) => section.items)].some((one) => one.isTemporary) ? "later" : false;
}

const hasRunningTask = (items, batches) => [...items, ...batches].some(({ ti }) => ["running", "deferred"].includes(ti.state));

let all = null;
let counted = "";
let isCounting = false;

/** Load the remaining pages for the totals, and again when something has changed. */
async function countAll(scope, total, isRunning, refresh) {
  const what = JSON.stringify([total, isRunning, isRunning ? Math.floor(Date.now() / 30000) : 0]);
  if (isCounting || what === counted) return;
  isCounting = true;
  try {
    const found = [];
    for (let offset = 0; offset < Math.min(total, 1100); offset += PAGE) found.push(...(await singleItems(scope, isRunning, offset)).items);
    all = found;
    counted = what;
    setTimeout(refresh, 0);
  } catch {
    // the next poll asks again
  } finally {
    isCounting = false;
  }
}

function drawSheet(scope, run, ones, batches, sections, empty) {
  const items = all && all.length >= ones.items.length ? all : ones.items;
  const isWhole = ones.total <= PAGE || items === all;
  const sum = (list, value) => list.reduce((total, one) => total + (value(one) || 0), 0);
  const progress = batches.map((batch) => batch.progress || {});
  const pictures = items.filter((item) => item.state === "done").length + sum(progress, (now) => (now.saved || 0) + (now.reused || 0));
  const paid = new Map(items.filter((item) => item.state === "done" && !item.isReused).map((item) => [item.job || item.key, item.credits]));
  const credits = sum([...paid.values()], (one) => one) + sum(progress, (now) => number(now.ai_credits_used));
  const working = items.filter((item) => item.state === "working").length + sum(progress, (now) => (now.waiting || 0) + (now.to_do || 0));
  const failed = items.filter(isFailed).length + sum(progress, (now) => (now.failed || 0) + (now.unknown || 0));
  const owed = sum(progress, (now) => now.owed);
  const notBought = sum(progress, (now) => now.not_bought);
  const reused = items.filter((item) => item.isReused).length + sum(progress, (now) => now.reused);
  const unread = items.filter((item) => item.state === "unread").length + batches.filter((batch) => batch.isUnread && !batch.progress).length;
  const least = isWhole && !unread ? "" : "≥ ";
  const orUnknown = (value, text) => (unread && !value ? "?" : least + text); // an unread record is not zero
  const figures = [
    figure(orUnknown(pictures, pictures.toLocaleString("en")), pictures === 1 && !least ? "picture" : "pictures"),
    figure(orUnknown(credits, amount(credits)), "AI credits used"),
    unread ? figure(unread.toLocaleString("en"), unread === 1 ? "task not read" : "tasks not read", "failed") : null,
    reused ? figure(reused.toLocaleString("en"), "reused", "reused") : null,
    working ? figure(working.toLocaleString("en"), "in progress", "working") : null,
    failed ? figure(failed.toLocaleString("en"), "failed", "failed") : null,
    owed ? figure(owed.toLocaleString("en"), "owed", "failed", "Paid for, but not saved") : null,
    notBought ? figure(notBought.toLocaleString("en"), "not bought", "failed") : null,
  ].filter(Boolean);
  const signature = JSON.stringify([figures.map((one) => one.textContent), run && run.state, empty]);
  if (header.dataset.signature !== signature) {
    header.dataset.signature = signature;
    header.replaceChildren(...[wayBack(scope), empty ? null : el("p.figures", { role: "status" }, ...figures)].filter(Boolean));
  }
  if (empty) return drawEmpty(empty);
  const nodes = [];
  for (const { name, batch, items: some } of sections) {
    if (batch) nodes.push(batchHead(batch));
    else if (batches.length && some.length) nodes.push(heading("Single pictures"));
    if (some.length) nodes.push(gridOf(name, some, batch ? `Pictures of ${batch.task}` : "Pictures"));
  }
  return arrange(body, nodes);
}

const headings = new Map();
function heading(text) {
  if (!headings.has(text)) headings.set(text, el("h2.kind", {}, text));
  return headings.get(text);
}

const batchHeads = new Map();
function batchHead(batch) {
  const signature = JSON.stringify([batch.progress, batch.plan, batch.ti.state, batch.why]);
  const cached = batchHeads.get(batch.key);
  if (cached && cached.signature === signature) return cached.node;
  const node = progressOf(batch);
  if (cached && cached.node.isConnected) cached.node.replaceWith(node);
  batchHeads.set(batch.key, { signature, node });
  return node;
}

function drawEmpty([title, text, ...more]) {
  if (body.dataset.empty === text && body.querySelector(".message")) return undefined;
  body.dataset.empty = text;
  return arrange(body, [message(title, text, ...more)]);
}

/** The texts for a page without pictures. */
async function whyEmpty(scope, run, isOurs) {
  if (run === null) return ["There is no such run", "It may have been deleted."];
  if (run.state === "failed") {
    const failed = (await taskInstances({ dag: scope.dag, run: scope.run }, null, { state: FAILED, limit: 3 })).all.map(labelOf);
    const who = failed.length ? ` Failed: ${failed.join(", ")}.` : "";
    return ["No pictures", `The run failed before any picture${scope.task === undefined ? "" : " of this task"}.${who}`, "The log of the failed task says why."];
  }
  if (run.state !== "success") return ["No pictures yet", "None of its tasks that generate pictures has started.", HINT];
  return ["No pictures yet", scope.task !== undefined && !isOurs ? "This task has none, or has not run." : "No task of this run has one.", HINT];
}

const WORDS = [["waiting", "in progress"], ["to_do", "to do"], ["reused"], ["adopted"], ["refused"], ["failed"], ["owed"], ["unknown"], ["not_bought", "not bought"], ["skipped"]];

/** The counts of a batch in words, without those of 0. */
function wordsOf(first, counts) {
  return [first, ...WORDS.map(([name, word]) => (counts[name] ? `${counts[name].toLocaleString("en")} ${word || name}` : null))];
}

/** The text for a batch that was only planned. */
function planOf(plan) {
  const price = plan.price === null ? "at an unknown price" : `for ${inCredits(plan.price)} listed`;
  return wordsOf(`Plan: ${plan.to_buy.toLocaleString("en")} of ${plan.of.toLocaleString("en")} to buy ${price}`, plan);
}

/** The text for a batch that has published no counts. */
function withoutCounts({ ti, isUnread }) {
  if (isUnread) return "The number of its pictures and their cost is not known here.";
  if (FAILED.includes(ti.state)) return "It failed before any picture.";
  if (ti.state === "skipped") return "Skipped, before any picture.";
  return FINISHED.has(ti.state) ? "It published no count of its pictures." : "Checking the table";
}

function drawPager(refresh, { pages, from, to, slots }) {
  const signature = JSON.stringify([pages, from, to, slots]);
  if (pager.dataset.signature === signature) return;
  pager.dataset.signature = signature;
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

/** A link back to the list from which the run was opened in this frame. */
function wayBack(scope) {
  const from = { "#newest": ["newest", "All pictures"], "#dag": [`dag/${enc(scope.dag)}`, "All runs"] }[location.hash];
  if (!from) return null;
  return el("p.way", {}, el("a", { href: ROOT + from[0] }, from[1]), el("span", { "aria-hidden": "true" }, "/"), el("b", {}, scope.dag),
    el("span", { "aria-hidden": "true" }, "/"), el("span", {}, scope.run));
}

function figure(value, words, kind, title) {
  return el(kind ? `span.figure.${kind}` : "span.figure", { title }, el("b", {}, value), ` ${words}`);
}

function progressOf(batch) {
  const now = batch.progress || {};
  const has = (now.saved || 0) + (now.reused || 0);
  const lost = (now.failed || 0) + (now.owed || 0) + (now.unknown || 0) + (now.not_bought || 0);
  const bar = el("div.progress", {
    role: "progressbar", "aria-label": `Pictures of ${batch.task}`, "aria-valuemin": 0, "aria-valuemax": now.of || 1, "aria-valuenow": has,
  });
  for (const [count, kind] of [[has, "has"], [lost, "lost"]]) {
    const part = el(`span.${kind}`);
    part.style.width = `${now.of ? (100 * count) / now.of : 0}%`;
    bar.append(part);
  }
  const words = batch.plan ? planOf(batch.plan) : wordsOf(`${has.toLocaleString("en")} of ${(now.of || 0).toLocaleString("en")}`, now);
  if (number(now.ai_credits_used) !== null) words.push(inCredits(now.ai_credits_used));
  const text = batch.progress || batch.plan ? words.filter(Boolean).join(" · ") : withoutCounts(batch);
  return el("div.batch", {}, el("h2", {}, batch.task), bar, el("p.count", {}, text),
    batch.why ? el("p.why", { title: batch.why }, batch.summary && !batch.isUnread ? batch.summary : batch.why) : null);
}
