// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The pictures of a run, or of one of its tasks.
import { ENDED, PAGE, ROOT, enc, get, kinds, runPath, taskInstances } from "./airflow.js";
import { batchOf, rowsOf } from "./batches.js";
import { gridOf } from "./cards.js";
import { HOW, body, header, main, message, pager } from "./frame.js";
import { number, singles } from "./items.js";
import { amount, arrange, el, inCredits } from "./parts.js";

let shownPage = 0;

export async function sheet(scope, refresh) {
  const run = await get(runPath(scope.dag, scope.run));
  const isGoingOn = run !== null && !["success", "failed"].includes(run.state);
  const [ones, many] = await Promise.all([
    singles(scope, isGoingOn),
    scope.task === undefined ? taskInstances(scope, ["batch"], { limit: 100 }) : taskInstances(scope, null, { limit: 100 }),
  ]);
  const batches = await Promise.all(many.all.filter((ti) => kinds.get(ti.operator) === "batch").map(batchOf));
  const slots = ones.total + batches.reduce((sum, batch) => sum + batch.of, 0);
  const pages = Math.max(1, Math.ceil(slots / PAGE));
  shownPage = Math.min(shownPage, pages - 1);
  const from = shownPage * PAGE, to = from + PAGE;
  const sections = [];
  if (from < ones.total) {
    sections.push({ name: "single", items: from === 0 ? ones.items : (await singles(scope, isGoingOn, from)).items });
  }
  let start = ones.total;
  for (const batch of batches) {
    const [first, last] = [Math.max(0, from - start), Math.min(batch.of, to - start)];
    if (last > first || (batch.of === 0 && start >= from && start <= to)) {
      sections.push({ name: batch.key, batch, items: last > first ? await rowsOf(batch, first, last) : [] });
    }
    start += batch.of;
  }
  drawSheet(scope, run, ones, batches, sections);
  drawPager(refresh, { pages, from, to: Math.min(to, slots), slots });
  if (ones.total > PAGE) countAll(scope, ones.total, isGoingOn, refresh);
  return run !== null && (isGoingOn || stillGoing(ones.items, batches));
}

const stillGoing = (items, batches) => [...items, ...batches].some(({ ti }) => ["running", "deferred"].includes(ti.state));

let all = null;
let counted = "";
let isCounting = false;

/** The sums of more than a page: go through the rest in the background, once more when something has changed. */
async function countAll(scope, total, isGoingOn, refresh) {
  const what = JSON.stringify([total, isGoingOn, isGoingOn ? Math.floor(Date.now() / 30000) : 0]);
  if (isCounting || what === counted) return;
  isCounting = true;
  try {
    const found = [];
    for (let offset = 0; offset < Math.min(total, 1100); offset += PAGE) found.push(...(await singles(scope, isGoingOn, offset)).items);
    all = found;
    counted = what;
    setTimeout(refresh, 0);
  } catch {
    // the next poll asks again
  } finally {
    isCounting = false;
  }
}

function drawSheet(scope, run, ones, batches, sections) {
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
  if (header.dataset.looks !== looks) {
    header.dataset.looks = looks;
    header.replaceChildren(...[wayBack(scope), isEmpty ? null : el("p.figures", { role: "status" }, ...figures)].filter(Boolean));
  }
  if (isEmpty) return drawEmpty(scope, run, ones.isOurs);
  const nodes = [];
  for (const { name, batch, items: some } of sections) {
    if (batch) nodes.push(keptBatch(batch));
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
function keptBatch(batch) {
  const looks = JSON.stringify([batch.progress, batch.ti.state, batch.why]);
  const kept = batchHeads.get(batch.key);
  if (kept && kept.looks === looks) return kept.node;
  const node = progressOf(batch);
  if (kept && kept.node.isConnected) kept.node.replaceWith(node);
  batchHeads.set(batch.key, { looks, node });
  return node;
}

function drawEmpty(scope, run, isOurs) {
  if (run === null) return arrange(body, [message("There is no such run", "It may have been deleted.")]);
  const text = ["success", "failed"].includes(run.state)
    ? scope.task !== undefined && !isOurs ? "This task has made none, or has not run." : "No task of this run has made one."
    : "None of its tasks that make pictures has begun.";
  if (body.dataset.empty === text && body.querySelector(".message")) return undefined;
  body.dataset.empty = text;
  return arrange(body, [message("No pictures yet", text, HOW)]);
}

function drawPager(refresh, { pages, from, to, slots }) {
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

function figure(value, words, kind) {
  return el(kind ? `span.figure.${kind}` : "span.figure", {}, el("b", {}, value), ` ${words}`);
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
