"""The real OHIF beside the node, in a real browser: login, list, images, and what comes back."""

import contextlib
import re
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from conftest import eventually

from ctlab.network.ohif import OHIF_VERSION, fetch_ohif
from ctlab.network.store import Store


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
    """OHIF's files, fetched by npm."""
    folder = tmp_path_factory.mktemp('ohif')
    if not shutil.which('npm'):
        pytest.skip('npm is not installed: the real OHIF is not tried')
    try:
        subprocess.run(['npm', 'pack', f'@ohif/app@{OHIF_VERSION}', '--silent'], cwd=folder, check=True, timeout=300)
    except subprocess.SubprocessError:
        pytest.skip('npm reaches no registry: the real OHIF is not tried')
    found = fetch_ohif(folder / 'kept', next(folder.glob('*.tgz')))
    assert fetch_ohif(folder / 'kept', 'nowhere') == found, 'fetched once'
    return found


@pytest.fixture
def store(tiny, tmp_path):
    """Make a store with a series and its masks as DICOM SEG."""
    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.core.anatomy import STRUCTURE_CODES
    from ctlab.scans.io import read
    from ctlab.scans.volume import Volume

    made, series = Store(tmp_path / 'store'), sorted((tiny / 'train_images').glob('*/*'))[0]
    for path in sorted(series.iterdir()):
        made.add(path.read_bytes(), 'test')
    scan = read(series)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:-2, 20:40, 20:40] = STRUCTURE_CODES['liver']
    for name in ('seg', 'corrected'):
        write_dicom_seg(Volume(mask, scan.affine), series, tmp_path / f'{name}.dcm', 'manual')
    made.add((tmp_path / 'seg.dcm').read_bytes(), 'test')
    return made


STOW = """async ([address, bytes]) => {
  const body = new Blob(['--x\\r\\nContent-Type: application/dicom\\r\\n\\r\\n', new Uint8Array(bytes), '\\r\\n--x--']);
  const type = 'multipart/related; type="application/dicom"; boundary=x';
  try {
    return (await fetch(address + '/studies', { method: 'POST', body, headers: { 'Content-Type': type } })).status;
  } catch (error) {
    return 'refused by the browser';
  }
}"""


SLICE_SHOWN = """() => [...document.querySelectorAll('canvas')].some((c) => {
  const image = c.getContext('2d')?.getImageData(0, 0, c.width, c.height).data ?? [];
  return image.some((v, k) => k % 4 < 3 && v > 40);
})"""


