"""The viewer in a real browser: on a page of its own, and beside a kernel in JupyterLab."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import eventually, free_port, waits


def pixels(page, plane):
    """Read what a plane's canvas shows."""
    return page.eval_on_selector(f'canvas[data-plane={plane}]', 'c => c.toDataURL()')


def drawn(page, plane, at):
    page.wait_for_function(
        '([plane, at]) => document.querySelector(`canvas[data-plane=${plane}]`).dataset.drawn == at', arg=[plane, at]
    )


def made_page(ctlab, folder, *more):
    """Write the page of a small scan with a box in it; returns (page, values, mask)."""
    from ctlab.scans import nifti
    from ctlab.scans.volume import Volume

    hu = np.random.default_rng(0).integers(-900, 900, (20, 30, 40)).astype(np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[8:12, 10:20, 10:20] = 1
    mask[14:18, 10:20, 22:32] = 2
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[:3, 3] = 100, -50, 30
    scan = nifti.write(Volume(hu, affine), folder / 'scan.nii.gz')
    label = nifti.write(Volume(mask, affine), folder / 'mask.nii.gz')
    done = ctlab(
        *('view', scan, folder / 'scan.html', '--mask', label, '--structures', 'spleen,liver', '--json', *more)
    )
    assert done.returncode == 0 and json.loads(done.stdout)['bytes'] > 1000, done.stderr
    return folder / 'scan.html', hu, mask


def opened(browser, path):
    """Open a page from a file; errors and requests to anywhere are collected."""
    page, wrong = browser.new_page(viewport={'width': 1200, 'height': 700}), []
    page.set_default_timeout(120_000)
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on('request', lambda r: wrong.append(r.url) if not r.url.startswith(('file:', 'blob:', 'data:')) else None)
    page.goto(f'file://{path}')
    return page, wrong


def surfaces_lie_where_the_masks_are(page):
    """Switch the surfaces on: what is hidden stays hidden, and the other is in its place."""
    page.locator('#surfaces').check()
    assert page.evaluate('viewer.meshes.map((m) => m.visible)') == [True, False], 'of what is not hidden'
    spans = page.evaluate(
        'viewer.meshes[0].extentsMax && [...viewer.meshes[0].extentsMin, ...viewer.meshes[0].extentsMax]'
    )
    assert np.allclose(spans, [-120, 30, 45, -109, 41, 54], atol=2.5), 'the surface lies where the mask is'


def measure(page, box):
    """Draw a measuring line."""
    page.locator('#measure').click()
    page.mouse.move(box['x'] + 450, box['y'] + 250)
    page.mouse.down()
    page.mouse.move(box['x'] + 650, box['y'] + 250, steps=5)
    page.mouse.up()


def test_a_page_of_its_own(ctlab, tmp_path, browser, shots):
    path, hu, _ = made_page(ctlab, tmp_path)
    page, wrong = opened(browser, path)
    page.wait_for_selector('body[data-ready]', timeout=120_000)
    canvas, where = page.locator('#canvas'), page.locator('#where')

    def shown():
        page.evaluate('viewer.drawScene()')
        return canvas.screenshot()

    z, y, x = 8, 14, 14  # it opens where the mask is
    first = f'{hu[z, y, x]} HU spleen L {100 + x:.1f} A {50 - y:.1f} S {30 + 2 * z:.1f} mm'
    assert re.sub(r'\s+', ' ', where.inner_text()) == first, 'value, name and place in the patient'
    spot = (100 + 25, -50 + 12, 30 + 2 * 15)  # in the liver
    page.evaluate(
        '([x, y, z]) => {viewer.scene.crosshairPos = viewer.mm2frac([-x, -y, z]); viewer.createOnLocationChange()}',
        spot,
    )
    assert where.inner_text().startswith(f'{hu[15, 12, 25]} HU') and 'liver' in where.inner_text()
    assert page.evaluate('[viewer.volumes[0].dimsRAS[1], viewer.volumes[0].dimsRAS[3]]') == [40, 20], 'full resolution'
    before = shown()
    page.locator('[data-structure="2"]').uncheck()
    hidden = shown()
    page.locator('#opacity').fill('0.8')
    page.locator('#show-mask').uncheck()
    assert len({before, hidden, shown()}) == 3
    page.locator('#show-mask').check()
    assert abs(page.evaluate('viewer.volumes[1].opacity') - 0.8) < 1e-6, 'as the slider says'
    page.locator('#window').select_option('bone')
    assert page.evaluate('[viewer.volumes[0].cal_min, viewer.volumes[0].cal_max]') == [-450, 1350]
    surfaces_lie_where_the_masks_are(page)
    page.locator('#layout').select_option('volume')
    rendered = shown()
    page.locator('#layout').select_option('axial')
    assert shown() != rendered
    measure(page, canvas.bounding_box())
    page.screenshot(path=str(shots / 'viewer-page.png'))
    assert page.evaluate('viewer.document.completedMeasurements.length') == 1
    assert not wrong, wrong[:3]


def drop_file(page, path, modifiers=0):
    """Drop a file on the picture, as a person does; a script's own events carry no files."""
    box = page.locator('#canvas').bounding_box()
    at = {'x': box['x'] + box['width'] / 2, 'y': box['y'] + box['height'] / 2}
    carried = {'items': [], 'files': [str(path)], 'dragOperationsMask': 1}
    session = page.context.new_cdp_session(page)
    for kind in ('dragEnter', 'dragOver', 'drop'):
        session.send('Input.dispatchDragEvent', {'type': kind, 'data': carried, 'modifiers': modifiers, **at})


def test_a_file_that_is_dropped_and_its_time(ctlab, tmp_path, browser):
    """A series in time is dropped on the page: it is shown, a slider appears, and every moment has its values."""
    import nibabel

    path, *_ = made_page(ctlab, tmp_path)
    moments = np.stack([np.full((12, 11, 10), 100 * (k + 1), np.int16) for k in range(4)], -1)
    nibabel.save(nibabel.Nifti1Image(moments, np.diag([2.0, 2, 2, 1])), tmp_path / 'perfusion.nii.gz')
    page, wrong = opened(browser, path)
    page.wait_for_selector('body[data-ready]', timeout=120_000)
    assert page.locator('#frames').is_hidden(), 'one moment needs no slider'
    drop_file(page, tmp_path / 'perfusion.nii.gz')
    page.locator('#frames').wait_for(state='visible')
    assert page.evaluate('[viewer.volumes[0].dimsRAS[1], viewer.volumes[0].nFrame4D]') == [12, 4]
    slider = page.locator('#frame')
    assert slider.get_attribute('max') == '3'
    for k in (2, 0, 3):
        slider.fill(str(k))
        page.evaluate('viewer.scene.crosshairPos = [0.5, 0.5, 0.5]; viewer.createOnLocationChange()')
        assert page.locator('#where').inner_text().startswith(str(100 * (k + 1))), k
    (tmp_path / 'broken.nii.gz').write_bytes(b'no volume')
    drop_file(page, tmp_path / 'broken.nii.gz')
    page.wait_for_function("document.getElementById('where').textContent == 'broken.nii.gz: cannot be shown'")
    drop_file(page, tmp_path / 'mask.nii.gz', 8)
    page.wait_for_function('viewer.volumes.length == 2')
    names = page.evaluate('viewer.volumes.map((v) => v.name)')
    assert names == ['perfusion.nii.gz', 'mask.nii.gz'], 'what cannot be read takes nothing away; shift adds'
    assert not wrong, wrong[:3]


def test_a_small_page_and_one_without_webgl(ctlab, tmp_path, browser, shots):
    from conftest import CHROMIUM

    path, *_ = made_page(ctlab, tmp_path, '--limit', '16')
    plain = browser.browser_type.launch(executable_path=CHROMIUM, args=['--no-sandbox', '--disable-3d-apis'])
    try:
        page, wrong = opened(plain, path)
        page.wait_for_selector('#stills:not([hidden])')
        assert 'this browser has no WebGL 2' in page.locator('#stills').inner_text()
        assert page.locator('#stills img').evaluate('i => i.naturalWidth') > 300
        page.screenshot(path=str(shots / 'viewer-stills.png'))
        assert not wrong, wrong[:3]
    finally:
        plain.close()


@pytest.mark.parametrize(
    'arguments, words', [(('none.nii.gz',), 'no such file'), (('.', 'page.txt'), '.html'), (('.', 'page.html'), '')]
)
def test_view_says_what_is_wrong(ctlab, tmp_path, arguments, words):
    done = ctlab('view', *(str(tmp_path / a) for a in arguments))
    assert (
        done.returncode == 1
        and words in done.stderr
        and 'Traceback' not in done.stderr
        and not (tmp_path / 'page.html').exists()
    )


BROWSE = 'import ctlab\nfrom ctlab.core.settings import Settings\nctlab.browse(Settings())'


@pytest.fixture
def lab(root, tmp_path):
    """JupyterLab on a copy of the chapter on DICOM and a notebook that leafs through the tiny cohort."""
    shutil.copy(root / 'nbs' / '01_dicom.ipynb', tmp_path / '01_dicom.ipynb')
    kernel = {'name': 'python3', 'display_name': 'Python 3', 'language': 'python'}
    leaf = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(BROWSE)], metadata={'kernelspec': kernel})
    nbformat.write(leaf, tmp_path / 'browse.ipynb')
    settings = tmp_path / 'config/lab/user-settings/@jupyterlab/notebook-extension/tracker.jupyterlab-settings'
    settings.parent.mkdir(parents=True)
    settings.write_text('{"windowingMode": "none"}')
    port = free_port()
    options = f'--no-browser --ip=127.0.0.1 --port={port} --IdentityProvider.token=t --allow-root'
    command = [sys.executable, '-m', 'jupyterlab', *options.split(), f'--ServerApp.root_dir={tmp_path}']
    env = os.environ | {'JUPYTER_CONFIG_DIR': str(tmp_path / 'config'), 'JUPYTER_PREFER_ENV_PATH': '1'}
    with open(tmp_path / 'lab.log', 'w') as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=root)
    base = f'http://127.0.0.1:{port}'
    for _ in range(120):
        try:
            urllib.request.urlopen(f'{base}/api?token=t', timeout=1)
            break
        except OSError:
            time.sleep(0.5)
    yield base
    server.terminate()
    server.wait(20)


