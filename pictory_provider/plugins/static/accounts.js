// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// What the Pictory accounts have used and have left.
import { ROOT, CONFIG, enc, get } from "./airflow.js";
import { header } from "./frame.js";
import { number } from "./items.js";
import { amount, el } from "./parts.js";

const MOST = 5; // each one is a request to Pictory

/** Show the accounts, if the user may read connections, with placeholders until Pictory has answered. */
export async function accounts() {
  const found = await get("connections", { limit: 50, order_by: "connection_id" }).catch(() => null);
  if (found === null) return;
  const named = (found.connections || []).filter((one) => one.conn_type === "pictory").map((one) => one.connection_id);
  const all = [...new Set([CONFIG.connection, ...named])];
  const ids = all.slice(0, MOST);
  const strip = el("section.accounts", { "aria-label": "Accounts at Pictory" });
  header.replaceChildren(strip);
  for (const id of ids) {
    const node = el("div.account", { "aria-busy": "true" }, el("h2", {}, id));
    strip.append(node);
    fetchUsage(id).then((usage) => {
      if (usage) node.replaceWith(accountOf(id, usage));
      else node.remove();
    });
  }
  if (all.length > MOST) strip.append(el("p", {}, `Not shown: ${all.slice(MOST).join(", ")}`));
}

async function fetchUsage(id) {
  for (let tries = 0; tries < 15; tries += 1) {
    const reply = await fetch(`${ROOT}account/${enc(id)}`, { credentials: "same-origin" }).catch(() => null);
    if (!reply || !reply.ok) return null;
    if (reply.status !== 202) return reply.json();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return null;
}

function accountOf(id, usage) {
  if (usage.error) return el("div.account", {}, el("h2", {}, id), el("p.why", {}, usage.error));
  const limits = usage.limits || {};
  const figures = [
    ["Used this month", usage.this_month, limits.month], limits.day === null ? [] : ["Used today", usage.today, limits.day],
    ["Left", usage.left, null, limits.reserve], ["Plan", usage.plan],
  ].filter(([, value]) => number(value) !== null);
  return el("div.account", {}, el("h2", {}, id), el("dl", {}, ...figures.map(([name, value, limit, reserve]) => el("div", {},
    el("dt", {}, name),
    el("dd", {}, amount(value), el("span", {}, number(limit) !== null ? ` of ${amount(limit)} AI credits` : " AI credits",
      number(reserve) !== null ? `, ${amount(reserve)} in reserve` : ""))))));
}
