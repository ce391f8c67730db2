"use strict";
// Fits the law again, here, to the runs of the table: refit.py hands over the form, the objective and which rows, never the answer.
// L = E + (sum of exp(c - sum of exponents times log column))^g; columns over their geometric means; Newton's method, damped, from the
// best of a grid of starts.
(function () {
  const { element, json, columns, general } = page;
  const data = json("refit-data");
  if (!data) return;
  const POLISHED = 6, STEPS = 200, STEP = 1e-5, THIN = 300, OFFSETS = [0, 0.3, 0.55, 0.75, 0.9, 0.97], FLOOR = 1e-3;
  const SOFTER = [1e3, 30, 1]; // times Huber's threshold: a wide one first, whose minimum is easy to find
  const k = data.parameters.length;
  const index = new Map(data.parameters.map((q, i) => [q.name, i]));

  function points() {
    const known = new Map(columns.map((column) => [column.name, column.value]));
    const y = data.rows.map(known.get("loss"));
    const x = {}, middle = {};
    for (const [name, from] of Object.entries(data.columns)) {
      const value = from.length > 1 ? (i) => from.reduce((all, one) => all * known.get(one)(i), data.flops) : known.get(from[0]);
      const logs = data.rows.map((i) => Math.log(value(i)));
      middle[name] = logs.reduce((a, b) => a + b, 0) / logs.length;
      x[name] = logs.map((v) => v - middle[name]);
    }
    return { x, y, middle };
  }

  const terms = data.terms.map((term) => ({ c: index.get(term.name), powers: term.powers.map(([column, e, weight]) => [column, index.get(e), weight]) }));
  const offset = data.offset === null ? -1 : index.get(data.offset), outer = data.outer === null ? -1 : index.get(data.outer);
  const logTerm = (z, term, x, i) => term.powers.reduce((sum, [column, e, weight]) => sum - weight * z[e] * x[column][i], z[term.c]);

  function penalty(r, softer) { // its value and its slope
    if (data.delta === null) return [r * r, 2 * r];
    const delta = data.delta * softer, slope = Math.min(Math.max(r, -delta), delta);
    return [slope * (r - slope / 2), slope];
  }

  function evaluate(z, { x, y }, softer) { // the summed objective and its gradient
    let sum = 0;
    const gradient = new Float64Array(k), metric = new Float64Array(k), slopes = new Float64Array(k);
    for (let i = 0; i < y.length; i++) {
      const each = terms.map((term) => Math.exp(logTerm(z, term, x, i))), total = each.reduce((a, b) => a + b, 0);
      const power = outer < 0 ? total : Math.pow(total, z[outer]), gain = outer < 0 ? 1 : (z[outer] * power) / total;
      const level = power + (offset < 0 ? 0 : z[offset]);
      slopes.fill(0);
      if (offset >= 0) slopes[offset] = 1;
      if (outer >= 0) slopes[outer] = power * Math.log(total);
      terms.forEach((term, t) => {
        slopes[term.c] += gain * each[t];
        for (const [column, e, weight] of term.powers) slopes[e] -= gain * each[t] * weight * x[column][i];
      });
      const [value, slope] = penalty(data.log ? Math.log(level / y[i]) : level - y[i], softer);
      sum += value;
      for (let j = 0; j < k; j++) {
        const s = data.log ? slopes[j] / level : slopes[j];
        gradient[j] += slope * s;
        metric[j] += s * s;
      }
    }
    return { sum, gradient, metric };
  }

  function solve(a, b) { // a x = b by Cholesky; null where a is not positive definite
    const n = b.length, l = a.map((row) => Float64Array.from(row)), x = Float64Array.from(b);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j <= i; j++) {
        let s = l[i][j];
        for (let m = 0; m < j; m++) s -= l[i][m] * l[j][m];
        if (i === j && !(s > 0)) return null;
        l[i][j] = i === j ? Math.sqrt(s) : s / l[j][j];
      }
    }
    for (let i = 0; i < n; i++) {
      for (let m = 0; m < i; m++) x[i] -= l[i][m] * x[m];
      x[i] /= l[i][i];
    }
    for (let i = n - 1; i >= 0; i--) {
      for (let m = i + 1; m < n; m++) x[i] -= l[m][i] * x[m];
      x[i] /= l[i][i];
    }
    return x;
  }

  function hessian(z, at, softer, free) { // central differences of the gradient, which is exact
    const rows = free.map((j) => {
      const [up, down] = [STEP, -STEP].map((h) => evaluate(z.map((v, m) => (m === j ? v + h : v)), at, softer).gradient);
      return free.map((m) => (up[m] - down[m]) / (2 * STEP));
    });
    return rows.map((row, i) => row.map((v, j) => (v + rows[j][i]) / 2));
  }

  function minimise(z, at, softer) {
    const clip = (v, j) => Math.min(Math.max(v, data.parameters[j].low ?? -Infinity), data.parameters[j].high ?? Infinity);
    let now = evaluate(z, at, softer), damping = 1e-3;
    for (let step = 0; step < STEPS; step++) {
      const free = [...z.keys()].filter((j) => !("held" in data.parameters[j]) && clip(z[j] - 1e-9 * Math.sign(now.gradient[j]), j) !== z[j]);
      const h = hessian(z, at, softer, free);
      let next = null, moved = null;
      while (damping < 1e12) {
        const a = h.map((row, i) => row.map((v, j) => v + (i === j ? damping * (now.metric[free[i]] + 1e-12) : 0)));
        const d = solve(a, free.map((j) => -now.gradient[j]));
        moved = d && z.map((v, j) => (free.includes(j) ? clip(v + d[free.indexOf(j)], j) : v));
        next = moved && evaluate(moved, at, softer);
        if (next && next.sum <= now.sum) break;
        damping *= 8;
      }
      if (damping >= 1e12 || !next) break;
      const gained = now.sum - next.sum;
      [z, now] = [moved, next];
      damping = Math.max(damping / 8, 1e-14);
      if (gained <= 1e-15 * now.sum && step > 3) break;
    }
    return { z, sum: now.sum };
  }

  function product(lists) {
    return lists.reduce((all, list) => all.flatMap((head) => list.map((v) => [...head, v])), [[]]);
  }

  function starts(at) { // coefficients by least squares for every E and exponent of the grid
    const every = Math.max(1, Math.floor(at.y.length / THIN)), kept = [...at.y.keys()].filter((i) => i % every === 0);
    const few = { y: kept.map((i) => at.y[i]), x: Object.fromEntries(Object.entries(at.x).map(([name, v]) => [name, kept.map((i) => v[i])])) };
    const lowest = Math.min(...few.y), searched = data.parameters.filter((q) => q.grid.length);
    const found = [];
    for (const share of offset < 0 ? [0] : OFFSETS) {
      for (const values of product(searched.map((q) => q.grid))) {
        const z = new Array(k).fill(0);
        searched.forEach((q, i) => { z[index.get(q.name)] = q.held ?? values[i]; });
        if (offset >= 0) z[offset] = data.parameters[offset].held ?? share * lowest;
        const inverse = outer < 0 ? 1 : 1 / z[outer];
        const goal = few.y.map((v) => Math.pow(Math.max(v - (offset < 0 ? 0 : z[offset]), 1e-12), inverse));
        const shape = terms.map((term) => goal.map((_, i) => Math.exp(logTerm(z, term, few.x, i)) / goal[i]));
        const normal = shape.map((a, s) => shape.map((b, t) => a.reduce((sum, v, i) => sum + v * b[i], 0) * (s === t ? 1 + 1e-9 : 1)));
        const scale = solve(normal, shape.map((a) => a.reduce((sum, v) => sum + v, 0)));
        if (!scale) continue;
        const least = FLOOR * Math.pow(lowest, inverse);
        terms.forEach((term, t) => { z[term.c] = data.parameters[term.c].held ?? Math.log(Math.max(scale[t], least)); });
        found.push({ z, sum: evaluate(z, few, SOFTER[0]).sum });
      }
    }
    return found.filter((one) => Number.isFinite(one.sum)).sort((a, b) => a.sum - b.sum).slice(0, 8 * POLISHED).filter((_, i) => i % 8 === 0 || i < 2);
  }

  function own(z, middle) { // the law's own parameters
    return Object.fromEntries(data.parameters.map((q, i) => {
      const term = terms.find((one) => one.c === i);
      if (!term) return [q.name, z[i]];
      return [q.name, Math.exp(term.powers.reduce((sum, [column, e, weight]) => sum + weight * z[e] * middle[column], z[i]))];
    }));
  }

  page.refit = () => {
    const at = points();
    const ends = starts(at).map((one) => SOFTER.reduce((from, softer) => minimise(from.z, at, softer), one)).sort((a, b) => a.sum - b.sum);
    const agree = ends.filter((one) => one.sum <= ends[0].sum * (1 + 1e-6)).length;
    return { params: own(ends[0].z, at.middle), objective: ends[0].sum, tried: ends.length, agree, n: at.y.length };
  };

  element("refit").addEventListener("click", () => {
    const said = element("refit-said"), began = performance.now();
    const found = page.refit();
    for (const [name, value] of Object.entries({ ...found.params, objective: found.objective })) {
      const cell = document.querySelector('[data-refit="' + CSS.escape(name) + '"]');
      const stated = data.stated[name], off = Math.abs(value / stated - 1);
      cell.textContent = general(value) + (stated ? (off < 1e-12 ? " (same)" : " (" + off.toExponential(0).replace("-", "−") + " off)") : "");
    }
    said.textContent = "Fitted again to " + found.n + " runs, from " + found.tried + " starts of which " + found.agree
      + " agree, in " + Math.round(performance.now() - began) + " ms.";
  });
})();
