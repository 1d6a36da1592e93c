// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// The elements of every page. They are created once and updated, so that a page does not flicker while a run goes on.
import { SIGN_IN, HttpError } from "./airflow.js";
import { SIGNS, el, svg } from "./parts.js";

export const main = document.getElementById("main");
export const header = el("header.top");
export const body = el("div.body");
export const pager = el("nav.pager", { "aria-label": "Pages of pictures" });

export const HINT = "Pictures of GenerateImageOperator, @task.pictory_image and GenerateImageBatchOperator appear as soon as Pictory has " +
  "accepted the request; those of PictoryJobSensor and DownloadImageOperator when the task ends.";

export function message(title, ...texts) {
  return el("section.message", {}, svg(SIGNS.picture), el("h2", {}, title), ...texts.map((text) => el("p", {}, text)));
}

export function errorMessage(error) {
  if (!(error instanceof HttpError)) return message("Airflow does not answer", "This page tries again automatically.");
  const details = `Airflow says: ${[error.status, error.detail].filter(Boolean).join(" ")}`;
  if (error.isSignedOut) return signedOut(details);
  if (error.status === 403) {
    return message("You may not see these pictures",
      "Your role has to read their DAG, its runs, its task instances and its XComs. An administrator can change that.", details);
  }
  if ([404, 405].includes(error.status)) return message("There is no such page", "The address may belong to another release.", details);
  return message("Airflow does not answer", "This page tries again automatically.", details);
}

/** Inside Airflow's UI, reloading that leads to the sign-in. */
function signedOut(details) {
  const isFramed = parent !== window;
  const action = isFramed
    ? el("button.page", { type: "button", onclick: () => parent.location.reload() }, "Reload Airflow's page")
    : el("a.page", { href: SIGN_IN }, "Sign in");
  const node = message("You are signed out", isFramed ? "Reload Airflow's page to sign in again." : "Sign in to Airflow again.", details);
  node.append(action);
  return node;
}

export const isDenied = (error) => error instanceof HttpError && [401, 403].includes(error.status);

export function skeleton() {
  const boxes = Array.from({ length: 6 }, () => el("li.card.skeleton", {}, el("div.shot"), el("p.prompt"), el("p.facts")));
  body.replaceChildren(el("ul.grid", { "aria-hidden": "true" }, ...boxes));
}
