// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The pictures of a run, of a task, of a DAG, or the newest of all: which of them, its own address says.
import { accounts } from "./accounts.js";
import { ROOT, Trouble, learnClasses } from "./airflow.js";
import { body, header, isTurnedAway, main, pager, skeleton, troubled } from "./frame.js";
import { enlarge } from "./lightbox.js";
import { ago, arrange, el, set } from "./parts.js";
import { runs } from "./runs.js";
import { sheet } from "./sheet.js";
import { dress } from "./theme.js";

const POLL = 3_000, POLL_HIDDEN = 30_000;

function viewOf(path) {
  const [kind, ...parts] = path.slice(ROOT.length).split("/");
  const ids = parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // Airflow 3.1 does not encode what it puts in
    }
  });
  if (kind === "run") return { draw: sheet, scope: { dag: ids[0], run: ids[1] } };
  if (kind === "dag") return { draw: runs, scope: { dag: ids[0] } };
  if (kind === "task") {
    const map = /^\d+$/.test(ids[3]) ? Number(ids[3]) : undefined; // unmapped tasks have `{MAP_INDEX}` there
    return { draw: sheet, scope: { dag: ids[0], run: ids[1], task: ids[2], map } };
  }
  return { draw: runs, scope: {}, isNewest: true };
}

const view = viewOf(location.pathname);
let drawing = null;
let timer = null;

/** Ask and draw once; one at a time. */
function refresh() {
  drawing = (drawing || Promise.resolve(true)).then(async () => {
    try {
      const isGoing = await view.draw(view.scope, refresh);
      main.removeAttribute("aria-busy");
      return isGoing;
    } catch (error) {
      main.removeAttribute("aria-busy");
      if (isTurnedAway(error) || !body.querySelector(".card:not(.skeleton)")) {
        arrange(body, [troubled(error)]);
        pager.replaceChildren();
        delete pager.dataset.looks;
      }
      if (!(error instanceof Trouble)) console.error(error);
      return !isTurnedAway(error);
    }
  });
  return drawing;
}

/** Follow a run quietly, and stop when it has ended. */
async function follow() {
  clearTimeout(timer);
  const isGoing = await refresh();
  clearTimeout(timer);
  timer = isGoing ? setTimeout(follow, document.hidden ? POLL_HIDDEN : POLL) : null;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) follow();
});

setInterval(() => {
  if (!document.hidden) for (const node of document.querySelectorAll("[data-since]")) set(node, ago(Number(node.dataset.since)));
}, 1000);

main.addEventListener("click", (event) => {
  const opener = event.target.closest(".open");
  if (opener) enlarge(opener.dataset.key);
});

dress();
main.classList.add(view.draw === sheet ? "sheet" : "runs");
main.replaceChildren(el("h1.unseen", {}, "Pictures"), header, body, pager);
skeleton();
Promise.all([view.isNewest ? accounts() : null, view.scope.dag ? learnClasses(view.scope.dag) : null]).then(follow);
