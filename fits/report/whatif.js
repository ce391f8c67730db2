"use strict";
// Evaluates the fitted law at the sliders' N and D, as whatif.py hands it over in JSON: E + (sum of exp(c - n log N - d log D))^g, or a
// grid of log losses over log N and log D.
(function () {
  const { element, json, general, count } = page;
  const law = json("law-data");
  if (!law) return;
  const panel = element("whatif-panel");
  const FLOPS = 6; // per parameter and token

  function evaluate(row, logN, logD) {
    let sum = 0;
    for (let i = 2; i < row.length; i += 3) sum += Math.exp(row[i] - row[i + 1] * logN - row[i + 2] * logD);
    return row[0] + Math.pow(sum, row[1]);
  }

  function cubic(at, y) { // Catmull-Rom through y[0], y[1], ... at a place between them; straight on beyond the ends
    const i = Math.min(Math.max(Math.floor(at), 0), y.length - 2), t = at - i;
    const a = y[i - 1] ?? 2 * y[i] - y[i + 1], b = y[i], c = y[i + 1], d = y[i + 2] ?? 2 * y[i + 1] - y[i];
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
  }

  function interpolate(table, logN, logD) {
    const place = (name, log) => ((log / Math.LN2 - law.span[name][0]) / (law.span[name][1] - law.span[name][0])) * (table.length - 1);
    const d = place("tokens", logD);
    return Math.exp(cubic(place("params", logN), table.map((row) => cubic(d, row))));
  }

  const best = (logN, logD) => (law.rows ? evaluate(law.rows[0], logN, logD) : interpolate(law.grid.value, logN, logD));

  function ends(logN, logD, loss) { // the interval, or null for a fit without one
    if (law.grid) return law.grid.low ? [interpolate(law.grid.low, logN, logD), interpolate(law.grid.high, logN, logD)] : null;
    if (law.rows.length < 2) return null;
    const drawn = law.rows.slice(1).map((row, i) => loss * (evaluate(row, logN, logD) / loss) ** law.calibration * law.noise[i]).sort((a, b) => a - b);
    const tail = (1 - law.level) / 2;
    return [Math.min(quantile(drawn, tail), loss), Math.max(quantile(drawn, 1 - tail), loss)];
  }

  function quantile(sorted, q) { // as numpy's default
    const at = q * (sorted.length - 1), low = Math.floor(at);
    return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  }

  const times = (x) => (x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x.toFixed(2)) + "×";
  const signed = (x) => (x <= -5e-4 ? "−" : "+") + Math.abs(x).toFixed(3);

  function reach(values) { // the rule of fits.published.reach and of an open E: how far beyond the fitted ranges, and the words for it
    const said = [];
    let worst = 0;
    for (const [key, [low, high]] of Object.entries(law.range)) {
      if (!(key in values)) continue;
      const above = values[key] / high, below = low / values[key];
      if (key === "tokens_per_param" && high < law.tied * low && Math.max(above, below) > law.tied) {
        said.push("all runs have " + general(low) + " to " + general(high) + " tokens per parameter");
        worst = Infinity;
        continue;
      }
      worst = Math.max(worst, above);
      if (above > law.silent) said.push(key + " is " + times(above).slice(0, -1) + " times the fitted maximum " + count(high));
      if (below > law.silent) said.push(key + " is " + times(below).slice(0, -1) + " times below the fitted minimum " + count(low));
    }
    const open = law.open && law.range.flops ? values.flops / law.range.flops[1] : 0;
    if (open > 1) said.push("E is not identified");
    const refused = worst > law.refused || open > law.silent;
    return { refused: refused, said: said };
  }

  function update() {
    const logN = element("n").value * Math.LN2, logD = element("d").value * Math.LN2;
    const n = Math.exp(logN), d = Math.exp(logD), start = law.start;
    const loss = best(logN, logD);
    const before = best(Math.log(start.params), Math.log(start.tokens));
    const far = reach({ params: n, tokens: d, flops: FLOPS * n * d, tokens_per_param: d / n });
    const bounds = ends(logN, logD, loss);
    element("n-value").textContent = count(n);
    element("d-value").textContent = count(d);
    element("loss").textContent = loss.toFixed(3);
    element("interval").textContent = bounds ? "[" + bounds.map((v) => v.toFixed(3)).join(", ") + "]" : "no bootstrap";
    element("change").textContent = signed(loss - before);
    element("flops").textContent = general(FLOPS * n * d);
    element("ratio").textContent = times((n * d) / (start.params * start.tokens));
    element("per-param").textContent = (d / n).toPrecision(3);
    element("reach").textContent = !far.said.length ? ""
      : (far.refused ? "Refused: " : "Warning: ") + far.said.join("; ") + ".";
    panel.classList.toggle("refused", far.refused);
    panel.classList.toggle("warned", far.said.length > 0 && !far.refused);
  }

  function prepare(id, name) {
    const slider = element(id);
    [slider.min, slider.max] = law.span[name];
    slider.step = "any";
    slider.value = Math.log2(law.start[name]);
    slider.addEventListener("input", update);
  }

  prepare("n", "params");
  prepare("d", "tokens");
  for (const button of panel.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const slider = element(button.dataset.slider);
      slider.value = Number(slider.value) + Number(button.dataset.step);
      update();
    });
  }
  update();
})();
