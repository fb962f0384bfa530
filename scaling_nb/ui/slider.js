// A slider that says only what a person did. See slider.py for the other end.

let unique = 0;

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
  const input = make("input", { type: "range", id: `snb-slider-${unique++}` });
  const label = make("label", { htmlFor: input.id });
  const number = make("output", { htmlFor: input.id });
  el.classList.add("snb-slider");
  el.append(label, input, number);

  function show() {
    label.textContent = model.get("description");
    label.title = input.title = model.get("tooltip");
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
