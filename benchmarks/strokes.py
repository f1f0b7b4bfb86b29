"""Paint with the workbench's brush in a real browser: the time from lifting the mouse until the mask is on the picture.

    python benchmarks/strokes.py

A scan of 300 × 512 × 512; twenty strokes in each plane, with a disc and with a ball. The stroke goes to Python and the
mask comes back; what is painted meanwhile shows under the brush at once.
"""

import socket
import tempfile
from pathlib import Path

import numpy as np
from clocks import note
from viewer import scan

STROKES = 20
AIM_MS = 50.0
WATCH = """() => {
  const canvas = document.querySelector('canvas[data-slice]') || [...document.querySelectorAll('*')]
    .map((e) => e.shadowRoot && e.shadowRoot.querySelector('canvas[data-slice]')).find(Boolean);
  window.times = [];
  let lifted = 0;
  canvas.addEventListener('pointerup', () => { lifted = performance.now(); });
  new MutationObserver(() => { if (lifted) { window.times.push(performance.now() - lifted); lifted = 0; } })
    .observe(canvas, { attributes: true, attributeFilter: ['data-painted'] });
}"""


def serve(folder):
    """Serve a brush on the scan; returns (server, brush, address)."""
    import panel as pn

    from ctlab.interfaces.app import BrushWidget
    from ctlab.interfaces.workbench import MaskEditor, Workspace
    from ctlab.scans import nifti

    (folder / 'volumes').mkdir(parents=True)
    nifti.write(scan(), folder / 'volumes' / 'scan.nii.gz')
    work = Workspace(folder)
    painting = MaskEditor(work, work.scans()[0])
    brush = BrushWidget(painting, sizing_mode='stretch_width')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    server = pn.serve({'brush': brush}, port=port, show=False, threaded=True, verbose=False)
    return server, brush, f'http://localhost:{port}/brush'


def paint(page, canvas, spread):
    """Draw strokes, one after the other; returns what each took, in ms."""
    box = canvas.bounding_box()
    page.evaluate(WATCH)
    for k in range(STROKES):
        x, y = (box[s] + box[n] * (0.35 + spread * (k % 5) / 5) for s, n in (('x', 'width'), ('y', 'height')))
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 40 + k, y + 25, steps=8)
        page.mouse.up()
        page.wait_for_function(f'window.times.length > {k}')
    return page.evaluate('window.times')


def main():
    """Print a line for each plane and tool."""
    import shutil

    from playwright.sync_api import sync_playwright

    chromium = next(p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        server, brush, address = serve(Path(folder) / 'work')
        page = p.chromium.launch(executable_path=chromium, args=['--no-sandbox']).new_page()
        page.goto(address)
        canvas = page.locator('canvas')
        canvas.wait_for()
        print(f'{"a stroke of 300 x 512 x 512":<32}{"median ms":>11}{"95 %":>8}')
        for axis, plane in enumerate(('axial', 'coronal', 'sagittal')):
            for ball in (False, True):
                brush.turn(axis, brush.painting.slices(axis) // 2)
                brush.ball = ball
                page.wait_for_timeout(1500)
                times = paint(page, canvas, 0.25)
                words = f'{plane}, {"ball" if ball else "disc"}'
                print(f'{words:<32}{np.median(times):>11.1f}{np.percentile(times, 95):>8.1f}', flush=True)
                note(f'a stroke in 300 x 512 x 512: {words}', float(np.median(times)), 'aim', AIM_MS, 'ms')
        server.stop()


if __name__ == '__main__':
    main()
