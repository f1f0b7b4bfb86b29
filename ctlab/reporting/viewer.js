// Three planes of a scan in a notebook; `model` is a Jupyter widget.
const AXES = ["axial", "coronal", "sagittal"];
const WALL = { axial: [1, 2], coronal: [0, 2], sagittal: [0, 1] }; // which index runs down, which across
const STYLE = `
.ctv{font:13px system-ui,sans-serif;color:var(--jp-ui-font-color1,#222);max-width:1200px}
.ctv-planes{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:8px}
.ctv-pane{background:#000;position:relative;overflow:hidden;display:flex;align-items:center;justify-content:center;height:min(46vw,340px);outline:none;touch-action:none}
.ctv-pane:focus-visible{box-shadow:0 0 0 2px #56b4e9}
.ctv-box{position:relative;max-width:100%;max-height:100%}
.ctv-box canvas{display:block;width:100%;height:100%;cursor:crosshair}
.ctv-line{position:absolute;background:#ffd96688;pointer-events:none}
.ctv-letter{position:absolute;color:#ffd966;font-size:12px;pointer-events:none;text-shadow:0 0 3px #000}
.ctv-row{display:flex;flex-wrap:wrap;gap:4px 14px;align-items:center;padding:4px 0}
.ctv-row label{display:inline-flex;align-items:center;gap:5px}
.ctv input[type=range]{width:130px;accent-color:#0a5a8c}
.ctv-slice{display:flex;gap:6px;align-items:center;padding-top:2px}.ctv-slice input{flex:1;min-width:0;width:auto}
.ctv-read{font-variant-numeric:tabular-nums;min-height:1.3em}
.ctv-key{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin-right:.3em;vertical-align:-1px}
.ctv-help{color:var(--jp-ui-font-color2,#777)}`;

function make(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) k in e && typeof v !== "string" ? (e[k] = v) : e.setAttribute(k, v);
  e.append(...children);
  return e;
}
const colour = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

