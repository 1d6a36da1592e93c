// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// Elements and texts. All data may come from strangers, so it enters the page only as text, never as markup.

/** Create an element. Children are nodes or texts; markup cannot be passed. */
export function el(name, properties = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(path, className) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", "aria-hidden": "true", class: className })) node.setAttribute(key, value);
  shape.setAttribute("d", path);
  node.append(shape);
  return node;
}

export const SIGNS = {
  failed: "M12 8v5m0 3h.01M12 3 2.5 20h19z",
  gone: "m3 3 18 18M10 5h9a2 2 0 0 1 2 2v9M5 5a2 2 0 0 0-2 2v10a2 2 0 0 0 2 2h12M3 16l5-5 8 8",
  close: "M6 6l12 12M18 6 6 18", back: "m14 6-6 6 6 6", on: "m10 6 6 6-6 6",
  copy: "M9 9h10v10H9zM5 15V5h10", picture: "M4 5h16v14H4zM4 16l5-5 8 8M15 9h.01",
};

export function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const amount = (credits) => (Math.round(credits * 100) / 100).toLocaleString("en", { maximumFractionDigits: 2 });
export const inCredits = (credits) => `${amount(credits)} ${credits === 1 ? "credit" : "credits"}`;

export function ago(since) {
  const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function moment(text) {
  const options = { dateStyle: "medium", timeStyle: "short" };
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return "";
  try {
    const zone = (localStorage.getItem("timezone") || "").replaceAll('"', "");
    return date.toLocaleString(undefined, { ...options, ...(zone && zone !== "local" ? { timeZone: zone } : {}) });
  } catch {
    return date.toLocaleString(undefined, options);
  }
}

/** Arrange the children of an element, and change only what differs. */
export function arrange(parent, nodes) {
  const wanted = new Set(nodes);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  nodes.forEach((node, at) => {
    if (parent.children[at] !== node) parent.insertBefore(node, parent.children[at] || null);
  });
}
