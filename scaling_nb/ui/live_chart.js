// One chart. State comes from the kernel: a snapshot for every new view, then patches in order.
// See live_chart.py for the other end.
//
// Plotly draws a chart whole, and that costs tens of milliseconds that training on the same cores
// would miss. So Plotly draws when more has changed than the ends of lines, and now and then; in
// between, what lines have gained goes onto a canvas that lies over Plotly's axes. Nothing that is
// there already is painted again for it, as it would be for one more path in Plotly's picture.

const HELLO_AGAIN = 2500; // ms without a snapshot before a view asks again
const PLOTLY_AGAIN = 10000; // ms without plotly.js before it is asked for again
const DIMMED = 0.15;
const WHOLE_EVERY = 5000; // ms between two whole draws while lines only grow
const WHOLE_POINTED = 2000; // the same under the pointer, which can be shown only what is in them
const WHOLE_SHARE = 1 / 30; // of the time, at most, goes into them
const STILL = 2000; // ms without a point, and nothing grows

const page = (globalThis.__scaling_nb__ ??= { plotly: null, views: new Set(), draws: [], sent: 0 });


function loadPlotly() {
  page.plotly ??= fetchPlotly().catch((error) => {
    page.plotly = null; // the next chart tries again
    throw error;
  });
  return page.plotly;
}

async function fetchPlotly() {
  for (let attempt = 0; attempt < 6; attempt++) {
    // Any chart of the page will do: the one that asked first may be gone by now.
    const views = [...page.views];
    if (!views.length) break;
    const packed = await requestPlotly(views.at(-1 - (attempt % views.length)).model);
    if (packed) return evaluate(await unzip(packed));
  }
  throw new Error("plotly.js did not arrive from the kernel. Run the cell again.");
}

function requestPlotly(model) {
  return new Promise((resolve) => {
    const answer = (content, buffers) => {
      if (content.kind !== "plotly") return;
      page.sent += 1;
      done(buffers[0]);
    };
    const timer = setTimeout(() => done(null), PLOTLY_AGAIN);
    function done(value) {
      clearTimeout(timer);
      model.off("msg:custom", answer);
      resolve(value);
    }
    model.on("msg:custom", answer);
    model.send({ kind: "plotly" });
  });
}

