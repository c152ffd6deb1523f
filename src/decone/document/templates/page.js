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

  // Tables that can be searched, sorted and paged; the server has no part in it, and no text becomes markup.
  for (const box of document.querySelectorAll(".searchable")) {
    const size = Number(box.dataset.page), body = box.querySelector("tbody"), rows = [...body.rows];
    const input = box.querySelector("input"), status = box.querySelector(".status");
    const pages = box.querySelector(".pages"), back = box.querySelector(".back"), on = box.querySelector(".on");
    const heads = [...box.querySelectorAll("thead th")];
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
    let order = rows, page = 0;

    const show = () => {
      const wanted = input.value.toLowerCase().trim();
      const found = wanted ? order.filter((row) => texts.get(row).includes(wanted)) : order;
      const last = Math.max(0, Math.ceil(found.length / size) - 1);
      page = Math.min(Math.max(page, 0), last);
      const first = page * size, part = found.slice(first, first + size);
      body.replaceChildren(...part);
      const range = part.length ? `${first + 1}–${first + part.length} of ${found.length}` : "nothing found";
      status.textContent = wanted && part.length ? `${range} found, ${rows.length} in all` : range;
      pages.hidden = last === 0;
      back.disabled = page === 0;
      on.disabled = page === last;
    };

    const value = (row, place, kind) => {
      const cell = row.cells[place];
      if (kind === "text") return cell.textContent.toLowerCase();
      return cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
    };
    const sort = (place, kind, falling) => {
      const sign = falling ? -1 : 1, known = new Map(rows.map((row) => [row, value(row, place, kind)]));
      order = [...rows].sort((a, b) => {
        const left = known.get(a), right = known.get(b);
        if (Number.isNaN(left) || Number.isNaN(right)) return Number.isNaN(left) - Number.isNaN(right);
        return left < right ? -sign : left > right ? sign : 0;
      });
    };
    heads.forEach((head, place) => {
      const button = document.createElement("button"), kind = head.dataset.sort;
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        // Numbers are asked for the largest first, words for the first letter.
        const falling = now === "none" ? kind === "number" : now === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        sort(place, kind, falling);
        page = 0;
        show();
      });
    });
    input.addEventListener("input", () => { page = 0; show(); });
    back.addEventListener("click", () => { page -= 1; show(); });
    on.addEventListener("click", () => { page += 1; show(); });
    box.querySelector(".tools").hidden = false;
    show();
  }

  for (const code of document.querySelectorAll("code.command")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    code.after(button);
  }
})();