def watched(browser, origin):
    """Open a page; whatever goes wrong or leaves the machine is collected."""
    page, wrong = browser.new_context(viewport={'width': 1400, 'height': 900}).new_page(), []
    page.set_default_timeout(120_000)
    page.on('pageerror', lambda error: wrong.append(str(error)))
    page.on('response', lambda r: wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
    page.on('request', lambda r: wrong.append(r.url) if not r.url.startswith((origin, 'blob:', 'data:')) else None)
    return page, wrong


def log_in(page, address):
    """Show the token once."""
    page.goto(address)
    log_in_here(page)


def log_in_here(page):
    """Show the token on the page of the login."""
    page.fill('input[name=token]', 'open sesame')
    page.click('button')


def test_the_real_ohif_from_the_node_s_own_origin(pages, store, browser, shots, tmp_path):
    from ctlab.network.dicomweb import DicomWebServer

    with DicomWebServer(store, port=0, token='open sesame', viewer=pages) as web:
        page, wrong = watched(browser, web.url)
        log_in(page, web.url)
        page.get_by_text('1-1 of 1').wait_for(timeout=270_000)
        page.screenshot(path=str(shots / 'ohif-list.png'))
        study = next(iter(store.find('STUDY', {})))['StudyInstanceUID']
        page.goto(f'{web.url}/viewer?StudyInstanceUIDs={study}')
        page.locator('canvas').first.wait_for(timeout=360_000)
        page.get_by_text('SEG', exact=True).first.wait_for(timeout=180_000)
        page.wait_for_function(SLICE_SHOWN, timeout=360_000)
        page.screenshot(path=str(shots / 'ohif-viewer.png'))
        assert 'ctlab_session' not in page.evaluate('document.cookie'), 'scripts cannot read the session'
        assert not wrong, wrong[:3]
        before = store.totals()['instance']
        corrected = list((tmp_path / 'corrected.dcm').read_bytes())
        assert page.evaluate(STOW, ['', corrected]) == 200 and store.totals()['instance'] == before + 1, 'stored'
        page.context.close()


def draw_and_export(page, shots):
    """Draw a stroke with OHIF's brush, and open its dialogue for storing."""
    from playwright.sync_api import Error as PlaywrightError

    page.locator('[data-cy=Brush-btn]').click()
    page.mouse.move(620, 560)
    page.mouse.down()
    for x in range(620, 760, 10):
        page.mouse.move(x, 560)
    page.mouse.up()
    page.screenshot(path=str(shots / 'ohif-drawing.png'))
    store, export = (
        page.locator('[data-cy=input-dialog-save-button]'),
        page.locator('[role=menuitem]', has_text='Export'),
    )

    def ask_to_store():  # on a busy machine the menu beside the menu may close before it is hit
        if store.is_visible():
            return True
        with contextlib.suppress(PlaywrightError):
            if not export.first.is_visible():
                page.locator('[data-cy=segmentation-collapsed-more-btn-Labelmap]').click(timeout=10_000)
            export.first.hover(timeout=10_000)
            page.locator('[role=menuitem]', has_text='DICOM SEG').first.click(timeout=10_000)
        return False

    eventually(ask_to_store, bool, lambda seconds: page.wait_for_timeout(2000))


def test_what_is_drawn_and_stored_in_ohif_becomes_a_version(pages, store, browser, shots):
    """Correct the lab's mask with OHIF's own brush, store it there, and find it in the workbench with its author."""
    from ctlab.core.anatomy import STRUCTURE_COLOURS
    from ctlab.interfaces.workbench import open_workspace
    from ctlab.network.dicomweb import DicomWebServer
    from ctlab.scans import nifti

    work = open_workspace(store.folder)
    scan = work.scans()[0]
    first = work.import_stored_masks(scan)
    assert len(first) == 1 and not first[0].person and work.state(scan) == 'outlined'
    study = next(iter(store.find('STUDY', {})))['StudyInstanceUID']
    with DicomWebServer(store, port=0, token='open sesame', viewer=pages) as web:
        page, wrong = watched(browser, web.url)
        page.goto(web.url)
        page.fill('input[name=name]', 'Jo Doe')
        log_in_here(page)
        page.goto(f'{web.url}/segmentation?StudyInstanceUIDs={study}')
        page.wait_for_function(SLICE_SHOWN, timeout=360_000)
        page.wait_for_timeout(2000)
        page.locator('[data-cy=study-browser-thumbnail-no-image]').first.dblclick(timeout=360_000)
        page.get_by_role('button', name='Yes').click(timeout=360_000)
        row = page.locator('[data-cy=data-row]').filter(has_text='liver')
        row.wait_for(timeout=180_000)
        shown = row.locator('[data-cy=data-row-colorhex]').evaluate('(e) => getComputedStyle(e).backgroundColor')
        wanted = [int(STRUCTURE_COLOURS['liver'][k : k + 2], 16) for k in (1, 3, 5)]
        found = [int(v) for v in re.findall(r'\d+', shown)[:3]]
        assert np.abs(np.subtract(found, wanted)).max() <= 6, f'{shown} in place of {wanted}'
        draw_and_export(page, shots)
        with page.expect_response(
            lambda r: r.request.method == 'POST' and '/studies' in r.url, timeout=120_000
        ) as stored:
            page.locator('[data-cy=input-dialog-save-button]').click()
        assert stored.value.status == 200 and not wrong, wrong[:3]
        page.context.close()
    new = work.import_stored_masks(scan)
    assert [m.person for m in new] == ['Jo Doe'] and work.state(scan) == 'corrected'
    before, after = (nifti.read(m.path).array > 0 for m in (first[0], new[0]))
    assert set(new[0].structures) == {'liver'} and (before <= after).all() and after.sum() > before.sum() + 50
    changed = np.flatnonzero((before != after).any((1, 2)))
    assert len(changed) == 1, 'the stroke lies on one slice'


def test_the_lab_s_measurements_open_in_ohif(pages, store, browser, shots, tmp_path):
    """A report of ours becomes OHIF's own measurements; a number without a place does not hinder it."""
    import highdicom as hd

    from ctlab.network.dicomweb import DicomWebServer
    from ctlab.network.structured_report import Finding, result_uid, write_structured_report

    series = next(iter(store.find('SERIES', {'Modality': 'CT'})))['SeriesInstanceUID']
    findings = [Finding('liver', 12.0, 'mL'), Finding('kidney injury', 0.31, '1', 0.2, 0.4)]
    seg, uids = hd.seg.segread(tmp_path / 'seg.dcm'), (result_uid('series'), result_uid('report'))
    write_structured_report(store.folder_of(series), findings, tmp_path / 'sr.dcm', uids, 'organ model', '1', seg)
    store.add((tmp_path / 'sr.dcm').read_bytes(), 'test')
    found = next(iter(store.find('IMAGE', {'SeriesInstanceUID': series})))
    spacing = pydicom.dcmread(found['path'], stop_before_pixels=True).PixelSpacing[0]
    with DicomWebServer(store, port=0, token='open sesame', viewer=pages) as web:
        page, wrong = watched(browser, web.url)
        log_in(page, web.url)
        page.goto(f'{web.url}/viewer?StudyInstanceUIDs={found["StudyInstanceUID"]}')
        page.wait_for_function(SLICE_SHOWN, timeout=360_000)
        page.get_by_role('button', name='Skip all').click(timeout=180_000)
        page.locator('[data-cy=study-browser-thumbnail-no-image]').filter(has_text='SR').first.dblclick()
        page.get_by_role('button', name='Yes').click(timeout=360_000)
        diagonal = 20 * np.sqrt(2) * spacing  # of the square that stands for the liver
        page.get_by_text(re.compile(rf'^L: {diagonal:.3g}')).first.wait_for(timeout=180_000)
        page.screenshot(path=str(shots / 'ohif-measurement.png'))
        assert not wrong, wrong[:3]
        page.context.close()


def test_a_page_of_another_origin_stores_nothing(store, browser, tmp_path):
    from ctlab.network.dicomweb import DicomWebServer

    (tmp_path / 'dist').mkdir()
    (tmp_path / 'dist' / 'index.html').write_text('<title>stand-in</title><p>here</p>')
    before, corrected = store.totals()['instance'], list((tmp_path / 'corrected.dcm').read_bytes())
    with (
        DicomWebServer(store, port=0, token='open sesame', viewer=tmp_path / 'dist') as web,
        DicomWebServer(Store(tmp_path / 'other'), port=0, token='open sesame', viewer=tmp_path / 'dist') as elsewhere,
    ):
        page = browser.new_context().new_page()
        log_in(page, web.url)
        page.get_by_text('here').wait_for()
        address = elsewhere.url.replace('127.0.0.1', 'localhost')
        log_in(page, address)
        page.get_by_text('here').wait_for()
        assert page.url.startswith(address)
        assert page.evaluate(STOW, [web.url, corrected]) in (401, 'refused by the browser')
        assert store.totals()['instance'] == before
        page.context.close()


def test_a_viewer_that_was_not_fetched_is_said(ctlab, tmp_path):
    done = ctlab('node', tmp_path / 'store', '--viewer', '--port', '0')
    assert done.returncode == 1 and '--fetch-viewer' in done.stderr and 'Traceback' not in done.stderr
    (tmp_path / 'x.tgz').write_bytes(b'no package')
    done = ctlab('node', tmp_path / 'store', '--fetch-viewer', tmp_path / 'x.tgz', '--port', '0')
    assert done.returncode == 1 and 'checksum' in done.stderr, done.stderr
