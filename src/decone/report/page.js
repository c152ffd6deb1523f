(() => {
  "use strict";
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const figures = read("figures"), exchange = read("colours");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const hidden = new Set(), drawn = new Set();

  const recolour = (node) => {
    if (Array.isArray(node)) {
      if (typeof node[0] === "object" && !Array.isArray(node[0])) node.forEach((part) => part && recolour(part));
      return;
    }
    for (const [key, value] of Object.entries(node)) {
      if (/^(fill)?color$/.test(key) && Object.hasOwn(exchange, value)) node[key] = exchange[value];
      else if (value && typeof value === "object") recolour(value);
    }
  };

  const draw = (id) => {
    const { data, layout } = structuredClone(figures[id]);
    if (dark.matches) [data, layout].forEach(recolour);
    for (const trace of data) if (hidden.has(trace.legendgroup)) trace.visible = false;
    delete layout.height; // the style sheet decides, and may make it less
    // A finger that scrolls past must not zoom.
    if (!matchMedia("(hover: hover)").matches) layout.dragmode = false;
    const config = {
      responsive: true, displaylogo: false, displayModeBar: matchMedia("(hover: hover)").matches ? "hover" : false,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
    };
    Plotly.react(document.getElementById(id), data, layout, config);
    drawn.add(id);
  };

  // One at a time from the top, so that a slow phone can be read and scrolled meanwhile.
  const waiting = Object.keys(figures);
  const next = () => {
    const id = waiting.shift();
    if (id === undefined) return;
    draw(id);
    setTimeout(next);
  };
  next();

  const redraw = () => drawn.forEach(draw);
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => waiting.splice(0).forEach(draw));
  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const group = button.dataset.group, shown = hidden.delete(group);
      if (!shown) hidden.add(group);
      button.setAttribute("aria-pressed", String(shown));
      redraw();
    });
  }
})();
