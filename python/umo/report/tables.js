// Sorting by a column's head, and one search for tables and lanes.

function cellValue(row, column) {
    const cell = row.cells[column];
    const value = cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
    return value !== "" && !Number.isNaN(Number(value)) ? Number(value) : value.toLowerCase();
}

function sortBy(table, column, button) {
    const head = button.closest("th");
    const up = head.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [cellValue(row, column), row]);
    rows.sort(([a], [b]) => {
        const order = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
        return up ? order : -order;
    });
    body.append(...rows.map(([, row]) => row));
}

function makeTables() {
    for (const table of document.querySelectorAll("table")) {
        table.querySelectorAll("thead button").forEach((button, column) => {
            button.addEventListener("click", () => sortBy(table, column, button));
        });
    }
}

function makeSearch(timeline) {
    const field = document.getElementById("search");
    const said = document.getElementById("found");
    const rows = [...document.querySelectorAll(".row")];
    const texts = rows.map((row) => row.textContent.toLowerCase());
    field.addEventListener("input", () => {
        const wanted = field.value.trim().toLowerCase();
        let count = 0;
        rows.forEach((row, i) => {
            row.hidden = wanted !== "" && !texts[i].includes(wanted);
            count += row.hidden ? 0 : 1;
        });
        timeline.filter = wanted;
        timeline.layout();
        timeline.view.changed();
        const lanes = timeline.items.filter((item) => item.lane !== undefined).length;
        said.textContent = wanted ? `${count} rows, ${lanes} lanes` : "";
    });
    document.addEventListener("keydown", (event) => {
        if (event.key === "/" && !/INPUT|TEXTAREA/.test(document.activeElement.tagName)) {
            event.preventDefault();
            field.focus();
        } else if (event.key === "Escape" && document.activeElement === field) {
            field.value = "";
            field.dispatchEvent(new Event("input"));
        }
    });
}
