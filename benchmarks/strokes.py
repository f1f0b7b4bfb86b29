"""Paint with the workbench's brush in a real browser: the time from lifting the mouse until the mask is on the picture.

    python benchmarks/strokes.py

A scan of 300 × 512 × 512; twenty strokes in each plane, with a disc and with a ball. The stroke goes to Python and the
mask comes back; what is painted meanwhile shows under the brush at once.
"""

import tempfile
from pathlib import Path

import numpy as np
from clocks import note
from network import free_port
from viewer import scan

STROKES = 20
AIM_MS = 50.0
WATCH = """(canvas) => {
  window.times = [];
  let lifted = 0;
  canvas.addEventListener('pointerup', () => { lifted = performance.now(); });
  new MutationObserver(() => { if (lifted) { window.times.push(performance.now() - lifted); lifted = 0; } })
    .observe(canvas, { attributes: true, attributeFilter: ['data-painted'] });
}"""


def brush_pages(folder):
    """Make a page for each plane and tool: its name -> its widget."""
    from ctlab.interfaces.app import BrushWidget
    from ctlab.interfaces.workbench import MaskEditor, Workspace
    from ctlab.scans import nifti

    (folder / 'volumes').mkdir(parents=True)
    nifti.write(scan(), folder / 'volumes' / 'scan.nii.gz')
    work = Workspace(folder)
    painting = MaskEditor(work, work.scans()[0])

    def widget(axis, ball):
        brush = BrushWidget(painting, ball=ball, sizing_mode='stretch_width')
        brush.turn(axis, painting.slices(axis) // 2)
        return brush

    planes = enumerate(('axial', 'coronal', 'sagittal'))
    return {
        f'{plane}-{"ball" if ball else "disc"}': widget(axis, ball) for axis, plane in planes for ball in (False, True)
    }


def paint(page, canvas, top):
    """Draw strokes where nothing is painted yet; returns what each took, in ms."""
    box = canvas.bounding_box()
    canvas.evaluate(WATCH)
    for k in range(STROKES):
        x = box['x'] + box['width'] * (0.15 + 0.15 * (k % 5))
        y = box['y'] + min(box['height'], 560) * (top + 0.1 * (k // 5))
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 50, y + 12, steps=8)
        page.mouse.up()
        page.wait_for_function(f'window.times.length > {k}')
    return page.evaluate('window.times')


def main():
    """Print a line for each plane and tool."""
    import shutil

    import panel as pn
    from playwright.sync_api import sync_playwright

    chromium = next(p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        port, pages = free_port(), brush_pages(Path(folder) / 'work')
        server = pn.serve(pages, port=port, show=False, threaded=True, verbose=False)
        page = p.chromium.launch(executable_path=chromium, args=['--no-sandbox']).new_page()
        print(f'{"a stroke of 300 x 512 x 512":<32}{"median ms":>11}{"95 %":>8}')
        for name in pages:
            page.goto(f'http://localhost:{port}/{name}')
            canvas = page.locator('canvas')
            canvas.wait_for()
            page.wait_for_timeout(2000)
            times = paint(page, canvas, 0.55 if 'ball' in name else 0.1)
            print(f'{name:<32}{np.median(times):>11.1f}{np.percentile(times, 95):>8.1f}', flush=True)
            note(f'a stroke in 300 x 512 x 512, {name}', float(np.median(times)), 'aim', AIM_MS, 'ms')
        server.stop()


if __name__ == '__main__':
    main()