function render({ model, el }) {
  const facts = model.get("facts"), planes = {}, waiting = {}, wanted = {};
  const palette = Object.fromEntries(Object.entries(facts.structures).map(([k, s]) => [k, { name: s[0], rgb: colour(s[1]) }]));
  const place = (name, value) => { model.set(name, value); model.save_changes(); };
  const number = (axis) => model.get("index")[AXES.indexOf(axis)];
  const go = (changes) => {
    const index = [...model.get("index")];
    for (const [k, v] of Object.entries(changes)) index[k] = Math.max(0, Math.min(facts.shape[k] - 1, Math.round(v)));
    if (String(index) !== String(model.get("index"))) place("index", index);
  };

  // asking: one question under way per plane, the newest wish next
  function ask(axis) {
    wanted[axis] = number(axis);
    if (waiting[axis] === undefined) { waiting[axis] = wanted[axis]; model.send({ plane: axis, at: wanted[axis] }); }
  }
  const bytes = (b) => (b.buffer ? b.buffer.slice(b.byteOffset, b.byteOffset + b.byteLength) : b);
  const keep = (axis, at, parts) => (planes[axis] = { at, hu: new Int16Array(bytes(parts[0])), mask: parts[1] && new Uint8Array(bytes(parts[1])), prediction: parts[2] && new Uint8Array(bytes(parts[2])) });
  for (const [axis, p] of Object.entries(model.get("first") || {})) keep(axis, p.at, p.parts);
  model.on("msg:custom", (message, buffers) => {
    const axis = message.plane;
    if (!axis) return;
    keep(axis, message.at, buffers);
    delete waiting[axis];
    if (wanted[axis] !== message.at) ask(axis);
    draw(axis);
  });

  // the panes
  const panes = {}, row = make("div", { class: "ctv-planes" });
  for (const axis of AXES) {
    const [down, across] = WALL[axis], rows = facts.shape[down], columns = facts.shape[across];
    const ratio = (columns * facts.spacing[across]) / (rows * facts.spacing[down]);
    const canvas = make("canvas", { width: columns, height: rows, "data-plane": axis, role: "img", "aria-label": `${axis} plane` });
    const box = make("div", { class: "ctv-box" }, canvas);
    const lines = [make("div", { class: "ctv-line", style: "height:1px;left:0;right:0" }), make("div", { class: "ctv-line", style: "width:1px;top:0;bottom:0" })];
    box.append(...lines);
    const letters = axis === "axial" ? "RLAP" : axis === "coronal" ? "RLSI" : "APSI";
    ["left:3px;top:46%", "right:3px;top:46%", "top:2px;left:48%", "bottom:2px;left:48%"].forEach((s, k) => box.append(make("span", { class: "ctv-letter", style: s }, letters[k])));
    const pane = make("div", { class: "ctv-pane", tabindex: "0", "data-pane": axis }, box);
    const slider = make("input", { type: "range", min: "0", max: String(facts.shape[AXES.indexOf(axis)] - 1), "data-slice": axis, "aria-label": `${axis} slice` });
    const label = make("span", {});
    panes[axis] = { canvas, lines, slider, label, down, across, rows, columns };
    row.append(make("div", {}, pane, make("div", { class: "ctv-slice" }, make("span", {}, axis), slider, label)));
    const fit = () => { const w = pane.clientWidth, h = pane.clientHeight; if (w) { box.style.width = `${Math.min(w, h * ratio)}px`; box.style.height = `${Math.min(h, w / ratio)}px`; } };
    new ResizeObserver(fit).observe(pane);
    const where = (event) => {
      const r = canvas.getBoundingClientRect();
      const x = Math.floor(((event.clientX - r.left) / r.width) * columns), y = Math.floor(((event.clientY - r.top) / r.height) * rows);
      return x < 0 || y < 0 || x >= columns || y >= rows ? null : [y, x];
    };
    const flip = (y) => (axis === "axial" ? y : rows - 1 - y); // the head is up
    const point = (event) => { const p = where(event); if (p) go({ [down]: flip(p[0]), [across]: p[1] }); };
    canvas.addEventListener("pointerdown", (e) => { pane.focus(); canvas.setPointerCapture(e.pointerId); point(e); });
    canvas.addEventListener("pointermove", (e) => { if (e.buttons) point(e); const p = where(e); if (p) tell(axis, p, flip); });
    pane.addEventListener("wheel", (e) => { e.preventDefault(); go({ [AXES.indexOf(axis)]: number(axis) + (e.deltaY > 0 ? -1 : 1) }); }, { passive: false });
    pane.addEventListener("keydown", (e) => {
      const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[e.key];
      if (step) go({ [AXES.indexOf(axis)]: number(axis) + step });
      else if (e.key === "Home" || e.key === "End") go({ [AXES.indexOf(axis)]: e.key === "Home" ? 0 : Infinity });
      else if (e.key === "m" || e.key === "p") { const name = e.key === "m" ? "mask" : "prediction"; place("shown", { ...model.get("shown"), [name]: !model.get("shown")[name] }); }
      else if (e.key === "[" || e.key === "]") { const [c, w] = model.get("window"); place("window", [c, Math.max(1, w * (e.key === "[" ? 0.9 : 1.1))]); }
      else return;
      e.preventDefault(); e.stopPropagation();
    });
    slider.addEventListener("input", () => go({ [AXES.indexOf(axis)]: Number(slider.value) }));
    panes[axis].flip = flip;
  }

  // the controls
  const read = make("div", { class: "ctv-read", "aria-live": "off" }, " ");
  const sliders = ["centre", "width"].map((name, k) => {
    const s = make("input", { type: "range", min: String(k ? 1 : facts.range[0]), max: String(k ? facts.range[1] - facts.range[0] : facts.range[1]), step: String(facts.step), "data-window": name, "aria-label": `window ${name}` });
    s.addEventListener("input", () => { const w = [...model.get("window")]; w[k] = Number(s.value); place("window", w); });
    return s;
  });
  const shown = make("span", {});
  const preset = make("select", { "aria-label": "window" }, make("option", { value: "" }, "window …"), ...Object.keys(facts.windows).map((n) => make("option", { value: n }, n.replace("_", " "))));
  preset.addEventListener("change", () => { if (preset.value) place("window", facts.windows[preset.value]); });
  const controls = make("div", { class: "ctv-row" }, preset, make("label", {}, "centre", sliders[0]), make("label", {}, "width", sliders[1]), shown);
  const boxes = {};
  for (const name of ["mask", "prediction"].filter((n) => facts.has[n])) {
    boxes[name] = make("input", { type: "checkbox", "data-show": name });
    boxes[name].addEventListener("change", () => place("shown", { ...model.get("shown"), [name]: boxes[name].checked }));
    controls.append(make("label", {}, boxes[name], name === "mask" ? "mask (filled)" : "prediction (outlined)"));
  }
  const legend = make("div", { class: "ctv-row" }, ...Object.values(palette).map((s) => make("span", {}, make("span", { class: "ctv-key", style: `background:rgb(${s.rgb})` }), s.name)));
  const help = make("div", { class: "ctv-help" }, "Wheel or ↑ ↓ change the slice, click or drag moves the cross, [ ] the window" + (facts.has.mask ? ", m the mask" : "") + (facts.has.prediction ? ", p the prediction" : "") + ".");
  el.append(make("style", {}, STYLE), make("div", { class: "ctv", "data-viewer": "" }, facts.title ? make("div", { class: "ctv-row" }, make("b", {}, facts.title)) : "", row, controls, legend, read, help));

  function tell(axis, [y, x], flip) {
    const p = planes[axis], { down, across, columns } = panes[axis];
    if (!p) return;
    const index = [...model.get("index")];
    index[AXES.indexOf(axis)] = p.at; index[down] = flip(y); index[across] = x;
    const mm = [2, 1, 0].map((k, a) => (facts.origin[a] + index[k] * facts.spacing[k]).toFixed(1));
    const value = p.hu[y * columns + x] * facts.slope + facts.intercept, n = y * columns + x;
    const names = ["mask", "prediction"].filter((k) => p[k] && p[k][n]).map((k) => `${k}: ${(palette[p[k][n]] || { name: p[k][n] }).name}`);
    read.textContent = [`${Number(value.toPrecision(6))}${facts.unit}`, `L ${mm[0]}  P ${mm[1]}  S ${mm[2]} mm`, ...names].join("   ·   ");
  }

  function draw(axis) {
    const p = planes[axis], { canvas, rows, columns } = panes[axis];
    if (!p) return;
    const [centre, width] = model.get("window"), low = (centre - width / 2 - facts.intercept) / facts.slope, scale = (255 * facts.slope) / width;
    const show = model.get("shown"), alpha = show.opacity, image = new ImageData(columns, rows), out = image.data;
    for (let k = 0; k < p.hu.length; k++) {
      let g = (p.hu[k] - low) * scale;
      g = g < 0 ? 0 : g > 255 ? 255 : g;
      let r = g, v = g, b = g, n = show.mask && p.mask ? p.mask[k] : 0, c = n && palette[n];
      if (c) { r += (c.rgb[0] - r) * alpha; v += (c.rgb[1] - v) * alpha; b += (c.rgb[2] - b) * alpha; }
      n = show.prediction && p.prediction ? p.prediction[k] : 0;
      if (n && palette[n]) { // an outline: a neighbour is something else
        const q = p.prediction;
        if (q[k - 1] !== n || q[k + 1] !== n || q[k - columns] !== n || q[k + columns] !== n) [r, v, b] = palette[n].rgb;
      }
      out[4 * k] = r; out[4 * k + 1] = v; out[4 * k + 2] = b; out[4 * k + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.dataset.drawn = p.at;
  }

  function settle() {
    const index = model.get("index");
    for (const axis of AXES) {
      const { lines, slider, label, down, across, rows, columns, flip } = panes[axis], k = AXES.indexOf(axis);
      slider.value = index[k];
      label.textContent = `${index[k] + 1}/${facts.shape[k]}`;
      lines[0].style.top = `${((flip(index[down]) + 0.5) / rows) * 100}%`;
      lines[1].style.left = `${((index[across] + 0.5) / columns) * 100}%`;
      if (!planes[axis] || planes[axis].at !== index[k]) ask(axis);
    }
  }
  function dress() {
    const [c, w] = model.get("window"), show = model.get("shown");
    sliders[0].value = c; sliders[1].value = w; shown.textContent = `${Number(c.toPrecision(4))} / ${Number(w.toPrecision(4))}${facts.unit}`;
    for (const [name, box] of Object.entries(boxes)) box.checked = show[name];
    AXES.forEach(draw);
  }
  model.on("change:index", settle);
  model.on("change:window", dress);
  model.on("change:shown", dress);
  dress();
  settle();
}

// A page of its own: the whole volume is in the page and answers for itself.
export default { render };
