"use strict";
// Adds what the page can do without: sorting, and a count of the scans shown.
const collator = new Intl.Collator("en", { numeric: true });
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent.trim();
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) => collator.compare(value(a), value(b)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows);
    });
  });
}
const count = document.querySelector(".count");
if (count) {
  const scans = [...document.querySelectorAll(".scan")];
  const tell = () => {
    const shown = scans.filter((scan) => getComputedStyle(scan).display !== "none").length;
    count.textContent = `${shown} of ${scans.length} scans shown`;
  };
  document.querySelector(".controls").addEventListener("change", tell);
  tell();
}
