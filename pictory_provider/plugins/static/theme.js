// SPDX-License-Identifier: Apache-2.0
// Copyright The pictory_provider authors
//
// Airflow's colours, light and dark, copied from the page that frames this one.

const TOKENS = ["bg", "bg-subtle", "bg-muted", "bg-emphasized", "bg-panel", "fg", "fg-muted", "border", "border-emphasized",
  "brand-solid", "brand-contrast", "brand-fg", "brand-subtle", "brand-muted", "brand-focus-ring", "success-solid", "failed-solid",
  "failed-fg", "failed-subtle", "deferred-solid", "running-solid", "up_for_reschedule-fg", "up_for_reschedule-subtle"];

function applyTheme() {
  let host = null;
  try {
    host = parent !== window ? parent.document.documentElement : null;
  } catch {
    // framed by another site, which the Content-Security-Policy forbids
  }
  const own = document.documentElement;
  const isDark = host ? host.classList.contains("dark") : matchMedia("(prefers-color-scheme: dark)").matches;
  own.classList.toggle("dark", isDark);
  own.classList.toggle("framed", host !== null);
  if (!host) return;
  const styles = parent.getComputedStyle(host);
  for (const token of TOKENS) {
    const value = styles.getPropertyValue(`--chakra-colors-${token}`).trim();
    if (value) own.style.setProperty(`--${token}`, value);
    else own.style.removeProperty(`--${token}`);
  }
}

/** Apply Airflow's colours, and again whenever they change. */
export function followTheme() {
  applyTheme();
  if (parent === window) return;
  try {
    new MutationObserver(applyTheme).observe(parent.document.documentElement, { attributes: true, attributeFilter: ["class", "data-theme", "style"] });
  } catch {
    // framed by another site
  }
}
