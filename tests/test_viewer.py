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
from conftest import free_port


def pixels(page, plane):
    """Read what a plane's canvas shows."""
    return page.eval_on_selector(f'canvas[data-plane={plane}]', 'c => c.toDataURL()')


def drawn(page, plane, at):
    page.wait_for_function(
        '([plane, at]) => document.querySelector(`canvas[data-plane=${plane}]`).dataset.drawn == at', arg=[plane, at]
    )


def test_a_page_of_its_own(ctlab, tmp_path, browser, shots):
    from ctlab.scans import nifti
    from ctlab.scans.volume import Volume

    hu = np.random.default_rng(0).integers(-900, 900, (20, 30, 40)).astype(np.int16)
    mask = np.zeros(hu.shape, np.uint8)
    mask[8:12, 10:20, 10:20] = 1
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    scan = nifti.write(Volume(hu, affine), tmp_path / 'scan.nii.gz')
    label = nifti.write(Volume(mask, affine), tmp_path / 'mask.nii.gz')
    done = ctlab('view', scan, tmp_path / 'scan.html', '--mask', label, '--structures', 'spleen', '--json')
    assert done.returncode == 0 and json.loads(done.stdout)['bytes'] > 1000, done.stderr
    page, wrong = browser.new_page(viewport={'width': 1200, 'height': 560}), []
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on('request', lambda r: wrong.append(r.url) if not r.url.startswith(('file:', 'blob:', 'data:')) else None)
    page.goto(f'file://{tmp_path}/scan.html')
    page.wait_for_selector('canvas[data-plane=sagittal][data-drawn]')
    drawn(page, 'axial', 8)  # it opens where the mask is
    before = pixels(page, 'axial')
    page.locator('[data-slice=axial]').fill('3')
    drawn(page, 'axial', 3)
    assert pixels(page, 'axial') != before
    page.locator('[data-pane=axial]').focus()
    page.keyboard.press('ArrowUp')
    drawn(page, 'axial', 4)
    canvas = page.locator('canvas[data-plane=axial]')
    box = canvas.bounding_box()
    page.mouse.move(box['x'] + box['width'] * 12.5 / 40, box['y'] + box['height'] * 7.5 / 30)
    assert page.locator('.ctv-read').inner_text().startswith(f'{hu[4, 7, 12]} HU')  # the true number under the pointer
    page.mouse.wheel(0, -100)
    drawn(page, 'axial', 5)
    page.mouse.click(box['x'] + box['width'] * 12.5 / 40, box['y'] + box['height'] * 7.5 / 30)
    drawn(page, 'coronal', 7), drawn(page, 'sagittal', 12)
    page.locator('[data-slice=axial]').fill('10')
    drawn(page, 'axial', 10)
    filled = pixels(page, 'axial')
    page.locator('[data-show=mask]').uncheck()
    assert pixels(page, 'axial') != filled
    page.locator('select').select_option('bone')
    page.screenshot(path=str(shots / 'viewer-page.png'))
    assert not wrong, wrong[:3]


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
    page.goto(f'{lab}/lab/tree/{notebook}?token=t')
    page.wait_for_selector('.jp-Notebook .jp-CodeCell', timeout=90_000)
    page.wait_for_function(
        "document.querySelector('.jp-Toolbar-kernelName')?.textContent.includes('Python') && "
        "document.querySelector('.jp-Notebook-ExecutionIndicator')?.dataset.status == 'idle'",
        timeout=90_000,
    )
    page.wait_for_timeout(2000)
    page.locator('.lm-MenuBar-itemLabel', has_text=re.compile('^Run$')).click()
    page.get_by_text('Run All Cells', exact=True).click()
    return page


def test_the_cohort_browser_in_jupyterlab(lab, browser, shots, tiny):
    faults = pd.read_csv(tiny / 'truth' / 'faults.csv').fillna('')
    tilted = faults[faults['fault'] == 'tilt']
    page = run_all(browser, lab, 'browse.ipynb')
    page.wait_for_selector('.widget-select select option', timeout=100_000)
    page.get_by_text(f'{len(faults)} of {len(faults)} series').wait_for()
    page.locator('.widget-dropdown select').nth(2).select_option(label='tilt')
    page.get_by_text(f'{len(tilted)} of {len(faults)} series').wait_for()
    page.locator('.widget-select select').select_option(index=0)
    page.wait_for_selector('[data-viewer] canvas[data-plane=axial][data-drawn]', timeout=60_000)
    assert str(tilted.iloc[0]['series_id']) in page.locator('[data-viewer]').first.inner_text()
    page.screenshot(path=str(shots / 'browse-lab.png'))
    assert 'Jupyter news' not in page.locator('body').inner_text()  # nobody is asked whether something outside may be


def test_the_chapter_on_dicom_in_jupyterlab(lab, browser, shots):
    page = run_all(browser, lab, '01_dicom.ipynb')
    try:
        page.wait_for_selector('[data-viewer] canvas[data-plane=axial][data-drawn]', timeout=100_000)
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
