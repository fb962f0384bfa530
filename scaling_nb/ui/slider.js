// A slider that says only what a person did. See slider.py for the other end.

function words(model) {
  const value = model.get("value");
  const digits = model.get("digits") || 3;
  if (!model.get("decades")) return value.toFixed(digits);
  return Math.abs(value) < 1e4
    ? String(Number(value.toPrecision(digits)))
    : value.toExponential(digits - 1).replace(/\.?0*e\+?/, "e");
}

function render({ model, el }) {
  const make = (tag, props) => Object.assign(document.createElement(tag), props);
  // Named by standing in its label: every widget has this module to itself, so none could number
  // its own part of the page.
  const label = make("label");
  const name = make("span");
  const input = make("input", { type: "range" });
  const number = make("output");
  label.append(name, input);
  el.classList.add("snb-slider");
  el.append(label, number);

  function show() {
    name.textContent = model.get("description");
    label.title = model.get("tooltip");
    for (const name of ["min", "max", "step"]) input[name] = model.get(name);
    const value = model.get("value");
    input.value = model.get("decades") ? Math.log10(value) : value;
    input.disabled = model.get("disabled");
    input.setAttribute("aria-valuetext", words(model));
    number.textContent = model.get("digits") ? words(model) : "";
  }
  const names = ["value", "min", "max", "step", "description", "tooltip", "disabled"];
  const events = names.map((name) => `change:${name}`).join(" ");
  model.on(events, show);
  input.addEventListener("input", () => {
    const at = Number(input.value);
    model.set("value", model.get("decades") ? 10 ** at : at);
    model.save_changes();
  });
  show();
  return () => model.off(events, show);
}

export default { render };
