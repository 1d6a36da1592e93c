// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// A contact sheet: a card for each picture, in a grid that the arrows walk.
import { kinds } from "./airflow.js";
import { BOUGHT_NOTHING } from "./items.js";
import { SIGNS, ago, arrange, el, inCredits, svg } from "./parts.js";

export function priceOf(item) {
  if (item.isReused) return "nothing spent";
  if (item.credits !== null) return inCredits(item.credits);
  if (item.isNotBought) return "nothing bought";
  if (["wait", "save"].includes(kinds.get(item.ti.operator))) return null; // it buys nothing
  if (item.state === "failed" || item.state === "skipped") {
    return item.job === null && (BOUGHT_NOTHING.has(item.error) || item.ti.state === "skipped") ? "nothing bought" : "charge unknown";
  }
  return item.listed === null ? "price unknown" : `${inCredits(item.listed)} listed`;
}

export function altOf(item) {
  return item.prompt || `Picture of the task ${item.task}`;
}

/** Load a picture from the first of its sources that has it. */
export function fill(image, item, failed) {
  const sources = [...item.sources];
  const next = () => {
    const source = sources.shift();
    if (source) image.src = source;
    else failed();
  };
  image.addEventListener("error", next);
  next();
}

export const cards = new Map();

function cardOf(item) {
  const before = cards.get(item.key);
  const looks = JSON.stringify([item.state, item.sources, item.prompt, item.says, item.task, item.credits, item.isReused, item.since]);
  if (before && before.looks === looks) return before.node;
  const shot = el("div.shot");
  const title = item.prompt || item.job || item.task;
  const opener = el("button.open", { type: "button", "data-key": item.key }, shot);
  if (item.state === "done" && item.sources.length) {
    const image = el("img", { alt: altOf(item), loading: "lazy", decoding: "async", width: item.width, height: item.height });
    image.addEventListener("load", () => shot.classList.add("seen"));
    fill(image, item, () => shot.replaceChildren(emptied(item)));
    shot.append(image);
  } else {
    shot.append(emptied(item));
    opener.append(el("span.unseen", {}, altOf(item)));
  }
  const prompt = el("p.prompt", {}, title);
  const facts = el("p.facts", {}, el("span", {}, item.model), el("b", {}, priceOf(item)));
  const node = el("li.card", {}, opener, prompt,
    item.says && item.state !== "working" ? el("p.why", { title: item.why }, item.says) : null,
    facts,
    el("p.task", {}, item.isReused ? el("span.badge.reused", {}, "Reused") : null, el("span.name", { title: item.task }, item.task)));
  node.classList.add(item.state);
  if (before && before.node.isConnected) {
    const isFocused = before.node.contains(document.activeElement);
    before.node.replaceWith(node);
    if (isFocused) opener.focus();
  }
  cards.set(item.key, { looks, node, item });
  return node;
}

export function stateOf(item) {
  const words = { done: "Picture", working: "In progress", submitted: "Submitted", failed: "Failed", skipped: "Skipped" };
  return item.isReused ? "Reused picture" : words[item.state];
}

/** What stands in place of a picture. */
export function emptied(item) {
  if (item.state === "working") {
    return el("div.none.working", {}, el("span.spinner", { "aria-hidden": "true" }), el("span", {}, item.says),
      item.since ? el("span.age", { "data-since": item.since }, ago(item.since)) : null);
  }
  if (item.state === "failed" || item.state === "skipped") {
    const word = item.isNotBought ? "Not bought" : item.state === "failed" ? "No picture" : "Skipped";
    return el("div.none.failed", {}, svg(SIGNS.failed), el("span", {}, word));
  }
  if (item.state === "submitted") {
    return el("div.none", {}, svg(SIGNS.picture), el("span", {}, "Submitted, and not waited for"));
  }
  return el("div.none", {}, svg(SIGNS.gone),
    el("span", {}, item.path ? "Saved, and not shown here" : "No longer to be had from Pictory"));
}

const grids = new Map();

export function gridOf(name, items, label) {
  if (!grids.has(name)) {
    const grid = el("ul.grid", { role: "list" });
    grid.addEventListener("keydown", (event) => walk(grid, event));
    grids.set(name, grid);
  }
  const grid = grids.get(name);
  grid.setAttribute("aria-label", label);
  arrange(grid, items.map(cardOf));
  return grid;
}

/** Go from picture to picture with the arrows, as in a table. */
function walk(grid, event) {
  const openers = [...document.querySelectorAll(".open")];
  const at = openers.indexOf(document.activeElement);
  const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  const to = { Home: 0, End: openers.length - 1 }[event.key] ?? at + step;
  if (at < 0 || Number.isNaN(to)) return;
  event.preventDefault();
  const opener = openers[Math.min(openers.length - 1, Math.max(0, to))];
  opener.focus();
}
