// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// One picture, as large as the page.
import { altOf, cards, loadImage, placeholder, priceOf, stateOf } from "./cards.js";
import { SIGNS, el, set, svg } from "./parts.js";

let lightbox = null;

function visibleItems() {
  return [...document.querySelectorAll(".open")].map((opener) => cards.get(opener.dataset.key)).filter(Boolean).map((card) => card.item);
}

export function enlarge(key) {
  if (!lightbox) lightbox = makeLightbox();
  lightbox.show(key);
}

function makeLightbox() {
  const stage = el("div.stage");
  const facts = el("dl.details");
  const count = el("span.count");
  const button = (label, sign, act) => el("button.icon", { type: "button", "aria-label": label, title: label, onclick: act }, svg(SIGNS[sign]));
  const dialog = el("dialog.lightbox", { "aria-label": "Picture" },
    el("div.bar", {}, count, button("Previous picture", "back", () => move(-1)), button("Next picture", "on", () => move(1)),
      button("Close", "close", () => dialog.close())),
    el("div.inside", {}, stage, facts));
  let current = null;
  function move(by) {
    const items = visibleItems();
    const at = items.findIndex((item) => item.key === current);
    const item = items[Math.min(items.length - 1, Math.max(0, at + by))];
    if (item && item.key !== current) show(item.key);
  }
  function show(key) {
    const items = visibleItems();
    const at = items.findIndex((item) => item.key === key);
    if (at < 0) return;
    const item = items[at];
    current = key;
    set(count, `${at + 1} of ${items.length}`);
    if (item.state === "done" && item.sources.length) {
      const image = el("img", { alt: altOf(item), width: item.width, height: item.height });
      loadImage(image, item.sources, () => stage.replaceChildren(placeholder(item)));
      stage.replaceChildren(image);
    } else stage.replaceChildren(placeholder(item));
    facts.replaceChildren(...detailsOf(item));
    facts.scrollTop = 0;
    if (!dialog.open) dialog.showModal();
  }
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!by || event.target.closest(".details")) return;
    event.preventDefault();
    move(by);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target === stage) dialog.close();
  });
  dialog.addEventListener("close", () => {
    const card = cards.get(current);
    const opener = card && card.node.querySelector(".open");
    if (opener) opener.focus();
  });
  document.body.append(dialog);
  return { show };
}

function detailsOf(item) {
  const size = item.width && item.height ? `${item.width} × ${item.height}` : null;
  const rows = [
    ["Prompt", item.prompt, "text"], ["Why", item.why, "text"], ["Model", item.model], ["Price", priceOf(item)],
    ["State", item.isReused ? "Reused: the file already existed" : item.state === "done" && !item.hasFailed ? null : item.summary || stateOf(item)],
    ["Size", size], ["Task", item.task], ["File", item.path || item.name, "copy"], ["Job", item.job, "copy"],
    ["Regenerate", redoOf(item), "copy"],
  ];
  return rows.filter(([, value]) => value).flatMap(([name, value, how]) => {
    const text = el("span", {}, value);
    const node = el(how === "copy" ? "dd.code" : "dd", how === "text" ? { tabindex: "0" } : {}, text);
    if (how === "copy") node.append(copyButton(name, text));
    return [el("dt", {}, name), node];
  });
}

/** The command for a saved picture, but not for a path with control characters, which a terminal may obey. */
const redoOf = ({ path }) => path && !/\p{C}/u.test(path) && `airflow pictory redo '${path.replaceAll("'", "'\\''")}'`;

function copyButton(name, text) {
  const label = `Copy: ${name}`;
  const button = el("button.icon.small", { type: "button", "aria-label": label, title: label }, svg(SIGNS.copy));
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
    } catch { // a frame may be forbidden to write to the clipboard
      getSelection().selectAllChildren(text);
      if (!document.execCommand("copy")) return; // the user can
    }
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1500);
  });
  return button;
}
