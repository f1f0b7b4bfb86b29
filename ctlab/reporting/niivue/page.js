// A page with NiiVue: the scan, masks with their names, surfaces, windows, measuring; still slices without WebGL 2.
const data = JSON.parse(document.getElementById('data').textContent);
const byId = (id) => document.getElementById(id);
const canvas = byId('canvas');

function hasWebGL2() {
  try {
    return Boolean(document.createElement('canvas').getContext('webgl2'));
  } catch (error) {
    return false;
  }
}

function showStills(why) {
  byId('why').textContent = why;
  byId('stills').append(byId('still'));
  byId('viewer').remove();
  byId('stills').hidden = false;
}

function labelTable(hidden) {
  const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: ['background'] };
  for (const s of data.structures) {
    const value = parseInt(s.colour.slice(1), 16);
    table.R.push((value >> 16) & 255);
    table.G.push((value >> 8) & 255);
    table.B.push(value & 255);
    table.A.push(hidden.has(s.number) ? 0 : 255);
    table.I.push(s.number);
    table.labels.push(s.name);
  }
  return table;
}

// NiiVue's millimetres grow to the right, to the front and up; DICOM's to the left and to the back.
function where(mm) {
  const [x, y, z] = [-mm[0], -mm[1], mm[2]];
  const word = (value, plus, minus) => `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(1)}`;
  return `${word(x, 'L', 'R')} ${word(y, 'P', 'A')} ${word(z, 'S', 'I')} mm`;
}

