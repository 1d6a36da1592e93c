// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The rows of a batch as items, and how far it is.
import { ENDED, PAGE, keyOf, xcom } from "./airflow.js";
import { blank, explain, isText, known, labelOf, number, take } from "./items.js";

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
export async function batchOf(ti) {
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
export async function rowsOf(batch, from, to) {
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
