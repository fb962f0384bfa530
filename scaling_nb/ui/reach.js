// Keys for controls and foldable parts, in the panel this stands in.

function set(part, name, value) {
  if (part.getAttribute(name) !== value) part.setAttribute(name, value);
}

function openByKey(root) {
  for (const head of root.querySelectorAll(".jupyter-widget-Collapse-header")) {
    set(head, "role", "button");
    set(head, "tabindex", "0");
    set(head, "aria-expanded", String(head.parentElement.classList.contains("jupyter-widget-Collapse-open")));
    if (head.dataset.snbKeys) continue;
    head.dataset.snbKeys = "1";
    head.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation(); // to the notebook, Enter and Space mean something else
      head.click();
    });
  }
}

const CHOOSING = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);

// A notebook takes these for itself, and the control that has the focus would not move.
function keepKeys(event) {
  if (CHOOSING.has(event.key) && event.target.matches("input, select, textarea")) event.stopPropagation();
}

function render({ el }) {
  el.style.display = "none";
  let observer = null;
  let closed = false;
  const begin = () => {
    if (closed) return;
    const root = el.closest(".snb-panel");
    if (!root) return void requestAnimationFrame(begin);
    openByKey(root);
    root.addEventListener("keydown", keepKeys);
    observer = new MutationObserver(() => openByKey(root));
    observer.observe(root, { childList: true, subtree: true, attributes: true, attributeFilter: ["class"] });
  };
  requestAnimationFrame(begin);
  return () => {
    closed = true;
    observer?.disconnect();
  };
}

export default { render };