async function start() {
  const { Niivue, NVImage, NVMesh, SLICE_TYPE, DRAG_MODE, SHOW_RENDER } = window.niivue;
  const nv = new Niivue({
    isRadiologicalConvention: true, sagittalNoseLeft: true, multiplanarShowRender: SHOW_RENDER.NEVER,
    crosshairColor: [1, 0.85, 0.2, 0.8], crosshairWidth: 0.25, crosshairWidthUnit: 'percent', backColor: [0, 0, 0, 1], dragAndDropEnabled: false, isColorbar: false,
  });
  const text = (id) => byId(id).textContent.trim();
  const image = async (id, more) => {
    const loaded = await NVImage.loadFromBase64({ base64: text(id), name: `${id}.nii.gz`, ...more });
    byId(id).remove(); // the text is not needed any more
    return loaded;
  };
  await nv.attachToCanvas(canvas);
  const upload = nv.updateGLVolume.bind(nv);
  nv.updateGLVolume = () => {}; // each volume that is added would send all of them to the graphics card again
  const [centre, width] = data.window;
  nv.addVolume(await image('scan', { colormap: 'gray', cal_min: centre - width / 2, cal_max: centre + width / 2 }));
  const hidden = new Set();
  const overlays = {};
  for (const id of ['mask', 'prediction']) {
    if (!byId(id)) continue;
    const loaded = await image(id, { opacity: id === 'mask' ? data.opacity : 1 });
    loaded.setColormapLabel(labelTable(hidden));
    nv.addVolume(loaded);
    overlays[id] = loaded;
  }
  const index = (loaded) => nv.volumes.indexOf(loaded);
  for (const surface of data.surfaces) {
    const value = parseInt(surface.colour.slice(1), 16);
    const rgba255 = [(value >> 16) & 255, (value >> 8) & 255, value & 255, 255];
    const bytes = Uint8Array.from(atob(surface.mz3), (c) => c.charCodeAt(0));
    const mesh = await NVMesh.readMesh(bytes.buffer, `${surface.name}.mz3`, nv.gl, 1, rgba255);
    mesh.visible = false;
    mesh.structure = surface.number;
    nv.addMesh(mesh);
  }
  const redraw = () => { nv.updateGLVolume(); nv.drawScene(); };
  const refreshMeshes = () => {
    const on = byId('surfaces') && byId('surfaces').checked;
    for (const mesh of nv.meshes) mesh.visible = on && !hidden.has(mesh.structure);
    nv.opts.meshXRay = 0;
    nv.drawScene();
  };

  nv.onLocationChange = (found) => {
    const [value, ...labels] = found.values;
    const shown = Number.isInteger(value.value) ? value.value : value.value.toFixed(2);
    const names = labels.map((l) => l.value).filter((v) => v > 0)
      .map((v) => (data.structures.find((s) => s.number === v) || { name: `number ${v}` }).name);
    byId('where').textContent = `${shown}${data.unit}  ${[...new Set(names)].join(', ')}  ${where(found.mm)}`;
  };

  const layouts = { all: SLICE_TYPE.MULTIPLANAR, planes: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL,
    sagittal: SLICE_TYPE.SAGITTAL, volume: SLICE_TYPE.RENDER };
  const setLayout = (name) => {
    nv.opts.multiplanarShowRender = name === 'all' ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    nv.setSliceType(layouts[name]);
  };
  byId('layout').onchange = (event) => setLayout(event.target.value);
  const setWindow = ([c, w]) => {
    const scan = nv.volumes[0];
    [scan.cal_min, scan.cal_max] = [c - w / 2, c + w / 2];
    [byId('centre').value, byId('width').value] = [c, w];
    redraw();
  };
  byId('window').onchange = (event) => setWindow(data.windows[event.target.value]);
  for (const id of ['centre', 'width']) {
    byId(id).onchange = () => setWindow([Number(byId('centre').value), Math.max(1, Number(byId('width').value))]);
  }
  nv.onIntensityChange = (scan) => {
    byId('centre').value = Math.round((scan.cal_min + scan.cal_max) / 2);
    byId('width').value = Math.round(scan.cal_max - scan.cal_min);
  };
  byId('colours').onchange = (event) => {
    const name = event.target.value;
    nv.setColormap(nv.volumes[0].id, name);
    const range = { ct_bones: [140, 600], ct_vessels: [100, 400], ct_muscles: [-60, 250] }[name];
    setWindow(range ? [(range[0] + range[1]) / 2, range[1] - range[0]] : data.window);
  };
  byId('measure').onclick = (event) => {
    const on = event.target.getAttribute('aria-pressed') !== 'true';
    event.target.setAttribute('aria-pressed', on);
    nv.setMouseEventConfig({
      leftButton: { primary: on ? DRAG_MODE.measurement : DRAG_MODE.crosshair },
      rightButton: DRAG_MODE.contrast, centerButton: DRAG_MODE.pan,
    });
    if (!on) nv.clearMeasurements?.();
    nv.drawScene();
  };
  const opacity = (id) => {
    if (byId(`show-${id}`)?.checked === false) return 0;
    return id === 'mask' && byId('opacity') ? Number(byId('opacity').value) : 1;
  };
  if (byId('opacity')) {
    byId('opacity').oninput = () => {
      if (overlays.mask) nv.setOpacity(index(overlays.mask), opacity('mask'));
    };
  }
  if (byId('surfaces')) byId('surfaces').onchange = refreshMeshes;
  for (const box of document.querySelectorAll('[data-structure]')) {
    box.onchange = () => {
      const number = Number(box.dataset.structure);
      if (box.checked) hidden.delete(number); else hidden.add(number);
      for (const loaded of Object.values(overlays)) loaded.setColormapLabel(labelTable(hidden));
      redraw();
      refreshMeshes();
    };
  }
  for (const id of Object.keys(overlays)) {
    byId(`show-${id}`).onchange = () => nv.setOpacity(index(overlays[id]), opacity(id));
  }
  // NiiVue's own way with dropped files asks the browser for directories, which pages opened from a file may not do.
  const show = async (files, beside) => {
    const loaded = await Promise.all(files.map((file) => NVImage.loadFromFile({ file, name: file.name })));
    if (!beside) {
      for (const volume of [...nv.volumes]) nv.removeVolume(volume);
      for (const mesh of [...nv.meshes]) nv.removeMesh(mesh);
      for (const id of Object.keys(overlays)) delete overlays[id];
      for (const box of document.querySelectorAll('[data-structure], [id^="show-"], #opacity, #surfaces')) box.disabled = true;
    }
    for (const volume of loaded) nv.addVolume(volume);
    nv.createOnLocationChange();
  };
  canvas.addEventListener('dragover', (event) => event.preventDefault());
  canvas.addEventListener('drop', (event) => {
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    const failed = () => { byId('where').textContent = `${files.map((f) => f.name).join(', ')}: cannot be shown`; };
    if (files.length) show(files, event.shiftKey).catch(failed);
  });
  nv.onImageLoaded = () => {
    const frames = nv.volumes[0].nFrame4D || 1;
    byId('frames').hidden = frames < 2;
    byId('frame').max = frames - 1;
  };
  byId('frame').oninput = (event) => nv.setFrame4D(nv.volumes[0].id, Number(event.target.value));
  nv.updateGLVolume = upload;
  nv.scene.crosshairPos = nv.mm2frac(data.start);
  nv.updateGLVolume();
  byId('layout').value = data.rendered ? 'all' : 'planes'; // a large volume is rendered when it is asked for
  setLayout(byId('layout').value);
  nv.createOnLocationChange();
  byId('still').remove();
  window.viewer = nv;
  document.body.dataset.ready = 'true';
}

if (hasWebGL2()) {
  start().catch((error) => {
    console.error(error);
    showStills(`the viewer stopped (${error.message})`);
  });
} else {
  showStills('this browser has no WebGL 2');
}