def run_all(browser, lab, notebook):
    """Open a page on which a notebook has been started."""
    page = browser.new_page(viewport={'width': 1400, 'height': 950})
    page.set_default_timeout(120_000)
    page.goto(f'{lab}/lab/tree/{notebook}?token=t')
    page.wait_for_selector('.jp-Notebook .jp-CodeCell', timeout=300_000)
    page.wait_for_function(
        "document.querySelector('.jp-Toolbar-kernelName')?.textContent.includes('Python') && "
        "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'",
        timeout=300_000,
    )
    page.wait_for_timeout(2000)
    page.locator('.lm-MenuBar-itemLabel', has_text=re.compile('^Run$')).click()
    page.get_by_text('Run All Cells', exact=True).click()
    return page


def test_the_cohort_browser_in_jupyterlab(lab, browser, shots, tiny):
    faults = pd.read_csv(tiny / 'truth' / 'faults.csv').fillna('')
    tilted = faults[faults['fault'] == 'tilt']
    page = run_all(browser, lab, 'browse.ipynb')
    page.wait_for_selector('.widget-select select option', timeout=300_000)
    page.get_by_text(f'{len(faults)} of {len(faults)} series').wait_for()
    page.locator('.widget-dropdown select').nth(2).select_option(label='tilt')
    page.get_by_text(f'{len(tilted)} of {len(faults)} series').wait_for()
    page.locator('.widget-select select').select_option(index=0)
    page.wait_for_selector('[data-viewer] canvas[data-plane=axial][data-drawn]', timeout=300_000)
    chosen = str(tilted.iloc[0]['series_id'])
    eventually(page.locator('[data-viewer]').first.inner_text, lambda shown: chosen in shown, waits(page))
    page.screenshot(path=str(shots / 'browse-lab.png'))
    assert 'Jupyter news' not in page.locator('body').inner_text()  # nobody is asked whether something outside may be


