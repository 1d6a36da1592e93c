// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The rows of a batch as items, and its progress.
import { FAILED, FINISHED, PAGE, Unreadable, keyOf, xcom } from "./airflow.js";
import { applyFailure, applySaved, applyUnreadable, blank, isText, itemCache, labelOf, number } from "./items.js";

const COUNTS = ["of", "to_do", "waiting", "saved", "reused", "owed", "failed", "unknown", "not_bought", "skipped", "to_buy", "adopted", "refused"];
const MOST = 1e7;

const isCount = (value) => Number.isInteger(value) && value >= 0 && value <= MOST;

/** The counts of a batch, or of its plan. An invalid count is 0, since an XCom can be edited. */
function counts(progress) {
  if (!progress || typeof progress !== "object") return null;
  const credits = number(progress.ai_credits_used);
  return {
    ...Object.fromEntries(COUNTS.map((name) => [name, isCount(progress[name]) ? progress[name] : 0])),
    ai_credits_used: credits !== null && credits >= 0 && credits <= 1e9 ? credits : 0,
    price: number(progress.price),
  };
}

const batchPages = new Map();

/** Load the progress of a batch, why it failed, and the number of its pictures. */
export async function loadBatch(ti) {
  const stamp = [ti.state, ti.try_number, ti.end_date].join();
  const before = itemCache.get(keyOf(ti));
  if (before && before.stamp === stamp && FINISHED.has(ti.state)) return before.item;
  const batch = { key: keyOf(ti), ti, task: labelOf(ti), progress: null, plan: null, parts: [], slots: 0 };
  try {
    batch.progress = counts(await xcom(ti, "progress"));
    batch.parts = partsOf(batch, null);
    batch.parts = partsOf(batch, await pagesOf(batch));
    if ([...FAILED, "skipped"].includes(ti.state)) {
      if (!batch.progress) batch.plan = counts(await xcom(ti, "plan"));
      const failure = await xcom(ti, "pictory_failure");
      if (failure || ti.state !== "skipped") applyFailure(batch, failure);
    }
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    applyUnreadable(batch, error);
    batch.isTemporary = !error.isGone;
  }
  batch.slots = batch.parts.reduce((sum, part) => sum + part.count, 0);
  if (batch.isTemporary) return batch;
  itemCache.set(batch.key, { stamp, item: batch });
  return batch;
}

/** The number of pictures on each page, and of rows without one; null while they may change. */
async function pagesOf(batch) {
  const now = batch.progress;
  if (!now || !FINISHED.has(batch.ti.state) || now.saved + now.reused >= now.of) return null;
  const pages = await xcom(batch.ti, "pictory_pages");
  const isValid = pages && Array.isArray(pages.pictures) && pages.pictures.length <= MOST / PAGE && [pages.failures, ...pages.pictures].every(isCount);
  return isValid ? pages : null;
}

/** The parts of a batch that are shown, page by page: first the rows without a picture, then the pictures. */
function partsOf(batch, pages) {
  const split = (total, kind) => Array.from({ length: Math.ceil(total / PAGE) }, (_, page) => ({ kind, page, count: Math.min(PAGE, total - page * PAGE) }));
  if (!pages) return split(batch.progress ? batch.progress.of : 0, "rows");
  return [...split(pages.failures, "failures"), ...pages.pictures.map((count, page) => ({ kind: "pictures", page, count: Math.min(PAGE, count) }))];
}

/** Load the items of a batch at these positions. */
export async function loadRows(batch, from, to) {
  const wanted = [];
  let start = 0;
  for (const part of batch.parts) {
    if (start + part.count > from && start < to) wanted.push({ part, first: Math.max(0, from - start), last: to - start });
    start += part.count;
  }
  const found = await Promise.all(wanted.map(({ part }) => itemsOf(batch, part)));
  return wanted.flatMap(({ first, last }, at) => found[at].slice(first, last));
}

/** Load the first pictures of a batch, or else its first failures. */
export async function loadFirst(batch, most) {
  const failures = batch.parts.filter((part) => part.kind === "failures").reduce((sum, part) => sum + part.count, 0);
  const pictures = await loadRows(batch, failures, failures + most);
  return pictures.length ? pictures : loadRows(batch, 0, most);
}

async function itemsOf(batch, { kind, page }) {
  const name = JSON.stringify([batch.key, kind, page]);
  const stamp = JSON.stringify([batch.progress, batch.ti.state, batch.ti.try_number]);
  const cached = batchPages.get(name);
  if (cached && cached.stamp === stamp) return cached.items;
  const now = batch.progress;
  const mayHavePictures = kind !== "failures" && now.saved + now.reused > 0;
  const mayHaveFailures = kind === "failures" || (kind === "rows" && FINISHED.has(batch.ti.state) && now.saved + now.reused < now.of);
  try {
    const [pictures, failures] = await Promise.all([
      mayHavePictures ? xcom(batch.ti, `pictures_${page}`) : null, mayHaveFailures ? xcom(batch.ti, `failures_${page}`) : null,
    ]);
    const items = [
      ...listed(failures).map((record, at) => rowOf(batch, page, record.file_name || at, (item) => applyLost(item, record))),
      ...listed(pictures).map((record, at) => rowOf(batch, page, record.job_id || at, (item) => applySaved(item, record, `pictures_${page}`))),
    ];
    batchPages.set(name, { stamp, items });
    return items;
  } catch (error) {
    if (!(error instanceof Unreadable)) throw error;
    return [rowOf(batch, page, kind, (item) => applyUnreadablePage(item, error))];
  }
}

const listed = (value) => (Array.isArray(value) ? value.filter((one) => one && typeof one === "object") : []);

function rowOf(batch, page, name, put) {
  const item = blank(batch.ti);
  item.key = JSON.stringify([batch.key, page, name]);
  item.prompt = item.model = null;
  put(item);
  return item;
}

/** Write the outcome of a row without a picture into an item. */
function applyLost(item, record) {
  item.job = isText(record.job_id) ? record.job_id : null;
  item.prompt = isText(record.prompt) ? record.prompt : null;
  item.model = isText(record.model) ? record.model : null;
  item.name = isText(record.file_name) ? record.file_name : null;
  applyFailure(item, { message: isText(record.message) ? record.message : REASONS[record.status], error: record.error });
  item.state = "failed";
  item.isNotBought = record.status === "not_bought" || record.status === "to_do";
  item.isOwed = record.status === "owed";
}

function applyUnreadablePage(item, error) {
  applyUnreadable(item, error);
  Object.assign(item, { state: "unread", why: error.message, summary: `Up to ${PAGE} pictures are not shown. ${error.message}`, isTemporary: !error.isGone });
}

const REASONS = {
  not_bought: "Not bought: the batch stopped buying.", to_do: "Not bought: the task ended before it was submitted.",
  unknown: "It is unknown whether Pictory accepted it.", waiting: "Pictory was still generating it when the task ended.",
  owed: "Paid for, but not saved.",
};
