"use strict";
// The table of all runs: sorted by a click on a column's name, filtered, downloaded as CSV.
(function () {
  const { element, runs, columns, cell } = page;
  if (!runs) return;
  const SHOWN = 100; // rows at a time
  const head = element("table-head"), body = element("table-body"), told = element("table-told"), box = element("table-filter");
  const shown = columns.filter((column) => !column.same);
  const known = new Map(columns.map((column) => [column.name.toLowerCase(), column]));
  let order = [...Array(runs.n).keys()], sorted = { column: null, down: false }, from = 0;

  const COMPARE = {
    "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b, "<=": (a, b) => a <= b, ">": (a, b) => a > b, ">=": (a, b) => a >= b,
  };

  function condition(word) { // width=64, loss<3.2, or text that any cell holds
    const parts = word.match(/^([^<>=!]+)(<=|>=|!=|=|<|>)(.*)$/);
    if (!parts) return (i) => columns.some((column) => String(column.value(i) ?? "").toLowerCase().includes(word));
    const column = known.get(parts[1]), compare = COMPARE[parts[2]];
    if (!column) throw new Error("no column " + parts[1]);
    const wanted = parts[3].trim() === "" || isNaN(parts[3]) ? parts[3] : Number(parts[3]);
    return (i) => {
      const value = column.value(i);
      if (value === null) return wanted === "" && parts[2] === "=";
      return typeof value === "number" ? compare(value, wanted) : compare(String(value).toLowerCase(), String(parts[3]));
    };
  }

  function choose() { // the rows that the filter keeps, in the order asked for
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    let said = "";
    try {
      const all = words.map(condition);
      order = [...Array(runs.n).keys()].filter((i) => all.every((holds) => holds(i)));
    } catch (error) {
      said = "; " + error.message;
    }
    if (sorted.column) order.sort((a, b) => compared(sorted.column.value(a), sorted.column.value(b)) * (sorted.down ? -1 : 1) || a - b);
    from = 0;
    draw(said);
  }

  function compared(a, b) { // missing ones last, whichever way
    if (a === null || b === null) return a === b ? 0 : ((a === null) !== sorted.down ? 1 : -1);
    return a < b ? -1 : a > b ? 1 : 0;
  }

  function draw(said) {
    const rows = order.slice(from, from + SHOWN).map((i) => {
      const row = document.createElement("tr");
      shown.forEach((column, k) => {
        const one = document.createElement(k ? "td" : "th");
        if (!k) one.scope = "row";
        if (column.number) one.className = "n";
        one.textContent = cell(column.value(i));
        row.append(one);
      });
      return row;
    });
    body.replaceChildren(...rows);
    const span = order.length > SHOWN ? ", shown " + (from + 1) + " to " + Math.min(from + SHOWN, order.length) : "";
    told.textContent = order.length + " of " + runs.n + " runs" + span + said;
    element("table-back").disabled = from === 0;
    element("table-on").disabled = from + SHOWN >= order.length;
    for (const [k, name] of [...head.children].entries()) {
      const now = shown[k] === sorted.column;
      name.setAttribute("aria-sort", now ? (sorted.down ? "descending" : "ascending") : "none");
    }
  }

  function quoted(value) { // as ground.text.cell: no spreadsheet takes it for a formula
    if (value === null) return "";
    if (typeof value === "number") return String(value);
    let text = String(value);
    if ((/^\s*[=+\-@]/.test(text) || /^[\t\r\n]/.test(text)) && (text.trim() === "" || isNaN(text))) text = "'" + text;
    return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
  }

  function download() {
    const lines = [columns.map((column) => quoted(column.name)), ...order.map((i) => columns.map((column) => quoted(column.value(i))))];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.map((line) => line.join(",")).join("\n") + "\n"], { type: "text/csv" }));
    link.download = "runs.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  for (const column of shown) {
    const name = document.createElement("th"), button = document.createElement("button");
    name.scope = "col";
    if (column.number) name.className = "n";
    button.type = "button";
    button.textContent = column.name;
    if (column.unit) button.title = column.unit;
    button.addEventListener("click", () => {
      sorted = { column, down: sorted.column === column && !sorted.down };
      choose();
    });
    name.append(button);
    head.append(name);
  }
  page.find = (text) => { // what a point in a figure asks for
    box.value = text;
    choose();
    element("all-runs").scrollIntoView();
  };
  box.addEventListener("input", choose);
  element("table-download").addEventListener("click", download);
  element("table-back").addEventListener("click", () => { from -= SHOWN; draw(""); });
  element("table-on").addEventListener("click", () => { from += SHOWN; draw(""); });
  choose();
})();
