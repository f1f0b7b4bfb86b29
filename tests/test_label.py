"""MONAI Label's own client, and OHIF with its plug-in, against `ctlab label`."""

import importlib
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from conftest import PATIENCE, free_port, wait_for

from ctlab.interfaces.jobs import Jobs
from ctlab.interfaces.label_server import LabelServer, LabelService
from ctlab.interfaces.workbench import open_workspace
from ctlab.network.store import Store
from ctlab.scans import nifti
from ctlab.scans.volume import Volume

http = httpx.Client(timeout=PATIENCE)

VERSION = '0.8.5'


@pytest.fixture(scope='session')
def monailabel(tmp_path_factory):
    """Fetch the package of MONAI Label, without what it depends on: its client, and OHIF with its plug-in."""
    folder = tmp_path_factory.mktemp('monailabel')
    command = [sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d', str(folder), f'monailabel=={VERSION}']
    try:
        subprocess.run(command, check=True, timeout=300, capture_output=True)
    except subprocess.SubprocessError:
        pytest.skip("the package index cannot be reached: MONAI Label's own client is not tried")
    with zipfile.ZipFile(next(folder.glob('*.whl'))) as wheel:
        wheel.extractall(folder / 'package')
    return folder / 'package'


@pytest.fixture(scope='session')
def client_class(monailabel):
    """Import MONAI Label's own client."""
    sys.path.insert(0, str(monailabel))
    try:
        return importlib.import_module('monailabel.client.client').MONAILabelClient
    except ImportError as error:
        pytest.skip(f"MONAI Label's client cannot be imported: {error}")
    finally:
        sys.path.remove(str(monailabel))


@pytest.fixture
def store(tiny, tmp_path):
    """Make the store of a node with two series."""
    made = Store(tmp_path / 'store')
    for series in sorted((tiny / 'train_images').glob('*/*'))[:2]:
        files = sorted(series.iterdir(), key=lambda p: int(p.stem))
        for path in files[len(files) // 2 - 15 : len(files) // 2 + 15]:  # enough to outline, quick to outline
            made.add(path.read_bytes(), 'test')
    made.close()
    return tmp_path / 'store'


@pytest.fixture
def server(store):
    """Serve that store."""
    work = open_workspace(store)
    with LabelServer(LabelService(work, Jobs(work.folder / 'jobs', 1), 'tiny'), port=0) as running:
        yield running


def test_the_client_of_monai_label_works_unchanged(client_class, server, tmp_path):
    client, work = client_class(server.url, str(tmp_path), client_id='Ann'), server.service.work
    info = client.info()
    assert info['models']['organ_model']['labels']['liver'] == 1 and not client.auth_enabled()
    assert info['datastore']['total'] == 2 and 'organ_model' in info['trainers']
    first = client.next_sample('first', {})
    series = {s.uid for s in work.scans()}
    assert first['id'] in series and Path(first['path']).is_file()
    with pytest.raises(Exception, match='404'):
        client.infer('nothing', first['id'], {})

    label, params = client.infer('organ_model', first['id'], {})
    scan, found = work.read(work.scan(first['id'])), nifti.read(label)
    assert found.shape == scan.shape and np.allclose(found.affine, scan.affine, atol=1e-3)
    assert params['label_names']['liver'] == 1 and work.latest(work.scan(first['id'])).facts['network']
    again, _ = client.infer('organ_model', first['id'], {'result_extension': '.nrrd', 'result_compress': False})
    assert again.endswith('.nrrd') and len(work.masks(work.scan(first['id']))) == 1, 'answered from what is there'

    corrected = found.array.astype(np.uint8)
    corrected[: len(corrected) // 2, :8, :8] = 1
    nifti.write(Volume(corrected, found.affine), tmp_path / 'mine.nii.gz')
    saved = client.save_label(first['id'], str(tmp_path / 'mine.nii.gz'), 'final', {'label_info': []})
    assert saved['label'] == first['id']
    mine = work.latest(work.scan(first['id']), person=True)
    assert mine.person == 'Ann' and mine.facts['corrects'] == 1 and set(mine.structures) <= set(info['labels'])
    got = nifti.read(client.download_label(first['id'], 'final'))
    assert np.array_equal(got.array, corrected) and client.info()['datastore']['completed'] == 1
    objects = client.datastore()['objects']
    assert set(objects) == series and set(objects[first['id']]['labels']) == {'final', 'original'}
    assert client.next_sample('doubt', {})['id'] != first['id'], 'what is finished does not come again'


def test_images_and_sessions_of_the_client(client_class, server, tmp_path):
    client, work = client_class(server.url, str(tmp_path)), server.service.work
    source = nifti.write(work.read(work.scans()[0]), tmp_path / 'mine.nii.gz')
    image = client.upload_image(str(source), '../../Jane Doe')['image']
    assert image == 'v-Jane-Doe' and client.upload_image(str(source), 'Jane Doe')['image'] == image
    other = nifti.write(Volume(work.read(work.scans()[0]).array + 1, np.eye(4)), tmp_path / 'other.nii.gz')
    with pytest.raises(Exception, match='another image of this name'):
        client.upload_image(str(other), 'Jane Doe')
    session = client.create_session(str(source))['session_id']
    assert client.get_session(session)['name'] == session
    before = [len(work.masks(s)) for s in work.scans()]
    label, params = client.infer('organ_model', '', {}, session_id=session)
    assert nifti.read(label).shape == work.read(work.scans()[0]).shape and params['label_names']['liver'] == 1
    assert [len(work.masks(s)) for s in work.scans()] == before, 'nothing of a session is kept'
    client.remove_session(session)
    with pytest.raises(Exception, match='404'):
        client.get_session(session)


def test_a_token_is_the_password_of_the_client(client_class, store, tmp_path):
    work = open_workspace(store)
    with LabelServer(LabelService(work, Jobs(work.folder / 'jobs')), port=0, token='open sesame') as running:
        client = client_class(running.url, str(tmp_path))
        assert client.auth_enabled()
        with pytest.raises(Exception, match='401'):
            client.info()
        with pytest.raises(Exception, match='401'):
            client.auth_token('ann', 'wrong')
        client.update_auth(client.auth_token('ann', 'open sesame'))
        assert client.auth_valid_token() and client.info()['name'] == 'ctlab'


def test_training_by_the_client_goes_on_from_corrected_scans(client_class, server, tmp_path):
    client, work = client_class(server.url, str(tmp_path)), server.service.work
    with pytest.raises(Exception, match='nothing to learn from'):
        client.train_start('organ_model', {})
    assert not client.train_status(check_if_running=True)
    for scan in work.scans():
        mask = np.zeros(work.read(scan).shape, np.uint8)
        mask[2:-2, 10:30, 10:30] = 1
        work.save_mask(scan, Volume(mask, work.read(scan).affine), {'liver': 1}, 'Ann', {'person': 'Ann'})
    begun = client.train_start('organ_model', {'max_epochs': 1, 'preset': 'tiny'})
    assert begun['status'] in ('RUNNING', 'SCHEDULED') and client.train_status(check_if_running=True)
    with pytest.raises(Exception, match='429'):
        client.train_start('organ_model', {})
    stopped = client.train_stop()
    assert stopped['status'] == 'CANCELED' and client.train_status()['status'] == 'CANCELED'
    with pytest.raises(Exception, match='preset'):
        client.train_start('organ_model', {'preset': 'huge'})


def test_hostile_requests_are_refused_and_change_nothing(server, tmp_path):
    work, url = server.service.work, server.url
    image = work.scans()[0].uid
    shape = work.read(work.scans()[0]).shape
    good = {'label': ('label.bin', np.ones(shape, np.uint8).tobytes())}
    info = json.dumps({'label_info': [{'name': 'liver', 'idx': 1}]})

    def put(files=good, params=info, image=image, **options):
        return http.put(f'{url}/datastore/label?image={image}', files=files, data={'params': params}, **options)

    for answer, status in (
        (put(image='../../../etc'), 404),
        (put({'label': ('label.bin', b'123')}), 400),
        (put({'label': ('../../x.nii.gz', b'\x1f\x8b junk')}), 400),
        (put(params='[1]'), 400),
        (put(params='{not json'), 400),
        (put(params=json.dumps({'label_info': [{'name': '../../etc', 'idx': 1}]})), 400),
        (put(params=json.dumps({'label_info': [{'name': 'liver', 'idx': 99999}]})), 400),
        (put({'other': ('label.bin', b'1')}), 400),
        (put(headers={'Origin': 'http://evil.example'}), 403),
        (put(headers={'Host': 'evil.example'}), 400),
        (http.post(f'{url}/infer/organ_model?image=../x'), 404),
        (http.post(f'{url}/infer/..%2f..%2fetc?image={image}'), 404),
        (http.post(f'{url}/infer/organ_model?image={image}', data={'params': '{"result_extension": "/../x"}'}), 400),
        (http.get(f'{url}/session/..%2f..%2fetc'), 404),
        (http.delete(f'{url}/datastore/image?id={image}'), 403),
        (http.post(f'{url}/activelearning/best', json={}), 404),
        (http.put(f'{url}/session/', files={'files': ('x.nii.gz', b'junk')}), 400),
    ):
        assert answer.status_code == status, (answer.request.url, answer.status_code, answer.text)
    chunks = http.put(f'{url}/datastore/label?image={image}', content=iter([b'x'] * 10))
    assert chunks.status_code == 411, 'an upload says its size'
    assert all(not m.person for s in work.scans() for m in work.masks(s))
    assert put().status_code == 200 and not list(work.folder.glob('.upload-*')), 'and afterwards all is well'


def test_an_image_of_a_session_is_outlined_by_the_network_in_use(server, tmp_path, monkeypatch):
    own, seen = server.service.work.folder / 'networks' / 'abcd', []
    own.mkdir(parents=True)
    (own / 'verdict.json').write_text('{"name": "abcd"}')
    (own.parent / 'current.json').write_text('{"name": "abcd"}')

    def segment(volume, model, weights):
        seen.append(weights)
        return Volume(np.zeros(volume.shape, np.uint8), volume.affine, {'structures': ('liver',)})

    monkeypatch.setattr('ctlab.organs.segment.segment', segment)
    image = nifti.write(Volume(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / 'image.nii.gz')
    assert server.service.infer_file('organ_model', image)[1] == {'liver': 1}
    assert seen == [str(own / 'weights.safetensors')]


def test_two_people_at_once_lose_nothing(server):
    work, url = server.service.work, server.url
    scan = work.scans()[0]
    shape = work.read(scan).shape

    def send(k):
        label = np.full(shape, k, np.uint8)
        params = {'client_id': f'person {k}', 'label_info': [{'name': 'liver', 'idx': k}]}
        answer = http.put(
            f'{url}/datastore/label?image={scan.uid}',
            files={'label': ('label.bin', label.tobytes())},
            data={'params': json.dumps(params)},
            timeout=PATIENCE,
        )
        assert answer.status_code == 200, answer.text

    threads = [threading.Thread(target=send, args=(k,)) for k in range(1, 9)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    kept = {m.person: nifti.read(m.path).array.max() for m in work.masks(scan)}
    assert kept == {f'person {k}': k for k in range(1, 9)}


def test_a_too_large_upload_is_refused_before_it_is_read(store):
    from starlette.testclient import TestClient

    from ctlab.interfaces.label_server import make_label_app

    work = open_workspace(store)
    app = make_label_app(LabelService(work, Jobs(work.folder / 'jobs')), hosts=('testserver',), most=1000)
    answer = TestClient(app).put('/datastore/image?image=x', files={'file': ('x.nii.gz', b'0' * 2000)})
    assert answer.status_code == 413 and 'MiB' in answer.text


def test_the_command_serves_until_it_is_told_to_stop(tmp_path):
    port = free_port()
    command = [str(Path(sys.executable).with_name('ctlab')), 'label', str(tmp_path / 'bench'), '--port', str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(port)
        assert http.get(f'http://127.0.0.1:{port}/info/').json()['datastore']['total'] == 0
        assert http.post(f'http://127.0.0.1:{port}/activelearning/doubt', json={}).json() == {}
    finally:
        server.terminate()
        said, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0 and 'answers MONAI Label clients: 0 scans' in said and 'stopped' in said


def test_the_command_says_what_is_wrong(ctlab, tmp_path):
    (tmp_path / 'file').write_text('x')
    for arguments, words in (
        ([tmp_path / 'file'], 'is a file'),
        ([tmp_path / 'new', '--preset', 'huge'], 'tiny, demo or full'),
        ([tmp_path / 'new', '--ohif', tmp_path], 'no index.html'),
    ):
        ended = ctlab('label', *arguments)
        assert ended.returncode in (1, 2) and words in ended.stderr, ended.stderr


def test_outlining_and_learning_from_the_command_line(ctlab, store, tmp_path):
    """One scan cannot be outlined, the other is; and nothing can be learned before something is corrected."""
    work = open_workspace(store)
    hu = np.full((24, 40, 40), -1000, np.int16)
    hu[:, 5:-5, 5:-5] = 40
    for name, array in (('small', hu), ('mr', hu + 1000)):
        nifti.write(Volume(array, np.diag([-6.0, -6.0, 5.0, 1.0])), tmp_path / f'{name}.nii.gz')
        work.import_files(tmp_path / f'{name}.nii.gz')
    told = ctlab('outline', store, 'v-mr', 'v-small')
    assert told.returncode == 0 and '1 of 2 scans outlined' in told.stdout, told.stdout + told.stderr
    assert 'v-mr' not in told.stderr and 'mr: not outlined' in told.stdout
    assert len(work.masks(work.scan('v-small'))) == 1 and not work.masks(work.scan('v-mr'))
    assert ctlab('outline', store, 'v-mr').returncode == 1
    assert 'no scan' in ctlab('outline', store, 'v-nobody').stderr
    told = ctlab('learn', store, '--preset', 'tiny')
    assert told.returncode == 1 and 'correct some scans' in told.stderr and 'Traceback' not in told.stderr
    assert ctlab('learn', tmp_path / 'nothing').returncode == 1
    assert ctlab('learn', store, '--preset', 'huge').returncode == 2


def _coloured(page, box):
    """Share of the pixels of a part of the page that are not grey."""
    import io

    from PIL import Image

    picture = np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert('RGB')).astype(int)
    return float((np.ptp(picture, axis=2) > 25).mean())


def test_ohif_with_the_plugin_outlines_a_scan(monailabel, store, browser, shots):
    """Drive OHIF with MONAI Label's plug-in, unchanged: open, connect, outline, next sample."""
    work = open_workspace(store)
    pages = monailabel / 'monailabel' / 'endpoints' / 'static' / 'ohif'
    with LabelServer(LabelService(work, Jobs(work.folder / 'jobs')), port=0, viewer=pages) as running:
        context, wrong = browser.new_context(viewport={'width': 1500, 'height': 950}), []
        context.add_cookies([{'name': 'MONAILABEL_SERVER_URL', 'value': f'{running.url}/', 'url': running.url}])
        page = context.new_page()
        page.on('response', lambda r: wrong.append(f'{r.status} {r.url}') if r.status >= 400 else None)
        page.on(
            'requestfinished', lambda r: wrong.append(r.url) if not r.url.startswith((running.url, 'blob:')) else None
        )
        page.goto(f'{running.url}/ohif/')
        page.get_by_text('Confirm and Hide').click()
        patient = work.scans()[0].patient
        page.get_by_text(patient).first.click()
        page.get_by_text('MONAI Label').first.click()
        page.wait_for_selector('#monailabelServerURL', timeout=180_000)
        page.wait_for_timeout(3000)
        axial = {'x': 300, 'y': 400, 'width': 280, 'height': 180}
        before = _coloured(page, axial)
        page.locator('.actionButton').first.click()
        with page.expect_response(lambda r: '/infer/organ_model' in r.url, timeout=900_000) as answer:
            page.get_by_role('button', name='Run').first.click(timeout=180_000)
        assert answer.value.status == 200
        page.wait_for_timeout(3000)
        page.screenshot(path=shots / 'label-ohif.png')
        assert before < 0.01 and _coloured(page, axial) > 0.05, 'the masks are seen on the slice'
        assert len([m for s in work.scans() for m in work.masks(s)]) == 1
        assert not [w for w in wrong if '/train/?check_if_running' not in w], wrong
        context.close()


def test_a_segmentation_without_frame_content_is_read_by_positions(tiny, tmp_path):
    """OHIF leaves out what highdicom asks for; both ways of reading find the same voxels at the same place."""
    import pydicom

    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.scans.io import read
    from ctlab.scans.label_maps import MaskError, read_masks
    from ctlab.scans.volume import reorient

    series = sorted((tiny / 'train_images').glob('*/*'))[0]
    scan = read(series)
    mask = np.zeros(scan.shape, np.uint8)
    mask[5:9, 30:50, 20:40], mask[14:20, 40:60, 50:70] = 1, 2
    write_dicom_seg(Volume(mask, scan.affine), series, tmp_path / 'a.dcm', numbers={'liver': 1, 'spleen': 2})
    ds = pydicom.dcmread(tmp_path / 'a.dcm')
    for frame in ds.PerFrameFunctionalGroupsSequence:
        del frame.FrameContentSequence
    ds.save_as(tmp_path / 'b.dcm')
    usual, bare = read_masks(tmp_path / 'a.dcm'), read_masks(tmp_path / 'b.dcm')
    assert usual.names == bare.names == ['liver', 'spleen'] and usual.colours == bare.colours != {}
    for name in usual.names:
        one, other = reorient(usual.mask(name)), reorient(bare.mask(name))
        assert np.array_equal(np.argwhere(one.array), np.argwhere(other.array))
        assert np.allclose(one.affine, other.affine, atol=1e-3)

    stored = read_masks(Path(__file__).parent / 'referees' / 'ohif-3.13-label-map.dcm').mask('liver')
    assert stored.array.shape == (30, 128, 128) and stored.array.sum() == 27_301, 'as OHIF 3.13 stored it'
    assert np.allclose(stored.affine.diagonal(), [3.698653, 3.698653, 4, 1], atol=1e-4)
    del ds.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    ds.save_as(tmp_path / 'c.dcm')
    with pytest.raises(MaskError, match='not readable as DICOM SEG'):
        read_masks(tmp_path / 'c.dcm')
