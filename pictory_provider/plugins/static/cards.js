// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// A contact sheet: one card per picture, in a grid with arrow-key navigation.
import { kinds } from "./airflow.js";
import { BOUGHT_NOTHING, thumbnailOf } from "./items.js";
import { SIGNS, ago, arrange, el, inCredits, svg } from "./parts.js";

export function priceOf(item) {
  if (item.state === "unread") return "credits unknown";
  if (item.isReused) return "nothing spent";
  if (item.isOwed) return "paid for";
  if (item.credits !== null) return inCredits(item.credits);
  if (item.isNotBought) return "nothing bought";
  if (["wait", "save"].includes(kinds.get(item.ti.operator))) return null; // these tasks buy nothing
  if (item.state === "failed" || item.state === "skipped") {
    return item.job === null && (BOUGHT_NOTHING.has(item.error) || item.ti.state === "skipped") ? "nothing bought" : "charge unknown";
  }
  return item.listed === null ? "price unknown" : `${inCredits(item.listed)} listed`;
}

export function altOf(item) {
  return item.prompt || `Picture of the task ${item.task}`;
}

/** Load a picture from its first source that works. */
export function loadImage(image, [...sources], failed) {
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
  const signature = JSON.stringify([item.state, item.name, item.sources, item.prompt, item.summary, item.task, item.credits, item.isReused, item.since]);
  if (before && before.signature === signature) return before.node;
  const shot = el("div.shot");
  const title = item.prompt || item.job || item.task;
  const opener = el("button.open", { type: "button", "data-key": item.key }, shot);
  if (item.state === "done" && item.sources.length) {
    const image = el("img", { alt: altOf(item), loading: "lazy", decoding: "async", width: item.width, height: item.height });
    image.addEventListener("load", () => shot.classList.add("seen"));
    loadImage(image, item.sources.map(thumbnailOf), () => shot.replaceChildren(placeholder(item)));
    shot.append(image);
  } else {
    shot.append(placeholder(item));
    opener.append(el("span.unseen", {}, altOf(item)));
  }
  const prompt = el("p.prompt", {}, title);
  const facts = el("p.facts", {}, el("span", {}, item.model), el("b", {}, priceOf(item)));
  const node = el("li.card", {}, opener, prompt,
    item.summary && item.state !== "working" ? el("p.why", { title: item.why }, item.summary) : null,
    facts,
    el("p.task", {}, item.isReused ? el("span.badge.reused", {}, "Reused") : null, el("span.name", { title: item.path || item.name || item.task }, item.name || item.task)));
  node.classList.add(item.state);
  if (before && before.node.isConnected) {
    const isFocused = before.node.contains(document.activeElement);
    before.node.replaceWith(node);
    if (isFocused) opener.focus();
  }
  cards.set(item.key, { signature, node, item });
  return node;
}

export function stateOf(item) {
  const words = { unread: "Not read", done: "Picture", working: "In progress", submitted: "Submitted", failed: "Failed", skipped: "Skipped" };
  return item.isReused ? "Reused picture" : words[item.state];
}

/** The element that is shown instead of a picture. */
export function placeholder(item) {
  if (item.state === "working") {
    return el("div.none.working", {}, el("span.spinner", { "aria-hidden": "true" }), el("span", {}, item.summary),
      item.since ? el("span.age", { "data-since": item.since }, ago(item.since)) : null);
  }
  if (item.state === "failed") {
    return el("div.none.failed", {}, svg(SIGNS.failed), el("span", {}, item.isNotBought ? "Not bought" : "No picture"));
  }
  if (item.state === "skipped") return el("div.none", {}, svg(SIGNS.picture), el("span", {}, "Skipped"));
  if (item.state === "unread") {
    return el("div.none.unread", {}, svg(SIGNS.gone), el("span", {}, "Not read"));
  }
  if (item.state === "submitted") {
    return el("div.none", {}, svg(SIGNS.picture), el("span", {}, "Submitted; no task waits for it"));
  }
  return el("div.none", {}, svg(SIGNS.gone),
    el("span", {}, item.path ? "Saved, but not shown here: is it below [pictory] gallery_paths?" : "No longer available at Pictory"));
}

const grids = new Map();

export function gridOf(name, items, label) {
  if (!grids.has(name)) {
    const grid = el("ul.grid", { role: "list" });
    grid.addEventListener("keydown", (event) => moveFocus(grid, event));
    grids.set(name, grid);
  }
  const grid = grids.get(name);
  grid.setAttribute("aria-label", label);
  arrange(grid, items.map(cardOf));
  return grid;
}

/** Move the focus between pictures with the arrow keys, as in a table. */
function moveFocus(grid, event) {
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
