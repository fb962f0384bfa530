// The table of runs. Rows are state, so a reloaded page has them at once.

const TEXT = new Set(["id", "state", "where", "reason"]);
const COUNTS = new Set(["N", "D", "speed"]);

function show(key, value) {
  if (value === null || value === undefined) return "";
  if (TEXT.has(key)) return value;
  if (key === "progress") return `${Math.round(100 * value)} %`;
  if (key === "eta") return value < 60 ? `${Math.ceil(value)} s` : `${Math.floor(value / 60)} min`;
  if (key === "loss") return value.toFixed(4);
  if (COUNTS.has(key)) {
    for (const [scale, letter] of [[1e12, " T"], [1e9, " B"], [1e6, " M"], [1e3, " k"]]) {
      if (value >= scale) return `${Number((value / scale).toPrecision(3))}${letter}`;
    }
  }
  return value >= 1e5 ? value.toExponential(2).replace(/\.?0*e\+/, "e") : String(Number(value.toPrecision(3)));
}

function compare(key, down) {
  return (a, b) => {
    const [x, y] = [a[key], b[key]];
    if (x === y) return 0;
    if (x === null) return 1;
    if (y === null) return -1;
    return (x < y ? -1 : 1) * (down ? -1 : 1);
  };
}

function render({ model, el }) {
  const picked = new Set();
  const order = { key: null, down: false };
  el.style.width = "100%";

  const bar = document.createElement("div");
  bar.style.cssText = "display:flex;flex-wrap:wrap;gap:4px 8px;align-items:center;padding:2px 0";
  const reason = document.createElement("input");
  reason.setAttribute("aria-label", "reason for excluding the selected runs");
  reason.placeholder = "reason, e.g. loss spike";
  reason.style.cssText = "width:13em;color:inherit;background:var(--jp-layout-color1);border:1px solid var(--jp-border-color1);padding:2px 6px";
  const tips = {
    exclude: "Leave the selected runs out of the fit, for the reason given",
    restore: "Take the selected runs back into the fit",
    retry: "Train the selected runs again that failed, diverged or were left out",
    skip: "Leave the selected runs untrained",
  };
  const chosen = document.createElement("span");
  chosen.className = "snb-muted";
  for (const verb of model.get("verbs")) {
    const button = document.createElement("button");
    button.textContent = verb;
    button.title = tips[verb];
    button.className = "jupyter-button widget-button";
    button.style.width = "auto";
    button.dataset.verb = verb;
    button.onclick = () => {
      if (!picked.size) return void (chosen.textContent = "select runs in the table first");
      model.send({ verb, ids: [...picked], reason: reason.value || "excluded in the table" });
      picked.clear();
      update();
    };
    bar.append(button);
    if (verb === "exclude") bar.append(reason);
  }
  bar.append(chosen);

  const scroll = document.createElement("div");
  scroll.className = "snb-scroll";
  scroll.tabIndex = 0;
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", "runs");
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  const body = table.createTBody();
  scroll.append(table);
  el.append(bar, scroll);

  head.append(document.createElement("td"));
  const heads = {};
  for (const [key, title, tip] of model.get("columns")) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.style.cssText = "position:sticky;top:0;background:var(--jp-layout-color1)";
    const button = document.createElement("button");
    button.textContent = title;
    button.title = `${tip}. Click to sort.`;
    button.style.cssText = "all:unset;cursor:pointer;font-weight:600";
    button.onclick = () => {
      order.down = order.key === key ? !order.down : false;
      order.key = key;
      update();
    };
    button.addEventListener("focus", () => (button.style.outline = "2px solid #0072B2"));
    button.addEventListener("blur", () => (button.style.outline = ""));
    cell.append(button);
    head.append(cell);
    heads[key] = cell;
  }

  const made = new Map();
  function rowFor(id) {
    if (made.has(id)) return made.get(id);
    const row = document.createElement("tr");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.onchange = () => {
      if (box.checked) picked.add(id);
      else picked.delete(id);
      note();
    };
    row.insertCell().append(box);
    const cells = {};
    for (const [key] of model.get("columns")) {
      cells[key] = row.insertCell();
      const widest = { id: 12, reason: 28 }[key];
      if (widest) cells[key].style.cssText = `text-align:left;max-width:${widest}em;overflow:hidden;text-overflow:ellipsis`;
    }
    row.dataset.run = id;
    const entry = { row, box, cells };
    made.set(id, entry);
    return entry;
  }

  const note = () => (chosen.textContent = picked.size ? `${picked.size} selected` : "");

  function update() {
    const rows = [...model.get("rows")];
    if (order.key) rows.sort(compare(order.key, order.down));
    for (const [key, cell] of Object.entries(heads)) {
      cell.setAttribute("aria-sort", key === order.key ? (order.down ? "descending" : "ascending") : "none");
    }
    const here = new Set(rows.map((row) => row.id));
    for (const [id, { row }] of made) {
      if (!here.has(id)) { row.remove(); made.delete(id); picked.delete(id); }
    }
    rows.forEach((data, place) => {
      const { row, box, cells } = rowFor(data.id);
      box.checked = picked.has(data.id);
      box.setAttribute("aria-label", `select run ${data.id}`);
      for (const [key, cell] of Object.entries(cells)) {
        const text = show(key, data[key]);
        if (cell.textContent !== text) cell.textContent = text;
        if (key === "reason") cell.title = text;
      }
      row.style.opacity = data.state === "excluded" ? 0.55 : 1;
      if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
    });
    note();
  }
  model.on("change:rows", update);
  update();
  return () => model.off("change:rows", update);
}

export default { render };
