"use strict";
// Order, filter and shorten the list of lines. Without this script the list is whole, worst lines first.
const list = document.getElementById("list");
const lines = [...list.children];
const order = document.getElementById("order");
const page = document.getElementById("page");
const all = document.getElementById("all");
const shown = document.getElementById("shown");
const first = Number(list.dataset.first);
const descending = { cer: true, confidence: false, order: false };

function refresh() {
  const key = order.value;
  const sign = descending[key] ? -1 : 1;
  lines.sort((a, b) => sign * (a.dataset[key] - b.dataset[key]) || a.dataset.order - b.dataset.order);
  list.append(...lines);
  const fitting = lines.filter((line) => !page.value || line.dataset.page === page.value);
  const limit = all.getAttribute("aria-pressed") === "true" ? fitting.length : first;
  const visible = new Set(fitting.slice(0, limit));
  for (const line of lines) line.hidden = !visible.has(line);
  shown.textContent = `${visible.size} of ${fitting.length} shown`;
  all.textContent = limit < fitting.length ? `Show all ${fitting.length}` : `Show the first ${first}`;
  all.hidden = fitting.length <= first;
}

function showTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target || !lines.includes(target) || !target.hidden) return;
  page.value = "";
  all.setAttribute("aria-pressed", "true");
  refresh();
  target.scrollIntoView();
}

order.addEventListener("change", refresh);
page.addEventListener("change", refresh);
all.addEventListener("click", () => {
  all.setAttribute("aria-pressed", String(all.getAttribute("aria-pressed") !== "true"));
  refresh();
});
for (const link of document.querySelectorAll("a[data-page], a[data-order]")) {
  link.addEventListener("click", () => {
    page.value = link.dataset.page ?? "";
    order.value = link.dataset.order ?? order.value;
    refresh();
  });
}
addEventListener("hashchange", showTarget);
document.querySelector(".tools").hidden = false;
refresh();
showTarget();