async function unzip(view) {
  const stream = new Blob([view]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

function evaluate(source) {
  // As a CommonJS module: neither a global Plotly nor a page's own AMD loader is touched.
  const module = { exports: {} };
  new Function("module", "exports", "define", source)(module, module.exports, undefined);
  return module.exports;
}


class State {
  constructor() {
    this.seq = -1;
    this.anew = true; // more has changed than the ends of lines
    this.figure = { data: [], layout: {} };
    this.lines = [];
  }

  // Returns false where a message was missed, so that the view asks for a snapshot.
  receive(content, buffers) {
    if (content.kind === "snapshot") return this.snapshot(content, buffers);
    if (content.seq <= this.seq) return true;
    if (this.seq < 0 || content.seq > this.seq + 1) return false;
    this.seq = content.seq;
    if (content.kind === "figure") this.figure = content.figure;
    if (content.kind === "add") this.lines.push(...content.traces.map(newLine));
    if (content.kind === "patch") this.patch(buffers);
    else this.anew = true;
    return true;
  }

  snapshot(content, buffers) {
    const counts = typed(buffers[0], Uint16Array);
    const points = typed(buffers[1], Float32Array);
    let at = 0;
    this.seq = content.seq;
    this.anew = true;
    this.figure = content.figure;
    this.lines = content.traces.map((trace, i) => {
      const line = newLine(trace);
      at = extend(line, points, at, counts[i]);
      return line;
    });
    return true;
  }

  patch(buffers) {
    const counts = typed(buffers[0], Uint16Array);
    const points = typed(buffers[1], Float32Array);
    const ends = typed(buffers[2], Float32Array);
    const masks = typed(buffers[3], Uint8Array);
    let at = 0;
    let bit = 0;
    for (let i = 0; i < counts.length; i += 3) {
      const line = this.lines[counts[i]];
      at = grow(line, points, at, counts[i + 1], ends[i / 3]);
      if (counts[i + 2]) bit = thin(line, masks, bit);
    }
  }
}

// `tail` is what has not been drawn yet, behind the last point that was; `dashed` is how far the
// dashes of what hangs at the line's end have come.
const newLine = (trace) => ({ trace, x: [], y: [], t: [], tail: { trace, x: [], y: [], t: [] }, dashed: 0 });

function typed(view, Kind) {
  if (!view || !view.byteLength) return new Kind(0);
  // Copied, because a slice of a message need not begin where a float may.
  return new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function extend(line, points, at, n) {
  for (const row of ["x", "y", "t"]) {
    for (let i = 0; i < n; i++) line[row].push(points[at + i]);
    line.tail[row] = line[row].slice(-1);
    at += n;
  }
  return at;
}

// New points have no clock of their own: between two patches they are spread evenly over x.
function grow(line, points, at, n, now) {
  const last = line.x.length - 1;
  const from = last < 0 ? 0 : line.x[last];
  const begin = last < 0 ? 0 : Number.isFinite(line.t[last]) ? line.t[last] : now;
  const reach = points[at + n - 1] - from;
  for (let i = 0; i < n; i++) {
    const share = reach > 0 ? (points[at + i] - from) / reach : 1;
    for (const part of [line, line.tail]) {
      part.x.push(points[at + i]);
      part.y.push(points[at + n + i]);
      part.t.push(begin + share * (now - begin));
    }
  }
  return at + 2 * n;
}

// The line is drawn up to here: what comes is drawn from its last point on.
function cutTail(line, smoothed) {
  const { trace, tail } = line;
  line.tail = { trace, x: tail.x.slice(-1), y: smoothed.slice(-1), t: tail.t.slice(-1) };
}

function thin(line, masks, at) {
  const n = line.x.length;
  const keep = (_, i) => (masks[at + (i >> 3)] >> (i & 7)) & 1;
  for (const row of ["x", "y", "t"]) line[row] = line[row].filter(keep);
  return at + Math.ceil(n / 8);
}


const X_AXES = {
  tokens: { read: (line) => line.x }, // the figure's own title says what D counts
  steps: { title: "optimiser steps", read: (line) => line.x.map((v) => v * line.trace.scales.steps) },
  flops: { title: "training compute (FLOP)", read: (line) => line.x.map((v) => v * line.trace.scales.flops) },
  seconds: { title: "seconds", read: (line) => line.t },
};

function smooth(values, weight) {
  if (!weight) return values;
  let mean = values[0];
  return values.map((value) => (mean = weight * mean + (1 - weight) * value));
}

// Lowest and highest of every few points in a row: at most n points that look the same.
function slim(xs, ys, n) {
  const each = Math.ceil((2 * xs.length) / n);
  if (each <= 2) return [xs, ys];
  const chosen = [0];
  for (let from = 1; from < xs.length - 1; from += each) {
    let [low, high] = [from, from];
    for (let i = from + 1; i < Math.min(from + each, xs.length - 1); i++) {
      if (ys[i] < ys[low]) low = i;
      if (ys[i] > ys[high]) high = i;
    }
    chosen.push(Math.min(low, high));
    if (low !== high) chosen.push(Math.max(low, high));
  }
  chosen.push(xs.length - 1);
  return [chosen.map((i) => xs[i]), chosen.map((i) => ys[i])];
}

// `most` is how many points of a line are drawn.
function streamed(lines, view, most = Infinity) {
  const shown = new Set();
  return lines.flatMap((line) => {
    const { key, label, group, rank, colour, full, dash, width } = line.trace;
    const first = !shown.has(group);
    shown.add(group);
    const named = { name: group, legendgroup: group, legendrank: 1000 + rank };
    const opacity = view.picked && view.picked !== group ? DIMMED : 1;
    // The legend shows the group's colour, not the pale shade of its smallest model.
    const entry = {
      type: "scatter", mode: "lines", x: [null], y: [null], opacity, showlegend: true,
      line: { color: full || colour, dash, width: 2.5 }, ...named,
    };
    const [x, y] = slim(X_AXES[view.x].read(line), smooth(line.y, view.smoothing), most);
    const drawn = {
      type: "scatter",
      mode: "lines",
      x,
      y,
      ...named,
      showlegend: false,
      opacity,
      line: { color: colour, dash, width, simplify: true },
      hovertemplate: `${label}<br>%{x:.3s}: %{y:.4f}<extra>${key}</extra>`,
    };
    return first ? [entry, drawn] : [drawn];
  });
}

const MOST = 20_000; // points of a chart: more are told apart by no eye, and cost every draw
const HEADROOM = 0.2; // of the x axis is left free for what comes
const MARGIN = 0.02; // where nothing does
const FAR = 10; // spreads beyond the others' losses, and a loss would flatten them

const at = (sorted, share, round) => sorted[round(share * (sorted.length - 1))];

// The axes' ranges that show every line, but for losses so far out that no other could be read.
function rangesOf(drawn, view, room) {
  const scaled = (values, log) => {
    const known = Float64Array.from(log ? values.map(Math.log10) : values).filter(Number.isFinite);
    return known.sort();
  };
  const xs = drawn.map((trace) => scaled([trace.x[0], trace.x.at(-1)], view.logX)).filter((v) => v.length);
  const ys = drawn.map((trace) => scaled(trace.y, view.logY));
  const some = ys.filter((v) => v.length);
  if (!xs.length || !some.length) return null;
  const highs = Float64Array.from(some, (v) => at(v, 0.9, Math.floor)).sort();
  const lows = Float64Array.from(some, (v) => at(v, 0.1, Math.ceil)).sort();
  const [high, low] = [at(highs, 0.75, Math.floor), at(lows, 0.25, Math.ceil)];
  const reach = Math.max(FAR * (high - low), view.logY ? 1 : 3 * Math.abs(high));
  const [floor, cap] = [low - reach, high + reach];
  const inside = some.map((v) => v.filter((y) => y >= floor && y <= cap)).filter((v) => v.length);
  const bottom = Math.min(...inside.map((v) => v[0]));
  const top = Math.max(...inside.map((v) => v.at(-1)));
  const left = Math.min(...xs.map((v) => v[0]));
  const right = Math.max(...xs.map((v) => v.at(-1)));
  const pad = 0.05 * (top - bottom) || 0.05 * Math.abs(top) || 1;
  return {
    xaxis: [left, right + room * (right - left || Math.abs(right) || 1)],
    yaxis: [bottom - pad, top + pad],
    cap,
    floor,
    beyond: ys.flatMap((v, i) => (v.length && (v.at(-1) > cap || v[0] < floor) ? [i] : [])),
  };
}

// Says what does not fit: a line that leaves the chart must not look like one that ends.
function beyondNote(lines, ranges, ink) {
  const few = ranges.beyond.map((i) => lines[i]);
  const worst = few[0].y.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a));
  const text = few.length === 1
    ? `${few[0].trace.label} goes on to ${worst.toPrecision(3)}`
    : `${few.length} runs go beyond the chart`;
  return {
    text: `${worst > 0 ? "▲" : "▼"} ${text}`, font: { size: 11, color: ink }, showarrow: false,
    xref: "paper", yref: "paper", x: 1, xanchor: "right", y: worst > 0 ? 1 : 0,
    yanchor: worst > 0 ? "top" : "bottom",
  };
}

const DASHES = { solid: [], dash: [3, 3], dot: [1, 1], dashdot: [3, 1, 1, 1] }; // Plotly's, in widths

function stroke(pen, line, xs, ys, opacity) {
  const { colour, width, dash } = line.trace;
  pen.strokeStyle = colour;
  pen.lineWidth = width;
  pen.globalAlpha = opacity;
  pen.setLineDash((DASHES[dash] ?? []).map((n) => n * Math.max(width, 3)));
  pen.lineDashOffset = line.dashed;
  pen.beginPath();
  xs.forEach((x, i) => pen.lineTo(x, ys[i]));
  pen.stroke();
  for (let i = 1; i < xs.length; i++) line.dashed += Math.hypot(xs[i] - xs[i - 1], ys[i] - ys[i - 1]);
}


function theme(el) {
  const css = getComputedStyle(el);
  const read = (name, otherwise) => css.getPropertyValue(name).trim() || otherwise;
  return {
    ink: read("--jp-ui-font-color1", "#444"),
    paper: read("--jp-layout-color1", "#fff"),
    behind: "rgba(0,0,0,0)",
  };
}

// A picture is for a paper, whatever the page's theme.
const PRINTED = { ink: "#222", paper: "#fff", behind: "#fff" };

function layoutOf(state, view, colours, height, lassos = 0, ranges = null) {
  const layout = structuredClone(state.figure.layout);
  const streaming = state.lines.length > 0;
  Object.assign(layout, {
    height,
    autosize: true,
    uirevision: "kept",
    selections: [],
    selectionrevision: `${state.seq}.${lassos}`,
    font: { ...layout.font, color: colours.ink },
    paper_bgcolor: colours.behind,
    plot_bgcolor: colours.behind,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "rgba(128,128,128,0.7)", activecolor: colours.ink },
    hoverlabel: { ...layout.hoverlabel, bgcolor: colours.paper, font: { color: colours.ink } },
  });
  delete layout.width;
  for (const name of ["xaxis", "yaxis"]) {
    layout[name] = { ...layout[name], linecolor: colours.ink, tickcolor: colours.ink };
  }
  if (streaming) {
    Object.assign(layout.xaxis, {
      title: { text: X_AXES[view.x].title ?? layout.xaxis.title?.text },
      type: view.logX ? "log" : "linear",
      uirevision: `${view.x}${view.logX}${view.follows}`,
    });
    Object.assign(layout.yaxis, {
      type: view.logY ? "log" : "linear",
      uirevision: `${view.logY}${view.follows}`,
    });
  }
  if (ranges) {
    // Copied, because a zoom is written into what Plotly was given.
    for (const name of ["xaxis", "yaxis"]) layout[name].range = [...ranges[name]];
    const note = ranges.beyond.length ? [beyondNote(state.lines, ranges, colours.ink)] : [];
    layout.annotations = [...(layout.annotations ?? []), ...note];
  }
  return layout;
}


