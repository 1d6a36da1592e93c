// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// What the accounts at Pictory have used and have left.
import { ROOT, TOLD, enc, get } from "./airflow.js";
import { header } from "./frame.js";
import { number } from "./items.js";
import { amount, el } from "./parts.js";

const SHOWN = 5; // each is asked for at Pictory

/** The accounts, for whoever may read connections; their place is kept while Pictory is asked. */
export async function accounts() {
  const found = await get("connections", { limit: 50, order_by: "connection_id" }).catch(() => null);
  if (found === null) return;
  const named = (found.connections || []).filter((one) => one.conn_type === "pictory").map((one) => one.connection_id);
  const all = [...new Set([TOLD.connection, ...named])];
  const ids = all.slice(0, SHOWN);
  const strip = el("section.accounts", { "aria-label": "Accounts at Pictory" });
  header.replaceChildren(strip);
  for (const id of ids) {
    const place = el("div.account", { "aria-busy": "true" }, el("h2", {}, id));
    strip.append(place);
    account(id).then((told) => {
      if (told) place.replaceWith(accountOf(id, told));
      else place.remove();
    });
  }
  if (all.length > SHOWN) strip.append(el("p", {}, `Not shown: ${all.slice(SHOWN).join(", ")}`));
}

async function account(id) {
  for (let tries = 0; tries < 15; tries += 1) {
    const reply = await fetch(`${ROOT}account/${enc(id)}`, { credentials: "same-origin" }).catch(() => null);
    if (!reply || !reply.ok) return null;
    if (reply.status !== 202) return reply.json();
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  return null;
}

function accountOf(id, told) {
  if (told.error) return el("div.account", {}, el("h2", {}, id), el("p.why", {}, told.error));
  const limits = told.limits || {};
  const figures = [
    ["Used this month", told.this_month, limits.month], limits.day === null ? [] : ["Used today", told.today, limits.day],
    ["Left", told.left, null, limits.reserve], ["Plan", told.plan],
  ].filter(([, value]) => number(value) !== null);
  return el("div.account", {}, el("h2", {}, id), el("dl", {}, ...figures.map(([name, value, limit, reserve]) => el("div", {},
    el("dt", {}, name),
    el("dd", {}, amount(value), el("span", {}, number(limit) !== null ? ` of ${amount(limit)} AI credits` : " AI credits",
      number(reserve) !== null ? `, ${amount(reserve)} kept back` : ""))))));
}
