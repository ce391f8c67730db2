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

  function draws(member, logN, logD) { // what each refit says, calibrated about its fit, with the noise of a run
    const loss = evaluate(member.rows[0], logN, logD);
    return member.rows.slice(1).map((row, i) => loss * (evaluate(row, logN, logD) / loss) ** member.calibration * member.noise[i]);
  }

  function band(logN, logD) { // [value, low, high]; without refits the value alone
    if (law.grid) return ["value", "low", "high"].filter((name) => law.grid[name]).map((name) => interpolate(law.grid[name], logN, logD));
    const heap = [law, ...(law.more || [])].flatMap((member) => draws(member, logN, logD)).sort((a, b) => a - b);
    const tail = (1 - law.level) / 2, ends = heap.length ? [quantile(heap, tail), quantile(heap, 1 - tail)] : [];
    if (law.more) return [quantile(heap, 0.5), ...ends];
    const loss = evaluate(law.rows[0], logN, logD);
    return ends.length ? [loss, Math.min(ends[0], loss), Math.max(ends[1], loss)] : [loss];
  }

  page.whatif = band;

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

  const log2 = (id) => Number(element(id).value);

  function update() {
    const logN = log2("n") * Math.LN2, logD = log2("d") * Math.LN2, start = law.start;
    const n = Math.exp(logN), d = Math.exp(logD), batch = 2 ** log2("b");
    const [loss, ...bounds] = band(logN, logD);
    const [before] = band(Math.log(start.params), Math.log(start.tokens));
    const far = reach({ params: n, tokens: d, flops: FLOPS * n * d, tokens_per_param: d / n });
    element("c").value = Math.log2(FLOPS * n * d);
    const said = {
      "n-value": count(n), "d-value": count(d), "c-value": general(FLOPS * n * d), "b-value": count(batch),
      loss: loss.toFixed(3), interval: bounds.length ? "[" + bounds.map((v) => v.toFixed(3)).join(", ") + "]" : "no bootstrap",
      change: signed(loss - before), ratio: times((n * d) / (start.params * start.tokens)), "per-param": (d / n).toPrecision(3),
      steps: count(Math.ceil(d / batch)), hours: hours(FLOPS * n * d),
      reach: !far.said.length ? "" : (far.refused ? "Refused: " : "Warning: ") + far.said.join("; ") + ".",
    };
    for (const [id, text] of Object.entries(said)) element(id).textContent = text;
    for (const id of ["n", "d", "c", "b"]) element(id).setAttribute("aria-valuetext", said[id + "-value"] + " " + UNITS[id]);
    panel.classList.toggle("refused", far.refused);
    panel.classList.toggle("warned", far.said.length > 0 && !far.refused);
  }

  const UNITS = { n: "parameters", d: "tokens", c: "FLOP", b: "tokens a step" };

  function hours(flops) { // on the devices at that share of their peak
    const gpus = Number(element("gpus").value), mfu = Number(element("mfu").value) / 100;
    if (!(gpus >= 1 && mfu > 0 && mfu <= 1)) return "–";
    return general(flops / (gpus * law.peaks[element("device").value] * mfu) / 3600);
  }

  function prepare(id, span, value) {
    const slider = element(id);
    [slider.min, slider.max] = span;
    slider.step = "any";
    slider.value = Math.log2(value);
  }

  function compute() { // N and D along their present ratio
    const half = (log2("c") - Math.log2(FLOPS) - log2("n") - log2("d")) / 2;
    for (const id of ["n", "d"]) element(id).value = log2(id) + half;
    update();
  }

  const start = law.start, both = (end) => Math.log2(FLOPS) + law.span.params[end] + law.span.tokens[end];
  prepare("n", law.span.params, start.params);
  prepare("d", law.span.tokens, start.tokens);
  prepare("c", [both(0), both(1)], FLOPS * start.params * start.tokens);
  prepare("b", [Math.log2(start.batch) - 6, Math.log2(start.batch) + 6], start.batch);
  for (const id of ["n", "d", "b", "gpus", "mfu", "device"]) element(id).addEventListener("input", update);
  element("c").addEventListener("input", compute);
  for (const button of panel.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const slider = element(button.dataset.slider);
      slider.value = Number(slider.value) + Number(button.dataset.step);
      slider.dispatchEvent(new Event("input"));
    });
  }
  update();
})();