function control(bar, text, input, change) {
  const label = document.createElement("label");
  label.textContent = text;
  label.style.cssText = "display:inline-flex;gap:.35em;align-items:center";
  input.addEventListener("input", () => change(input));
  if (input.type === "checkbox") label.prepend(input);
  else label.append(input);
  bar.append(label);
}

function toolbar(view, redraw) {
  const bar = document.createElement("div");
  bar.style.cssText =
    "display:flex;flex-wrap:wrap;gap:.2em .7em;align-items:center;color:var(--jp-ui-font-color1);" +
    "font-size:var(--jp-ui-font-size1,13px);min-height:26px";
  const make = (tag, props) => Object.assign(document.createElement(tag), props);
  const select = make("select", { title: "What the curves are drawn against" });
  for (const name of Object.keys(X_AXES)) {
    const word = { tokens: "data", flops: "FLOP" }[name] ?? name;
    select.append(make("option", { value: name, textContent: word }));
  }
  select.value = view.x;
  select.style.cssText =
    "color:inherit;background:var(--jp-layout-color1);border:1px solid var(--jp-border-color1)";
  control(bar, "x", select, (e) => redraw({ x: e.value }));
  const logX = make("input", { type: "checkbox", checked: view.logX });
  control(bar, "log x", logX, (e) => redraw({ logX: e.checked }));
  const logY = make("input", { type: "checkbox", checked: view.logY });
  control(bar, "log y", logY, (e) => redraw({ logY: e.checked }));
  const range = make("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: view.smoothing });
  range.title = "Exponential moving average: how much of the past each point keeps";
  range.style.width = "4.5em";
  control(bar, "smoothing", range, (e) => redraw({ smoothing: Number(e.value) }));
  return bar;
}


async function render({ model, el }) {
  const shown = { model };
  page.views.add(shown);
  const state = new State();
  const view = { x: "tokens", logX: false, logY: false, smoothing: 0.5, picked: null, follows: 0 };
  const area = document.createElement("div");
  area.style.cssText = `width:100%;height:${model.get("height")}px`;
  area.setAttribute("role", "img");
  el.style.width = "100%";
  el.classList.add("snb-chart");
  if (model.get("controls")) el.append(toolbar(view, choose));
  el.append(area);

  function choose(change) {
    Object.assign(view, change);
    if (!("smoothing" in change)) ranges = null; // of another axis
    redraw();
  }

  const name = () =>
    area.setAttribute("aria-label", [model.get("label"), model.get("summary")].filter(Boolean).join(". "));
  name();

  let Plotly = null;
  let closed = false;
  let timer = null;
  let stamp = 0;
  let cost = 0;
  let drawnAt = 0;
  let wired = false;
  let whole = true; // whether the next draw is Plotly's
  let wholeAt = 0;
  let wholeCost = 0;
  let due = null; // the timer of a whole draw that lines' ends wait for
  let ranges = null;
  let inView = true;
  let pointed = false;
  let growing = false;
  let still = null; // the timer that ends it
  const canvas = document.createElement("canvas");
  canvas.style.cssText = "position:absolute;pointer-events:none";
  canvas.setAttribute("aria-hidden", "true");
  let lassos = 0;
  let wanted = []; // pictures asked for: taken when the present state is drawn

  function receive(content, buffers) {
    if (content.kind === "plotly") return;
    if (content.kind === "image") {
      wanted.push(content);
      return redraw();
    }
    if (!state.receive(content, buffers)) return hello();
    if (content.kind === "snapshot") clearTimeout(again);
    if (content.stamp) stamp = content.stamp;
    if (content.kind === "patch") {
      growing = true;
      clearTimeout(still);
      still = setTimeout(() => {
        growing = false;
        // A message that is lost shows by the next one; the last has none.
        if (!closed) model.send({ kind: "seen", seq: state.seq });
        redraw();
      }, STILL);
    }
    schedule();
  }

  // A message can be lost between a page and its kernel, most of all while a page loads and the
  // kernel restores its widgets: so a view asks until it has been answered.
  let again = null;
  function hello() {
    if (closed) return;
    clearTimeout(again);
    model.send({ kind: "hello" });
    again = setTimeout(hello, HELLO_AGAIN);
  }

  function schedule() {
    if (timer || closed || !Plotly || state.seq < 0) return;
    const rest = drawnAt + Math.max(50, 1.2 * cost) - performance.now();
    timer = setTimeout(() => requestAnimationFrame(draw), Math.max(0, rest));
  }

  function redraw() {
    whole = true;
    schedule();
  }

  async function draw() {
    timer = null;
    if (closed || !area.isConnected) return;
    if (!area.clientWidth) return watchSize(); // hidden: drawn when it is shown
    if (wired && !inView && !wanted.length) return; // drawn when it comes into view
    const began = performance.now();
    const newest = stamp;
    const plotly = whole || state.anew || !drawTails();
    if (plotly) await drawWhole();
    drawnAt = performance.now();
    cost = drawnAt - began;
    if (plotly) [wholeAt, wholeCost] = [drawnAt, cost];
    clearTimeout(due);
    if (!plotly) {
      // What hangs at the lines' ends can be hovered once Plotly has drawn it.
      const pace = Math.max(pointed ? WHOLE_POINTED : WHOLE_EVERY, wholeCost / WHOLE_SHARE);
      due = setTimeout(redraw, wholeAt + pace - drawnAt);
    }
    el.dataset.drawn = String(state.seq);
    el.dataset.points = String(state.lines.reduce((sum, line) => sum + line.x.length, 0));
    page.draws.push({ seq: state.seq, stamp: newest * 1000, drawn: Date.now(), cost, whole: plotly });
    if (page.draws.length > 2000) page.draws.splice(0, 1000);
    wanted.splice(0).forEach(send);
  }

  async function drawWhole() {
    whole = state.anew = false;
    // A lasso is an order, not a state: what it chose shows in the figure that comes back.
    const still = state.figure.data.map((trace) => ({ ...trace, selectedpoints: null }));
    const wide = zoomed("xaxis") ? Infinity : area.clientWidth;
    const grown = streamed(state.lines, view, Math.min(wide, Math.max(64, MOST / state.lines.length)));
    const drawn = grown.filter((trace) => !trace.showlegend);
    const fresh = rangesOf(drawn, view, growing ? HEADROOM : MARGIN);
    // Where somebody has zoomed, the range from before stands: Plotly takes a new one for an order.
    if (fresh && ranges) {
      for (const name of ["xaxis", "yaxis"]) if (zoomed(name)) fresh[name] = ranges[name];
    }
    ranges = fresh;
    state.lines.forEach((line, i) => {
      cutTail(line, drawn[i].y);
      line.dashed = 0;
    });
    const layout = layoutOf(state, view, theme(el), model.get("height"), lassos, ranges);
    const away = ["sendChartToCloud", "sendDataToCloud", "zoomIn2d", "zoomOut2d", "autoScale2d", ...(model.get("picks") ? [] : ["lasso2d", "select2d"])];
    // Nothing leaves the machine: no button that uploads a chart.
    const config = { displaylogo: false, plotlyServerURL: "", modeBarButtonsToRemove: away };
    if (ranges) {
      // Plotly would go back to the first range that it was given.
      config.doubleClick = false;
      away.push("resetScale2d");
      config.modeBarButtonsToAdd = [{ name: "follow", title: "Reset axes", icon: Plotly.Icons.home, click: follow }];
    }
    try {
      await Plotly.react(area, [...still, ...grown], layout, config);
    } catch (error) {
      console.warn("scaling_nb: the chart could not be drawn", error);
    }
    if (!wired) wire();
    layCanvas();
  }

  // Puts an empty canvas over the axes, under what Plotly writes on hover.
  function layCanvas() {
    const { xaxis, yaxis } = area._fullLayout ?? {};
    const picture = area.querySelector(".svg-container > .main-svg");
    if (!ranges || !picture || !(xaxis?._length > 0) || !(yaxis?._length > 0)) return canvas.remove();
    const fine = devicePixelRatio;
    for (const [side, axis, size] of [["left", xaxis, "width"], ["top", yaxis, "height"]]) {
      canvas.style[side] = `${axis._offset}px`;
      canvas.style[size] = `${axis._length}px`;
      canvas[size] = Math.ceil(axis._length * fine);
    }
    canvas.getContext("2d").scale(fine, fine);
    canvas.style.visibility = "visible";
    if (canvas.previousSibling !== picture) picture.after(canvas);
  }

  // Draws what lines have gained since Plotly drew them. Returns false where Plotly has to: what
  // came lies outside the axes, or Plotly's parts are not where they are looked for.
  function drawTails() {
    const { xaxis, yaxis } = area._fullLayout ?? {};
    if (!ranges || !canvas.isConnected || !xaxis?.d2p || !yaxis?.d2p) return false;
    const [left, right] = zoomed("xaxis") ? [-Infinity, Infinity] : ranges.xaxis;
    const [bottom, top] = zoomed("yaxis") ? [-Infinity, Infinity] : ranges.yaxis;
    const grown = state.lines.filter((line) => line.tail.x.length > 1).map((line) => {
      return { line, xs: X_AXES[view.x].read(line.tail), ys: smooth(line.tail.y, view.smoothing) };
    });
    const fits = grown.every(({ xs, ys }) => {
      const along = xs.map((x) => (view.logX ? Math.log10(x) : x));
      const up = ys.map((y) => (view.logY ? Math.log10(y) : y));
      return along.every((x) => x >= left && x <= right) && up.every(
        (y) => (y >= bottom && y <= top) || y < ranges.floor || y > ranges.cap);
    });
    if (!fits) return false;
    const pen = canvas.getContext("2d");
    for (const { line, xs, ys } of grown) {
      const opacity = view.picked && view.picked !== line.trace.group ? DIMMED : 1;
      stroke(pen, line, xs.map((x) => xaxis.d2p(x)), ys.map((y) => yaxis.d2p(y)), opacity);
      cutTail(line, ys);
    }
    return true;
  }

  function zoomed(name) {
    const range = area._fullLayout?.[name]?.range;
    if (!range || !ranges) return false;
    const [low, high] = ranges[name];
    return Math.abs(range[0] - low) + Math.abs(range[1] - high) > 1e-6 * (high - low);
  }

  function follow() {
    view.follows += 1;
    ranges = null;
    redraw();
  }

  function wire() {
    wired = true;
    const keysOf = (event) => [...new Set((event?.points ?? []).map((p) => p.text).filter(Boolean))];
    const pick = (event, how) => {
      const keys = keysOf(event);
      if (model.get("picks") && keys.length) model.send({ kind: "pick", keys, how });
    };
    area.on("plotly_click", (event) => pick(event, "click"));
    area.on("plotly_selected", (event) => {
      if (!event) return;
      pick(event, "lasso");
      lassos += 1; // the next draw takes the lasso and its dimming away
      redraw();
    });
    area.on("plotly_legendclick", (event) => {
      if (!state.lines.length) return true;
      const group = event.data[event.curveNumber].legendgroup;
      view.picked = view.picked === group ? null : group;
      redraw();
      return false;
    });
    area.on("plotly_doubleclick", () => { if (ranges) follow(); });
    area.on("plotly_relayouting", () => { canvas.style.visibility = "hidden"; });
    area.on("plotly_relayout", () => { if (ranges) redraw(); });
    area.on("plotly_legenddoubleclick", () => !state.lines.length);
  }

  const printed = () => ({
    data: [...state.figure.data, ...streamed(state.lines, view)],
    layout: layoutOf(state, view, PRINTED, 480, 0, ranges),
  });

  async function send({ format, id }) {
    const url = await Plotly.toImage(printed(), { format, width: 900, height: 480, scale: format === "png" ? 2 : 1 });
    const text = format === "png" ? atob(url.split(",")[1]) : decodeURIComponent(url.split(",").slice(1).join(","));
    const bytes = format === "png" ? Uint8Array.from(text, (c) => c.charCodeAt(0)) : new TextEncoder().encode(text);
    model.send({ kind: "image", id }, undefined, [bytes.buffer]);
  }

  const sized = new ResizeObserver(() => {
    if (!area.clientWidth) return;
    if (wired) Plotly.Plots.resize(area);
    redraw();
  });
  // An observer tells only of changes between its own looks: a chart that is hidden for the
  // moment of its draw, as while a theme is exchanged, has none. Observed anew, it is told.
  function watchSize() {
    sized.unobserve(area);
    sized.observe(area);
  }
  watchSize();
  const seen = new IntersectionObserver((entries) => {
    inView = entries.at(-1).isIntersecting;
    if (inView) schedule();
  });
  seen.observe(area);
  // What is pointed at is to be found under the pointer, the newest points too.
  area.addEventListener("pointerenter", () => {
    pointed = true;
    if (growing) redraw();
  });
  area.addEventListener("pointerleave", () => { pointed = false; });
  const themed = new MutationObserver(redraw);
  themed.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name"] });

  model.on("msg:custom", receive);
  model.on("change:summary change:label", name);
  hello();
  loadPlotly().then((loaded) => { Plotly = loaded; schedule(); }, (error) => {
    area.textContent = error.message;
  });

  return () => {
    closed = true;
    page.views.delete(shown);
    clearTimeout(timer);
    clearTimeout(again);
    clearTimeout(due);
    clearTimeout(still);
    sized.disconnect();
    seen.disconnect();
    themed.disconnect();
    model.off("msg:custom", receive);
    if (wired) Plotly.purge(area);
  };
}

export default { render };
