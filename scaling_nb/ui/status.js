// Progress, text, and a live region.

function render({ model, el }) {
  const line = document.createElement("div");
  line.style.cssText = "display:flex;flex-wrap:wrap;gap:4px 12px;align-items:center;min-height:24px;position:relative";
  el.style.width = "100%";
  const bar = document.createElement("progress");
  bar.setAttribute("aria-label", "runs done");
  bar.style.cssText = "width:14em;height:14px;accent-color:#0072B2;flex:none";
  const text = document.createElement("span");
  text.className = "snb-status";
  const spoken = document.createElement("span");
  spoken.setAttribute("role", "status");
  spoken.setAttribute("aria-live", "polite");
  spoken.className = "snb-spoken";
  spoken.style.cssText = "position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap";
  line.append(bar, text, spoken);
  el.append(line);

  const update = () => {
    bar.style.display = model.get("total") ? "" : "none";
    bar.max = Math.max(1, model.get("total"));
    bar.value = model.get("done");
    text.textContent = model.get("text");
    if (spoken.textContent !== model.get("said")) spoken.textContent = model.get("said");
  };
  model.on("change", update);
  update();

  return () => {
    model.off("change", update);
  };
}

export default { render };
