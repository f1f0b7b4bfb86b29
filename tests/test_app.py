"""The workbench as a person uses it: a real page, from an empty folder; and what it refuses."""

import contextlib
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import PATIENCE, eventually, free_port, wait_for, waits

from ctlab.cohort.layout import list_series
from ctlab.scans import nifti
from ctlab.scans.volume import Volume, make_volume


class Served:
    """The workbench in a process of its own."""

    def __init__(self, folder, *options):
        self.folder, self.port, self.options = folder, free_port(), options
        self.start()

    def start(self):
        command = [
            str(Path(sys.executable).with_name('ctlab')),
            'app',
            str(self.folder),
            '--port',
            str(self.port),
            '--no-browser',
            *self.options,
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        try:
            wait_for(self.port)
        except TimeoutError as error:
            self.kill()
            raise TimeoutError(self.process.stdout.read()) from error

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    @property
    def url(self):
        return f'http://127.0.0.1:{self.port}/'


@pytest.fixture(scope='module')
def export(tmp_path_factory, tiny):
    """Make what a hospital exports: a series, rubbish, a zip, NIfTI, masks of bones, and malicious files."""
    root = tmp_path_factory.mktemp('export')
    series = Path(list_series(tiny)['folder'][0])
    (root / 'disk' / 'A').mkdir(parents=True)
    for f in series.iterdir():
        (root / 'disk' / 'A' / f.name).write_bytes(f.read_bytes())
    (root / 'disk' / 'viewer.exe').write_bytes(b'MZ rubbish')
    with zipfile.ZipFile(root / 'disk.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        for f in (root / 'disk' / 'A').iterdir():
            z.write(f, f.name)
    scan = make_volume(np.random.default_rng(0).integers(0, 900, (30, 40, 40)).astype(np.int16), (4.0, 2.0, 2.0))
    nifti.write(scan, root / 'legs.nii.gz')
    for k, bone in enumerate(('tibia', 'femur')):
        mask = np.zeros(scan.shape, np.uint8)
        mask[3 + 8 * k : 14 + 8 * k, 10:20, 10:20] = 1
        nifti.write(Volume(mask, scan.affine), root / f'{bone}.nii.gz')
    with zipfile.ZipFile(root / 'bomb.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('big', b'\0' * (400 << 20))
    with zipfile.ZipFile(root / 'climbs.zip', 'w') as z:
        for f in list((root / 'disk' / 'A').iterdir())[:3]:
            z.write(f, f'../../../climbed-{f.name}')
    (root / 'hostile.nii').write_bytes(b'\x5c\x01\0\0' + b'\xff' * 400)
    return root


@pytest.fixture(scope='module')
def served(export, tmp_path_factory):
    """Serve a workbench that has a CT scan and the legs already."""
    from ctlab.interfaces.workbench import Workspace

    folder = tmp_path_factory.mktemp('workbench') / 'work'
    work = Workspace(folder)
    for source in (export / 'disk', export / 'legs.nii.gz'):
        work.import_files(source)
    made = Served(folder, '--root', str(export), '--jobs', '1')
    yield made
    made.kill()


@contextlib.contextmanager
def watched(browser, served):
    """Open a page of its own; check that nothing leaves the machine and that no script fails."""
    page, outside, wrong = browser.new_page(viewport={'width': 1280, 'height': 900}), [], []
    near = (served.url, 'data:', 'blob:', 'about:')
    page.on('request', lambda r: outside.append(r.url) if not r.url.startswith(near) else None)
    page.on('pageerror', lambda e: wrong.append(str(e)))
    open_masks(page, served)
    try:
        yield page
    finally:
        shown = Path(__file__).parents[1] / 'reports' / 'test'
        shown.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=shown / 'workbench-last.png', full_page=True)  # what was seen where a test failed
        page.close()
    assert not outside and not wrong


@pytest.fixture
def page(served, browser):
    with watched(browser, served) as made:
        yield made


def open_masks(page, served):
    page.set_default_timeout(120_000)
    page.goto(served.url)
    page.get_by_role('heading', name='ctlab workbench').wait_for(timeout=300_000)
    page.wait_for_timeout(800)


def test_an_update_that_comes_while_others_are_written_is_sent():
    import asyncio

    from panel.io import document as panel

    from ctlab.interfaces.app import _flush_pending_updates

    class Thing:
        pass

    doc, conn, sent = Thing(), Thing(), []
    conn._socket = Thing()

    def scheduled(msg):
        panel._WRITE_BLOCK[doc] = True
        panel._WRITE_MSGS[doc] = {conn: [msg]}
        panel._dispatch_write_task(doc, panel._dispatch_msgs, doc)

    def written(conn, msg):
        done = asyncio.ensure_future(asyncio.sleep(0.01))
        done.add_done_callback(lambda _: sent.append(msg))
        if msg == 'first':
            done.add_done_callback(lambda _: scheduled('second'))  # before its writer has gone
        return [done]

    async def race():
        scheduled('first')
        await asyncio.sleep(0.2)

    _flush_pending_updates()
    panel.extra_socket_handlers[Thing] = written
    try:
        with ThreadPoolExecutor(1) as apart:
            apart.submit(asyncio.run, race()).result()  # a browser's loop may run here
    finally:
        del panel.extra_socket_handlers[Thing]
    assert sent == ['first', 'second']


def tab(page, name):
    page.locator('.bk-tab', has_text=re.compile(f'^{name}$')).click()


def press(page, name):
    page.get_by_role('button', name=name, exact=True).locator('visible=true').click()


def hears(page, text, seconds=180):
    page.get_by_text(text).locator('visible=true').first.wait_for(timeout=1000 * seconds)


def imports(page, path, heard, seconds=PATIENCE):
    page.get_by_label('File or folder on this machine').fill(str(path))
    press(page, 'Import')
    hears(page, heard, seconds)


def test_import(browser, export, tmp_path, shots):
    served = Served(tmp_path / 'work', '--root', str(export))
    try:
        with watched(browser, served) as page:
            import_into_nothing(page, export, served, shots)
    finally:
        served.kill()


def import_into_nothing(page, export, served, shots):
    tab(page, 'Import')
    n = len(list((export / 'disk' / 'A').iterdir()))
    imports(page, export / 'disk', f'{n} files of 1 scans; 0 were there already; 1 could not be used')
    hears(page, 'viewer.exe')
    glance = page.locator('img[src^="data:image/png"]').locator('visible=true').first
    glance.wait_for(timeout=300_000)
    assert glance.evaluate('i => Math.max(i.naturalWidth, i.naturalHeight)') == 128, 'a glance at what has come'
    imports(page, export / 'disk.zip', f'0 files of 1 scans; {n} were there already')
    page.get_by_label('Upload').set_input_files(str(export / 'legs.nii.gz'))
    page.wait_for_timeout(500)
    press(page, 'Import the upload')
    hears(page, '1 files of 1 scans')
    page.screenshot(path=shots / 'workbench-import.png')
    for path, heard in (
        ('/etc/passwd', 'passwd: lies outside'),
        (f'{export}/../../etc', 'etc: lies outside'),
        (export / 'nothing', 'no such file'),
        ('', 'which file or folder'),
        (export / 'bomb.zip', 'unpacks to more than'),
    ):
        imports(page, path, heard)
    imports(page, export / 'hostile.nii', '1 could not be used')
    imports(page, export / 'climbs.zip', '3 were there already')
    assert not list(export.parent.rglob('climbed*')) and not list(served.folder.rglob('climbed*'))
    assert [p.name for p in (served.folder / 'volumes').glob('*.nii.gz')] == ['legs.nii.gz']


def fetch_until_heard(page, words):
    """Press Fetch until the page answers: on a busy machine the server may not know the choice yet."""
    from playwright.sync_api import TimeoutError as TooLate

    for seconds in (10, 20, 60):
        page.wait_for_timeout(3000)
        press(page, 'Fetch')
        try:
            return hears(page, words, seconds)
        except TooLate:
            if seconds == 60:
                raise


def test_a_study_is_found_at_a_peer_before_it_is_fetched(page, export, served, tmp_path, shots):
    from ctlab.network.node import Node
    from ctlab.network.store import Store

    store = Store(tmp_path / 'there', free=0)
    for f in sorted((export / 'disk' / 'A').iterdir()):
        store.add(f.read_bytes())
    node = Node(store, 'PACS', '127.0.0.1', free_port()).start()
    try:
        tab(page, 'Import')
        page.get_by_label('Peer').fill(f'PACS@127.0.0.1:{node.port}')
        press(page, 'Fetch')
        hears(page, 'find first, and choose a study')
        page.get_by_label('Patient ID').fill('*')
        press(page, 'Find')
        hears(page, '1 studies there')
        page.locator('.tabulator-row', has_text='1.2.123.').last.click()
        fetch_until_heard(page, f'{len(list((export / "disk" / "A").iterdir()))} were there already')
        page.screenshot(path=shots / 'workbench-peer.png')
        page.get_by_label('Peer').fill('not a peer')
        press(page, 'Find')
        hears(page, 'TITLE@host:port')
    finally:
        node.stop()


@pytest.mark.parametrize('source', ['scanner_series', pytest.param('real', marks=pytest.mark.real)])
def test_a_series_of_a_scanner_whose_uids_were_lost(browser, source, request, tmp_path, shots):
    import pydicom

    series = request.getfixturevalue(source)
    if source == 'real':
        series = series / 'example_ct_dicom'
    else:
        shutil.copytree(series, tmp_path / 'lost')
        series = tmp_path / 'lost'
        for path in series.iterdir():
            slice_ = pydicom.dcmread(path)
            for name in ('StudyInstanceUID', 'SeriesInstanceUID', 'SOPInstanceUID', 'SOPClassUID'):
                setattr(slice_, name, '')
            slice_.save_as(path)
    made = Served(tmp_path / 'work')
    page = browser.new_page(viewport={'width': 1024, 'height': 768})  # a tablet
    try:
        open_masks(page, made)
        tab(page, 'Import')
        imports(page, series, 'had lost their UIDs')
        tab(page, 'Look')
        press(page, 'Show')
        page.frame_locator('iframe[title=scan]').locator('canvas').first.wait_for(timeout=180_000)
        page.wait_for_timeout(800)
        page.screenshot(path=shots / 'workbench-real.png')
        assert page.evaluate('document.documentElement.scrollWidth') <= 1024
    finally:
        page.close()
        made.kill()


def choose(page, label, words):
    select = page.get_by_label(label, exact=True).locator('visible=true').first
    option = next(o for o in select.locator('option').all_inner_texts() if words in o)
    select.select_option(label=option)
    page.wait_for_timeout(500)


def outline_and_correct(page):
    """Outline the chosen scan by a job, draw on its mask, smooth it, and save it."""
    press(page, 'Outline')
    hears(page, 'outlining small: done', 900)
    page.get_by_role('button', name=re.compile(r'small \((outlined|doubtful)\)')).wait_for(timeout=180_000)
    press(page, 'Correct')
    canvas = page.get_by_role('img', name='slice under the brush')
    canvas.wait_for(timeout=180_000)
    stroke(page, canvas, (200, 200), (300, 260), 8)
    hears(page, 'voxels changed')
    press(page, 'Smooth')
    hears(page, 'voxels smoothed')
    press(page, 'Save as a new version')


def test_the_page_opens_on_the_picture(browser, tmp_path, shots):
    """Greet, draw an example, outline by a job, correct, and find scans by state and words."""
    from ctlab.interfaces.workbench import Workspace

    work = Workspace(tmp_path / 'work')
    made = Served(work.folder)
    page = browser.new_page(viewport={'width': 1500, 'height': 900})
    try:
        open_masks(page, made)
        hears(page, 'No scan yet')
        press(page, 'Draw an example scan')
        page.get_by_role('button', name=re.compile(r'phantom-1 .*\(new\)')).wait_for(timeout=180_000)
        frame = page.frame_locator('iframe[title="the chosen scan"]')
        frame.locator('body[data-ready]').wait_for(timeout=540_000)
        page.screenshot(path=shots / 'workbench-scans.png')

        hu = np.full((24, 40, 40), -1000, np.int16)
        hu[:, 5:-5, 5:-5] = 40
        nifti.write(make_volume(hu, (5.0, 6.0, 6.0)), tmp_path / 'small.nii.gz')
        page.close()
        work.import_files(tmp_path / 'small.nii.gz')
        page = browser.new_page(viewport={'width': 1500, 'height': 900})
        open_masks(page, made)
        page.get_by_role('button', name=re.compile(r'small \(new\)')).click()
        outline_and_correct(page)
        page.get_by_role('button', name=re.compile(r'small \(corrected\)')).wait_for(timeout=180_000)
        page.get_by_label('Search').fill('phantom')
        page.get_by_label('Search').press('Enter')
        page.get_by_role('button', name=re.compile(r'small \(')).wait_for(state='detached', timeout=300_000)
        assert work.latest(work.scan('v-small')).person and [s.id for s, _ in work.corrected()] == ['v-small']
        press(page, 'Next to correct')
        hears(page, 'phantom-1')
    finally:
        page.close()
        made.kill()


AXE = "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']}).then((r) => r.violations)"
OF_TABULATOR = 'aria-required-children'  # its grid owns rows by an identifier that lies in a shadow tree


@pytest.mark.parametrize('theme', ['default', 'dark'])
def test_every_tab_is_accessible(served, browser, theme):
    """Run axe-core on every tab; choose a scan with the keyboard alone."""
    import axe_playwright_python

    script = (Path(axe_playwright_python.__file__).parent / 'axe.min.js').read_text()
    page, found = browser.new_page(viewport={'width': 1280, 'height': 900}), []
    try:
        page.set_default_timeout(120_000)
        page.goto(f'{served.url}?theme={theme}')
        page.get_by_role('button', name=re.compile('^legs ')).wait_for()
        for name in page.locator('.bk-tab').all_inner_texts():
            tab(page, name)
            page.wait_for_timeout(1500)
            page.evaluate(f'{script};0')
            wrong = [v for v in page.evaluate(AXE) if v['id'] != OF_TABULATOR]
            found += [(name, v['id'], v['nodes'][0]['html'][:200]) for v in wrong]
        assert not found, found
        choose_by_keyboard(page)
    finally:
        page.close()


def choose_by_keyboard(page):
    """Reach a scan of the list that is not chosen, whatever other tests left there, by Tab; choose it by Enter."""
    tab(page, 'Scans')
    chosen = page.get_by_label('Scan', exact=True).first
    before = chosen.evaluate('(e) => e.selectedOptions[0].text')
    page.get_by_label('State').focus()
    for _ in range(60):
        page.keyboard.press('Tab')
        listed = re.fullmatch(r'(.+) \((\w+)\)', page.evaluate(FOCUSED).strip())
        if listed and listed[1] != before:
            break
    assert listed, 'no scan of the list can be reached by Tab'
    name, state = listed.groups()
    page.keyboard.press('Enter')
    page.get_by_text(f'State: {state}').locator('visible=true').first.wait_for()
    eventually(lambda: chosen.evaluate('(e) => e.selectedOptions[0].text'), lambda text: text == name, waits(page))


FOCUSED = """() => {
  let e = document.activeElement;
  while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
  return e?.innerText ?? '';
}"""


def test_look(page, shots):
    choose(page, 'Scan', ' CT ')
    tab(page, 'Look')
    press(page, 'Show')
    frame = page.frame_locator('iframe[title=scan]')
    frame.locator('body[data-ready]').wait_for(timeout=360_000)

    def shown():
        return frame.locator('#canvas').screenshot()

    before = shown()
    frame.locator('#window').select_option('bone')
    eventually(shown, lambda s: s != before, waits(page))  # another window
    assert re.search(r'HU .*mm', frame.locator('#where').inner_text())
    page.screenshot(path=shots / 'workbench-look.png')


def stroke(page, canvas, start, end, steps):
    """Draw with the brush, from and to places on the canvas."""
    box = canvas.bounding_box()
    page.mouse.move(box['x'] + start[0], box['y'] + start[1])
    page.mouse.down()
    page.mouse.move(box['x'] + end[0], box['y'] + end[1], steps=steps)
    page.mouse.up()


SHAPE = '(canvas) => [canvas.width, canvas.height]'


def painted(page, canvas, wanted=lambda n: True):
    """How many pixels of the slice are painted, when it is as wanted."""
    return eventually(lambda: int(canvas.get_attribute('data-painted')), wanted, waits(page))


def paint_and_undo(page, canvas, shots):
    """Paint in two planes; undo and redo what was painted."""

    def turned(plane):
        shape = canvas.evaluate(SHAPE)
        press(page, plane)
        eventually(lambda: canvas.evaluate(SHAPE), lambda s: s != shape, waits(page))
        return painted(page, canvas)

    before = painted(page, canvas)
    stroke(page, canvas, (40, 40), (90, 60), 8)
    hears(page, 'voxels changed')
    after = painted(page, canvas, lambda n: n > before)
    press(page, 'Undo')
    painted(page, canvas, lambda n: n == before)
    press(page, 'Redo')
    painted(page, canvas, lambda n: n == after)
    page.screenshot(path=shots / 'workbench-brush.png')
    tall = turned('coronal')
    page.screenshot(path=shots / 'workbench-coronal.png')
    stroke(page, canvas, (12, 12), (50, 30), 5)
    painted(page, canvas, lambda n: n > tall)  # a stroke across the patient
    turned('axial')
    press(page, 'Undo')
    painted(page, canvas, lambda n: n == tall)  # undone in the plane where it was drawn
    assert canvas.get_attribute('data-slice') != '0'
    turned('axial')


def draw_another_structure(page, canvas, shots):
    """Name a structure, enclose it with the lasso in another window, and look closer."""
    page.get_by_label('Another structure').fill('gallbladder')
    press(page, 'Add structure')
    page.get_by_role('button', name='gallbladder', exact=True).wait_for()
    press(page, 'Lasso')
    page.get_by_label('Window', exact=True).locator('visible=true').last.select_option('liver')

    before, box = painted(page, canvas), canvas.bounding_box()
    page.mouse.move(box['x'] + 30, box['y'] + 30)
    page.mouse.down()
    for x, y in ((90, 30), (90, 100), (30, 100)):
        page.mouse.move(box['x'] + x, box['y'] + y, steps=4)
    page.mouse.up()
    hears(page, 'voxels changed')
    painted(page, canvas, lambda n: n > before)  # what the outline encloses, not the line alone
    page.keyboard.press('+')
    eventually(lambda: canvas.bounding_box()['width'], lambda w: w > 1.2 * box['width'], waits(page))
    page.screenshot(path=shots / 'workbench-lasso.png')


def test_masks(page, served, shots):
    choose(page, 'Scan', ' CT ')
    tab(page, 'Masks')
    press(page, 'Draw')
    hears(page, 'version 1: organ model', 600)
    hears(page, 'liver')
    press(page, 'Correct by hand')
    canvas = page.get_by_role('img', name='slice under the brush')
    canvas.wait_for(timeout=180_000)
    canvas.scroll_into_view_if_needed()
    paint_and_undo(page, canvas, shots)
    draw_another_structure(page, canvas, shots)
    press(page, 'Save as a new version')
    hears(page, 'kept as version 2')
    press(page, 'Measure')
    page.get_by_role('columnheader', name='volume_ml').wait_for()
    press(page, 'Compare')
    page.get_by_role('columnheader', name='mL, 1: organ model').wait_for()
    page.get_by_label('A mask from elsewhere').fill('/etc/passwd')
    press(page, 'Add as a version')
    hears(page, 'lies outside')
    page.get_by_label('A mask from elsewhere').fill(str(served.folder / 'masks' / 's1' / '1.nii.gz'))
    press(page, 'Add as a version')
    hears(page, 'version 3: from 1')
    press(page, 'Turn the surfaces')
    page.locator('iframe[title=surfaces]').wait_for(timeout=180_000)
    with page.expect_download(timeout=180_000) as download:
        page.get_by_text('Download (NIfTI, SEG, surfaces)').locator('visible=true').first.click()
    names = zipfile.ZipFile(download.value.path()).namelist()
    assert {'mask.nii.gz', 'mask.dcm'} <= set(names) and any(n.startswith('meshes/') for n in names)
    versions = sorted((served.folder / 'masks' / 's1').glob('*.nii.gz'))
    assert [p.name for p in versions] == ['1.nii.gz', '2.nii.gz', '3.nii.gz']
    first, second, third = (nifti.read(p).array for p in versions)
    assert not np.array_equal(first, second) and np.array_equal(first, third), 'none is written over'
    tab(page, 'Look')
    choose(page, 'Mask', '2:')
    press(page, 'Show')
    page.frame_locator('iframe[title=scan]').get_by_text('liver').first.wait_for(state='attached', timeout=180_000)


def add_masks_by_name(page, export):
    """Add masks that carry no names: they are asked for, and given."""
    for bone in ('tibia', 'femur'):
        page.get_by_label('A mask from elsewhere').fill(str(export / f'{bone}.nii.gz'))
        page.get_by_label('Names of its numbers').fill('')
        press(page, 'Add as a version')
        hears(page, 'names no structure 1: write the names')
        page.get_by_label('Names of its numbers').fill(bone)
        press(page, 'Add as a version')
        hears(page, f': from {bone}')


def test_legs(page, export, served, shots):
    choose(page, 'Scan', 'legs')
    tab(page, 'Legs')
    page.get_by_label('Folder of the masks').fill(str(export / 'disk'))
    press(page, 'Make a training case')
    hears(page, 'no mask whose name holds')
    page.get_by_label('Folder of the masks').fill('')
    page.get_by_text('Or one file a bone').click()
    page.get_by_label('Mask of the tibia').fill(str(export / 'tibia.nii.gz'))
    page.get_by_label('Mask of the femur').fill('/etc/passwd')
    press(page, 'Make a training case')
    hears(page, 'lies outside')
    page.get_by_label('Mask of the femur').fill(str(export / 'femur.nii.gz'))
    press(page, 'Make a training case')
    hears(page, 'cases so far: 1, and a study needs three')
    assert (served.folder / 'training' / 'msk-001' / 'masks' / 'femur.nii.gz').exists()
    assert page.get_by_label('Name of the case').input_value() == 'msk-002'
    press(page, 'Suggest')
    page.get_by_role('img', name='from the front, with the cut').wait_for(timeout=300_000)
    page.get_by_label('Upper end of the pelvis').fill('20')
    page.keyboard.press('Enter')
    page.wait_for_timeout(800)
    page.screenshot(path=shots / 'workbench-legs.png')
    press(page, 'Cut the unseen scan')
    hears(page, 'run a model on it under Masks')
    assert nifti.read(next((served.folder / 'unseen').glob('*.nii.gz'))).shape[0] == 21
    page.get_by_label('Scan', exact=True).locator('visible=true').first.select_option(label='legs')
    page.wait_for_timeout(500)
    tab(page, 'Masks')
    add_masks_by_name(page, export)
    tab(page, 'Legs')
    choose(page, 'Truth (another version), if there is one', '1:')
    press(page, 'Bones')
    hears(page, 'Dice')
    hears(page, 'volume_ml')


def test_runs_outlive_page_and_server(page, served, shots):
    from ctlab.interfaces.jobs import Jobs

    jobs = Jobs(served.folder / 'jobs', 1)
    tab(page, 'Runs')
    choose(page, 'Study', '03_approach1')
    press(page, 'Start')
    hears(page, 'goes on when this page is closed')
    press(page, 'Start')
    eventually(lambda: [j.state for j in jobs.all()], lambda s: s == ['running', 'waiting'])
    pid = json.loads((jobs.all()[0].folder / 'begun.json').read_text())['pid']
    open_masks(page, served)
    tab(page, 'Runs')
    hears(page, 'running')
    served.kill()
    time.sleep(1)
    assert jobs.all()[0].state == 'running' and Path(f'/proc/{pid}').exists(), 'the job does not notice'
    served.start()
    open_masks(page, served)
    tab(page, 'Runs')
    state = eventually(lambda: jobs.all()[0].state, lambda s: s != 'running')
    assert state == 'done', jobs.all()[0].log[-2000:]
    hears(page, 'done', 120)
    state = eventually(lambda: jobs.all()[1].state, lambda s: s != 'waiting')
    assert state in ('running', 'done'), 'the next one has begun'
    page.screenshot(path=shots / 'workbench-runs.png')
    press(page, 'Stop')
    hears(page, 'what was finished stays')
    assert list((served.folder / 'runs' / 'approach1' / 'tiny').glob('fold0/weights.safetensors'))


def test_trauma(page, served, finished_runs, shots):
    shutil.copytree(finished_runs / 'approach1', served.folder / 'runs' / 'approach1', dirs_exist_ok=True)
    open_masks(page, served)
    choose(page, 'Scan', ' CT ')
    tab(page, 'Trauma')
    choose(page, 'Run (all its folds)', 'approach1 tiny')
    press(page, 'Judge')
    hears(page, 'extravasation', 600)
    page.frame_locator('iframe[title=report]').get_by_text('For research only').wait_for(timeout=300_000)
    page.screenshot(path=shots / 'workbench-trauma.png')
    with page.expect_download(timeout=180_000) as download:
        page.get_by_text('Download for printing (PDF)').locator('visible=true').first.click()
    assert Path(download.value.path()).read_bytes().startswith(b'%PDF-')


def answer_of(url):
    """(text, status) of an address, an error's as well."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return answer.read().decode(), answer.status
    except urllib.error.HTTPError as error:
        return error.read().decode(), error.code


def test_a_second_user_without_the_token(tmp_path, browser):
    made = Served(tmp_path / 'work', '--token', 'only-mine')
    try:
        for path in ('', 'ws', 'static/js/bokeh.min.js'):
            text, status = answer_of(made.url + path)
            if path != 'static/js/bokeh.min.js':
                assert status in (400, 401, 403) and 'workbench</h1>' not in text, (path, status)
        context = browser.new_context()
        page = context.new_page()
        page.goto(made.url + 'enter?token=only-mine')
        page.get_by_role('heading', name='ctlab workbench').wait_for(timeout=300_000)
        cookie = context.cookies()[0]
        assert cookie['httpOnly'] and cookie['sameSite'] == 'Strict'
        context.close()
    finally:
        made.kill()


def test_a_page_from_elsewhere_gets_no_websocket(served):
    for origin, open_ in (('http://evil.example', False), (served.url.rstrip('/'), True)):
        with socket.create_connection(('127.0.0.1', served.port), 10) as s:
            s.sendall(
                f'GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
                f'Origin: {origin}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n'
                'Sec-WebSocket-Protocol: bokeh\r\n\r\n'.encode()
            )
            status = int(s.recv(200).split()[1])
        assert (status == 403) != open_, (origin, status)
