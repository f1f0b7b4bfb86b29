// A slice with its mask under a brush. Python holds the mask; a stroke goes there and the mask comes back.
const bytes = (text) => Uint8Array.from(atob(text || ""), (c) => c.charCodeAt(0));
const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));

export function render({ model }) {
  const box = document.createElement("div");
  box.style.cssText = "position:relative;background:#000;outline:none;touch-action:none;width:100%;max-width:640px";
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
    const context = canvas.getContext("2d"), picture = context.createImageData(columns, rows);
    for (let k = 0; k < grey.length; k++) {
      const c = mask[k] ? rgb(model.colours[String(mask[k])] || "#ffd966") : null, a = 0.4;
      for (let j = 0; j < 3; j++) picture.data[4 * k + j] = c ? (1 - a) * grey[k] + a * c[j] : grey[k];
      picture.data[4 * k + 3] = 255;
    }
    context.putImageData(picture, 0, 0);
    canvas.dataset.painted = String(mask.reduce((n, v) => n + (v > 0), 0));
    canvas.dataset.slice = String(model.at);
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
  canvas.addEventListener("pointerdown", (e) => { canvas.setPointerCapture(e.pointerId); stroke = [where(e)]; dab(stroke[0]); box.focus(); });
  canvas.addEventListener("pointermove", (e) => { if (stroke) { stroke.push(where(e)); dab(stroke[stroke.length - 1]); } });
  canvas.addEventListener("pointerup", () => { if (stroke) model.send_msg({ stroke, at: model.at }); stroke = null; });
  canvas.addEventListener("pointercancel", () => { stroke = null; draw(); });
  box.addEventListener("wheel", (e) => { e.preventDefault(); model.send_msg({ go: model.at + Math.sign(e.deltaY) }); }, { passive: false });
  box.addEventListener("keydown", (e) => {
    const step = { ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5 }[e.key];
    if (step) { e.preventDefault(); model.send_msg({ go: model.at + step }); }
    else if ((e.ctrlKey || e.metaKey) && e.key.toLowerCase() === "z") { e.preventDefault(); model.send_msg({ undo: !e.shiftKey }); }
    else if (e.key === "e" || e.key === "b") model.send_msg({ key: e.key });
    else if (e.key === "[" || e.key === "]") model.send_msg({ radius: model.radius * (e.key === "[" ? 0.8 : 1.25) });
  });
  for (const name of ["image", "mask", "facts", "at"]) model.on(name, draw);
  draw();
  return box;
}