def test_the_chapter_on_dicom_in_jupyterlab(lab, browser, shots):
    page = run_all(browser, lab, '01_dicom.ipynb')
    try:
        page.wait_for_selector('[data-viewer] canvas[data-plane=axial][data-drawn]', timeout=300_000)
    except Exception:
        page.screenshot(path=str(shots / 'viewer-lab-failed.png'))
        print(
            page.eval_on_selector_all('.jp-InputPrompt', 'all => all.map(p => p.textContent).join(" ")'),
            page.locator('[data-viewer]').count(),
        )
        raise
    viewer = page.locator('[data-viewer]').first
    viewer.scroll_into_view_if_needed()
    page.wait_for_function(
        "![...document.querySelectorAll('.jp-InputPrompt')].some(p => p.textContent.includes('*'))", timeout=300_000
    )
    before, at = pixels(page, 'axial'), int(page.locator('[data-slice=axial]').first.input_value())
    page.locator('[data-slice=axial]').first.fill(str(at - 4))
    drawn(page, 'axial', at - 4)
    assert pixels(page, 'axial') != before
    narrow = pixels(page, 'coronal')
    page.locator('[data-window=width]').first.fill('1200')
    assert pixels(page, 'coronal') != narrow
    page.screenshot(path=str(shots / 'viewer-lab.png'))
    errors = page.locator(
        '.jp-OutputArea-output[data-mime-type="application/vnd.jupyter.error"], '
        '.jp-RenderedText[data-mime-type="application/vnd.jupyter.stderr"]'
    ).all_inner_texts()
    assert not [e for e in errors if 'Traceback' in e or 'Error' in e], errors[:2]
