"use strict";
// Empty values stand last in either order.
function compare(one, other, isAscending) {
  const [a, b] = [one, other].map((cell) => cell.dataset.value ?? cell.textContent);
  if (a === "" || b === "") return (a === "") - (b === "");
  const order = one.dataset.value === undefined ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return isAscending ? order : -order;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const isAscending = header.getAttribute("aria-sort") !== "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => compare(one.cells[column], other.cells[column], isAscending));
      table.tBodies[0].append(...rows);
    });
  });
}
// Without script all panels are there; with it the one that is chosen.
for (const chooser of document.querySelectorAll(".chooser")) {
  const select = chooser.querySelector("select");
  const panels = [...document.getElementById(select.dataset.panels).children];
  const show = () => panels.forEach((panel, place) => { panel.hidden = place !== select.selectedIndex; });
  select.addEventListener("change", show);
  chooser.hidden = false;
  show();
}
