// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The entry point. The page's URL decides what it shows: a run, a task, a DAG, or the newest runs of all DAGs.
import { accounts } from "./accounts.js";
import { CONFIG, HttpError, ROOT, learnClasses } from "./airflow.js";
import { body, errorMessage, header, isDenied, main, pager, skeleton } from "./frame.js";
import { isSavedFile } from "./items.js";
import { enlarge } from "./lightbox.js";
import { ago, arrange, el, set } from "./parts.js";
import { runs } from "./runs.js";
import { sheet } from "./sheet.js";
import { followTheme } from "./theme.js";

const POLL = 3_000, POLL_LATER = 10_000, POLL_HIDDEN = 30_000;

function viewOf(path) {
  const [kind, ...parts] = path.slice(ROOT.length).split("/");
  const ids = parts.map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part; // Airflow 3.1 does not encode ids
    }
  });
  if (kind === "run") return { draw: sheet, scope: { dag: ids[0], run: ids[1] } };
  if (kind === "dag") return { draw: runs, scope: { dag: ids[0] } };
  if (kind === "task") {
    const map = /^\d+$/.test(ids[3]) ? Number(ids[3]) : undefined; // for an unmapped task Airflow leaves `{MAP_INDEX}` here
    return { draw: sheet, scope: { dag: ids[0], run: ids[1], task: ids[2], map } };
  }
  return { draw: runs, scope: {}, isNewest: true };
}

const view = viewOf(location.pathname);
let drawing = null;
let timer = null;

/** Load and show everything once; calls run one after another. */
function refresh() {
  drawing = (drawing || Promise.resolve(true)).then(async () => {
    try {
      const isRunning = await view.draw(view.scope, refresh);
      main.removeAttribute("aria-busy");
      return isRunning;
    } catch (error) {
      main.removeAttribute("aria-busy");
      if (isDenied(error) || !body.querySelector(".card:not(.skeleton)")) {
        arrange(body, [errorMessage(error)]);
        pager.replaceChildren();
        delete pager.dataset.signature;
      }
      if (!(error instanceof HttpError)) console.error(error);
      return !isDenied(error);
    }
  });
  return drawing;
}

/** Refresh repeatedly, until the run has ended. */
async function follow() {
  clearTimeout(timer);
  const isRunning = await refresh();
  clearTimeout(timer);
  timer = isRunning ? setTimeout(follow, document.hidden ? POLL_HIDDEN : isRunning === "later" ? POLL_LATER : POLL) : null;
}

/** Show the error that the server returned instead of this page. */
function showRefusal({ status, detail }) {
  arrange(body, [errorMessage(new HttpError(status, detail))]);
  main.removeAttribute("aria-busy");
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !CONFIG.refused) follow();
});

setInterval(() => {
  if (!document.hidden) for (const node of document.querySelectorAll("[data-since]")) set(node, ago(Number(node.dataset.since)));
}, 1000);

let checkTimer = null;

// A saved picture fails to load if the user has been signed out: a new request to Airflow shows whether that is so.
document.addEventListener("error", ({ target }) => {
  const isOurs = target instanceof HTMLImageElement && isSavedFile(new URL(target.src).pathname);
  if (!isOurs || checkTimer !== null) return;
  checkTimer = setTimeout(() => {
    checkTimer = null;
    follow();
  }, 500);
}, true);

main.addEventListener("click", (event) => {
  const opener = event.target.closest(".open");
  if (opener) enlarge(opener.dataset.key);
});

followTheme();
main.classList.add(view.draw === sheet ? "sheet" : "runs");
main.replaceChildren(el("h1.unseen", {}, "Pictures"), header, body, pager);
skeleton();
if (CONFIG.refused) showRefusal(CONFIG.refused);
else Promise.all([view.isNewest ? accounts() : null, view.scope.dag ? learnClasses(view.scope.dag) : null]).then(follow);
