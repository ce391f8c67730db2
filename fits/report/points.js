"use strict";
// A point in a figure names its runs: under the pointer, and by the arrow keys while the figure has the focus. Where the points are stands
// in data-points: "run,run:x:y" in the svg's own units, apart by ";".
(function () {
  const { element, runs, columns, cell } = page;
  if (!runs) return;
  const NEAR = 14; // pixels
  const SAID = ["study", "parametrization", "params", "tokens", "width", "depth", "batch_tokens", "steps", "lr", "weight_decay", "pruning", "prune_pattern", "sparsity", "prune_start", "prune_end", "experts", "loss", "status"];
  const known = new Map(columns.map((column) => [column.name, column]));

  function name(i) {
    const id = known.get("run_id");
    return id && id.value(i) !== null ? String(id.value(i)) : "row " + i;
  }

  function words(all) {
    const said = SAID.filter((key) => known.has(key) && (key === "loss" || !known.get(key).same)).map((key) => [key, known.get(key).value(all[0]), known.get(key).unit])
      .filter(([, value]) => value !== null)
      .map(([key, value, unit]) => key + " " + cell(value) + (key === "loss" && unit ? " " + unit : ""));
    return name(all[0]) + (all.length > 1 ? " and " + (all.length - 1) + " more" : "") + ": " + said.join(", ");
  }

  function prepare(svg) {
    const figure = svg.closest("figure"), tip = figure.querySelector(".tip");
    const points = svg.dataset.points.split(";").map((text) => {
      const [all, x, y] = text.split(":");
      return { runs: all.split(",").map(Number), x: Number(x), y: Number(y) };
    }).sort((a, b) => a.x - b.x || a.y - b.y);
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.setAttribute("r", 7);
    ring.setAttribute("class", "ring");
    let at = -1;

    function show(i) {
      at = i;
      if (i < 0) {
        ring.remove();
        tip.textContent = "";
        return;
      }
      ring.setAttribute("cx", points[i].x);
      ring.setAttribute("cy", points[i].y);
      svg.append(ring);
      tip.textContent = words(points[i].runs);
      const box = svg.viewBox.baseVal;
      tip.style.left = Math.min(100 * points[i].x / box.width, 40) + "%";
      tip.style.top = 100 * points[i].y / box.height + 4 + "%";
    }

    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
      const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
      let best = -1, least = NEAR * scale;
      points.forEach((point, i) => {
        const far = Math.hypot(point.x - x, point.y - y);
        if (far < least) [best, least] = [i, far];
      });
      if (best !== at) show(best);
    });
    svg.addEventListener("pointerleave", () => show(-1));
    svg.addEventListener("click", () => at >= 0 && known.has("run_id") && page.find("run_id=" + name(points[at].runs[0])));
    figure.addEventListener("blur", () => show(-1));
    figure.addEventListener("keydown", (event) => {
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: points.length - 1 }[event.key];
      if (event.key === "Escape") show(-1);
      if (event.key === "Enter" && at >= 0 && known.has("run_id")) page.find("run_id=" + name(points[at].runs[0]));
      if (to === undefined) return;
      event.preventDefault();
      show(Math.min(Math.max(to, 0), points.length - 1));
    });
    figure.tabIndex = 0;
  }

  document.querySelectorAll("svg[data-points]").forEach(prepare);
})();
