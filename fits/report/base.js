"use strict";
// What the page's scripts share: its elements, its runs (one JSON, columns by name), and numbers as words.py spells them.
const page = (function () {
  const element = (id) => document.getElementById(id);
  const json = (id) => (element(id) ? JSON.parse(element(id).textContent) : null);
  const FAR = { below: 1e-3, above: 9999.5 };

  function general(x) {
    if (x === 0 || (Math.abs(x) >= FAR.below && Math.abs(x) < FAR.above)) return x.toPrecision(4);
    const [mantissa, exponent] = x.toExponential(2).split("e");
    return mantissa + "e" + Number(exponent);
  }

  function count(x) {
    if (x < 1000) return String(Number(x.toPrecision(4)));
    if (x < FAR.above) return x.toFixed(0).replace(/^(\d)/, "$1,");
    for (const [power, letter] of [[3, "k"], [6, "M"], [9, "B"], [12, "T"]]) {
      if (x < 0.9995 * Math.pow(10, power + 3)) {
        const scaled = x / Math.pow(10, power);
        return scaled.toFixed(scaled < 9.995 ? 2 : scaled < 99.95 ? 1 : 0) + " " + letter;
      }
    }
    return general(x);
  }

  function columns(data) { // each with value(row), and same where all rows have one value
    return (data ? data.columns : []).map((column) => ({
      ...column,
      same: "same" in column,
      value: "same" in column ? () => column.same
        : column.words ? (i) => (column.values[i] < 0 ? null : column.words[column.values[i]])
        : (i) => column.values[i],
    }));
  }

  function cell(value) { // as it is shown, never as HTML
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
    return Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < FAR.below) ? general(value) : String(Number(value.toPrecision(6)));
  }

  const runs = json("runs-data");
  return { element, json, general, count, cell, runs, columns: columns(runs) };
})();
