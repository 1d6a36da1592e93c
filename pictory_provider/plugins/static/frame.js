// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// What stands on every page: one of each, kept, so that nothing is drawn anew while a run goes on.
import { Trouble } from "./airflow.js";
import { SIGNS, el, svg } from "./parts.js";

export const main = document.getElementById("main");
export const header = el("header.top");
export const body = el("div.body");
export const pager = el("nav.pager", { "aria-label": "Pages of pictures" });

export const HOW = "A task of GenerateImageOperator, @task.pictory_image or GenerateImageBatchOperator makes one appear as soon as " +
  "Pictory has accepted it; PictoryJobSensor and DownloadImageOperator show theirs when they end.";

export function message(title, ...texts) {
  return el("section.message", {}, svg(SIGNS.picture), el("h2", {}, title), ...texts.map((text) => el("p", {}, text)));
}

export function troubled(error) {
  if (error instanceof Trouble && error.status === 403) {
    return message("You may not see these pictures", "They lie in the XComs of a DAG that your role may not read. An administrator can change that.");
  }
  if (error instanceof Trouble && error.status === 401) {
    return message("You are signed out", "Reload Airflow's page to sign in again.");
  }
  return message("Airflow does not answer", "The page asks again by itself.");
}

export const isTurnedAway = (error) => error instanceof Trouble && [401, 403].includes(error.status);

export function skeleton() {
  const boxes = Array.from({ length: 6 }, () => el("li.card.skeleton", {}, el("div.shot"), el("p.prompt"), el("p.facts")));
  body.replaceChildren(el("ul.grid", { "aria-hidden": "true" }, ...boxes));
}
