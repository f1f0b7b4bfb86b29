"""The time of a slice change in the lab's page and in NiiVue, three planes at once, in one Chromium without a GPU.

npm pack @niivue/niivue && tar xzf niivue-niivue-*.tgz
python benchmarks/viewer.py package/dist/niivue.umd.js
"""

import base64
import sys
import tempfile
from pathlib import Path

import numpy as np

from ctlab.reporting.viewer import scan_page
from ctlab.scans import nifti
from ctlab.scans.volume import make_volume

SHAPE, SPACING, CHANGES = (300, 512, 512), (1.5, 0.8, 0.8), 60

OURS = """async (n) => {
  const slider = document.querySelector('input[aria-label="axial slice"]'), last = Number(slider.max), times = [];
  const canvas = document.querySelector('canvas[data-plane=axial]');
  for (let k = 0; k < n; k++) {
    const start = performance.now();
    slider.value = String(Math.round(last * (k + 1) / (n + 1)));
    slider.dispatchEvent(new Event('input', { bubbles: true }));
    await new Promise(requestAnimationFrame);
    canvas.getContext('2d').getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times;
}"""

NIIVUE = """async (n) => {
  const { gl } = nv, times = [], pixel = new Uint8Array(4);
  for (let k = 0; k < n; k++) {
    const start = performance.now();
    nv.scene.crosshairPos[2] = (k + 1) / (n + 1);
    nv.drawScene();
    await new Promise(requestAnimationFrame);
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    times.push(performance.now() - start);
  }
  return times;
}"""


def scan():
    """Make a body of soft tissue, noise and bone."""
    z, y, x = (
        np.linspace(-1, 1, n, dtype=np.float32).reshape([-1 if a == k else 1 for a in range(3)])
        for k, n in enumerate(SHAPE)
    )
    inside = (y / 0.7) ** 2 + (x / 0.85) ** 2 < 1 + 0 * z
    noise = np.random.default_rng(0).normal(0, 15, SHAPE).astype(np.float32)
    return make_volume(
        np.where(inside, 50 + 200 * ((y - 0.4) ** 2 + x**2 < 0.02) + noise, -1000).astype(np.int16), SPACING
    )


def niivue_page(script, file):
    """NiiVue with the scan inside the page, as ours is."""
    script = script.replace('</script', '<' + chr(92) + '/script')
    return (
        "<!doctype html><meta charset='utf-8'><body><canvas id='gl' width='1200' height='800'></canvas>"
        f'<script>{script}</script>'
        f"<script>const bytes = Uint8Array.from(atob('{base64.b64encode(file).decode()}'), (c) => c.charCodeAt(0));"
        'window.ready = (async () => { window.nv = new niivue.Niivue({ isResizeCanvas: false });'
        "await nv.attachTo('gl');"
        "const image = await niivue.NVImage.new(bytes.buffer, 'scan.nii.gz', 'gray', 1, null, -160, 240);"
        'nv.addVolume(image);'
        'nv.setSliceType(nv.sliceTypeMultiplanar); nv.drawScene(); return nv.volumes.length; })();</script>'
    )


def main(script):
    from playwright.sync_api import sync_playwright

    volume = scan()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        nifti.write(volume, Path(folder) / 'scan.nii.gz')
        pages = {f'ctlab page, {n} cells a side': (scan_page(volume, limit=n), OURS, None) for n in (192, 256)}
        if script:
            whole = niivue_page(Path(script).read_text(), (Path(folder) / 'scan.nii.gz').read_bytes())
            pages['NiiVue, whole scan'] = (whole, NIIVUE, 'ready')
        else:
            print('NiiVue is not measured: give the path of its niivue.umd.js (see the first lines of this file)')
        browser = play.chromium.launch(
            executable_path='/usr/bin/chromium',
            args=['--no-sandbox', '--use-gl=angle', '--use-angle=swiftshader', '--enable-unsafe-swiftshader'],
        )
        print(
            f'{SHAPE[1]} x {SHAPE[2]} x {SHAPE[0]} voxels, {CHANGES} slice changes, three planes, '
            f'Chromium {browser.version}, no GPU\n'
        )
        print(f'{"":<34}{"median ms":>10}{"95 %":>8}{"page MB":>9}{"ready s":>9}')
        for name, (text, work, wait) in pages.items():
            path = Path(folder) / 'page.html'
            path.write_text(text)
            page = browser.new_page(viewport={'width': 1280, 'height': 900})
            page.set_default_timeout(300_000)
            page.goto(path.as_uri())
            page.wait_for_function(f'window.{wait}' if wait else "document.querySelector('canvas[data-plane=axial]')")
            if wait:
                page.evaluate(f'window.{wait}')
            ready = page.evaluate('performance.now()') / 1000
            times = page.evaluate(work, CHANGES)
            median, late = np.quantile(times, (0.5, 0.95))
            print(f'{name:<34}{median:>10.1f}{late:>8.1f}{len(text) / 1e6:>9.1f}{ready:>9.1f}')
            page.close()
        browser.close()


if __name__ == '__main__':
    main(sys.argv[1] if len(sys.argv) > 1 else '')
