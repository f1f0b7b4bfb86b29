// A slice with its mask under a brush. Python holds the mask; a stroke goes there and the mask comes back.
const bytes = (text) => Uint8Array.from(atob(text || ""), (c) => c.charCodeAt(0));
const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

export function render({ model }) {
  const box = document.createElement("div");
  box.style.cssText = "position:relative;background:#000;touch-action:none;width:100%;max-width:900px;max-height:85vh;overflow:auto";
  box.tabIndex = 0;
  const canvas = document.createElement("canvas");
  canvas.style.cssText = "display:block;width:100%;cursor:crosshair;image-rendering:pixelated";
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "slice under the brush");
  box.append(canvas);
  let stroke = null;

  function draw() {
    const { rows, columns, ratio } = model.facts;
    canvas.width = columns; canvas.height = rows;
    canvas.style.aspectRatio = String(ratio);
    const grey = bytes(model.image), mask = bytes(model.mask);
    if (grey.length !== rows * columns) return;
    const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows), data = picture.data, a = 0.4;
    const tints = Array.from({ length: 256 }, (_, k) => (k ? rgb(model.colours[String(k)] || "#ffd966").map((c) => a * c) : null));
    let painted = 0;
    for (let k = 0, at = 0; k < grey.length; k++, at += 4) {
      const tint = tints[mask[k]], value = grey[k];
      if (tint) {
        painted++;
        for (let j = 0; j < 3; j++) data[at + j] = (1 - a) * value + tint[j];
      } else {
        data[at] = value; data[at + 1] = value; data[at + 2] = value;
      }
      data[at + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
    canvas.dataset.painted = String(painted);
    canvas.dataset.slice = String(model.at);
  }
  function magnify() {
    const { scrollLeft: x, scrollTop: y, clientWidth: w, clientHeight: h } = box;
    const before = canvas.clientWidth / Math.max(1, w), ratio = model.zoom / before;
    canvas.style.width = `${100 * model.zoom}%`;
    box.scrollLeft = (x + w / 2) * ratio - w / 2; box.scrollTop = (y + h / 2) * ratio - h / 2;
  }
  const where = (event) => {
    const r = canvas.getBoundingClientRect();
    return [((event.clientY - r.top) / r.height) * model.facts.rows - 0.5, ((event.clientX - r.left) / r.width) * model.facts.columns - 0.5];
  };
  const dab = ([y, x]) => {
    const context = canvas.getContext("2d"), { dy, dx } = model.facts;
    context.fillStyle = model.number ? (model.colours[String(model.number)] || "#ffd966") + "88" : "#00000088";
    context.beginPath();
    context.ellipse(x + 0.5, y + 0.5, model.radius / dx, model.radius / dy, 0, 0, 7);
    context.fill();
  };
  const line = (from, to) => {
    const context = canvas.getContext("2d");
    context.strokeStyle = model.colours[String(model.number)] || "#ffffff";
    context.lineWidth = Math.max(0.5, 1.5 * model.facts.columns / canvas.clientWidth);
    context.beginPath();
    context.moveTo(from[1] + 0.5, from[0] + 0.5); context.lineTo(to[1] + 0.5, to[0] + 0.5);
    context.stroke();
  };
  const mark = () => { const n = stroke.length; if (model.lasso) line(stroke[Math.max(0, n - 2)], stroke[n - 1]); else dab(stroke[n - 1]); };
  canvas.addEventListener("pointerdown", (e) => { if (e.button) return; canvas.setPointerCapture(e.pointerId); stroke = [where(e)]; mark(); box.focus(); });
  canvas.addEventListener("pointermove", (e) => { if (stroke) { stroke.push(where(e)); mark(); } });
  canvas.addEventListener("pointerup", () => { if (stroke) model.send_msg({ stroke, at: model.at }); stroke = null; });
  canvas.addEventListener("pointercancel", () => { stroke = null; draw(); });
  box.addEventListener("wheel", (e) => {
    e.preventDefault();
    model.send_msg(e.ctrlKey ? { zoom: model.zoom * (e.deltaY < 0 ? 1.25 : 0.8) } : { go: model.at + Math.sign(e.deltaY) });
  }, { passive: false });
  box.addEventListener("keydown", (e) => {
    const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[e.key];
    if (step) { e.preventDefault(); model.send_msg({ go: model.at + step }); }
    else if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "z") { e.preventDefault(); model.send_msg({ undo: !e.shiftKey }); }
    else if ("ebl".includes(e.key)) model.send_msg({ key: e.key });
    else if ("+-=".includes(e.key)) model.send_msg({ zoom: model.zoom * (e.key === "-" ? 0.8 : 1.25) });
    else if (e.key === "[" || e.key === "]") model.send_msg({ radius: model.radius * (e.key === "[" ? 0.8 : 1.25) });
  });
  for (const name of ["image", "mask", "facts", "at"]) model.on(name, draw);
  model.on("zoom", magnify);
  draw();
  return box;
}
