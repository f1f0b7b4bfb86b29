"""The page of a scan in one Chromium: its size, time to the first picture, a slice's, and memory, by resolution.

`python benchmarks/viewer.py 900` asks it of 900 slices; 300 when left out.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from clocks import note

from ctlab.reporting.viewer import scan_page
from ctlab.scans.volume import make_volume

_SOFTWARE = 'the picture is computed by the processor here, without a graphics card'
SLICES_OF_SCAN = int(sys.argv[1]) if len(sys.argv) > 1 else 300
SHAPE, SPACING, CHANGES = (SLICES_OF_SCAN, 512, 512), (450 / SLICES_OF_SCAN, 0.8, 0.8), 60

SLICES = """async (n) => {
  const { gl } = viewer, times = [], pixel = new Uint8Array(4);
  for (let k = 0; k < n; k++) {
    const start = performance.now();
    viewer.scene.crosshairPos[2] = (k + 1) / (n + 1);
    viewer.drawScene();
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


def browser_memory():
    """Add up what the processes of the browser hold, in MiB."""
    import psutil

    mine = [c for c in psutil.Process().children(recursive=True) if 'chrom' in c.name()]
    return sum(c.memory_full_info().pss for c in mine) / 2**20


def main():
    """Print a line for each resolution."""
    import shutil

    from playwright.sync_api import sync_playwright

    chromium = next(p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p)
    volume = scan()
    print(f'{"":<24}{"made s":>8}{"page MB":>9}{"ready s":>9}{"median ms":>11}{"95 %":>8}{"memory MB":>11}')
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p:
        for words, limit in (('192 cells a side', 192), ('full resolution', 0)):
            start, path = time.perf_counter(), Path(folder) / 'page.html'
            path.write_text(scan_page(volume, limit=limit))
            made = time.perf_counter() - start
            browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
            page = browser.new_page(viewport={'width': 1280, 'height': 900})
            page.set_default_timeout(600_000)
            start = time.perf_counter()
            page.goto(path.as_uri())
            page.wait_for_selector('body[data-ready]')
            ready = time.perf_counter() - start
            page.locator('#layout').select_option('planes')
            times = page.evaluate(SLICES, CHANGES)
            row = made, path.stat().st_size / 2**20, ready, np.median(times), np.percentile(times, 95), browser_memory()
            print(f'{words:<24}' + ''.join(f'{v:>{w}.1f}' for v, w in zip(row, (8, 9, 9, 11, 8, 11))), flush=True)
            note(
                f'a slice of {SLICES_OF_SCAN} x 512 x 512 in the browser, {words}',
                row[3],
                'a screen of 60 Hz',
                1000 / 60,
                'ms',
                reason=_SOFTWARE,
            )
            browser.close()


if __name__ == '__main__':
    main()
