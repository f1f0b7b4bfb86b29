"""Peers that others wrote, and peers that mean no good, on loopback."""

import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from conftest import PATIENCE, eventually, free_port, start_script, wait_for

from ctlab.network.client import echo, fetch, query, send
from ctlab.network.dicomweb import DicomWebServer
from ctlab.network.node import Node, Peer, TlsConfig, _Checkpoint, open_association, presentation_contexts
from ctlab.network.reception import NodeLimits
from ctlab.network.store import Store
from ctlab.scans.dicom import write_series
from ctlab.scans.volume import make_volume

CT = '1.2.840.10008.5.1.4.1.1.2'
ELSEWHERE = os.pathsep.join(
    d for d in os.environ['PATH'].split(os.pathsep) if not (Path(d).parent / 'pyvenv.cfg').exists()
)  # pynetdicom has commands of these names
DCMTK = {
    n: shutil.which(n, path=ELSEWHERE)
    for n in (
        'echoscu',
        'storescu',
        'dcmsend',
        'findscu',
        'movescu',
        'getscu',
        'storescp',
        'dcmqrscp',
        'dcmdump',
        'dsrdump',
    )
}
ORTHANC = shutil.which('Orthanc') or shutil.which('Orthanc', path='/usr/sbin')
WEB_PLUGIN = next(
    (
        p
        for p in map(
            Path, ('/usr/share/orthanc/plugins/libOrthancDicomWeb.so', '/usr/lib/orthanc/libOrthancDicomWeb.so')
        )
        if p.exists()
    ),
    None,
)
needs_dcmtk = pytest.mark.skipif(
    not all(DCMTK.values()), reason="DCMTK is not installed; Debian's package dcmtk has it"
)
needs_orthanc = pytest.mark.skipif(
    not (ORTHANC and WEB_PLUGIN),
    reason="Orthanc with DICOMweb is not installed; Debian's packages orthanc and orthanc-dicomweb",
)


@pytest.fixture(scope='module')
def scans(tmp_path_factory):
    """Three patients, packed in three ways."""
    root, rng = tmp_path_factory.mktemp('scans'), np.random.default_rng(0)
    for k, (patient, syntax) in enumerate((('Jane', 'plain'), ('Joan', 'rle'), ('Jim', 'jpeg2000')), 1):
        scan = make_volume(rng.integers(-500, 500, (6, 32, 40)).astype(np.int16), (2.0, 1.0, 1.0))
        tags = {
            'StudyInstanceUID': f'1.2.3.{k}',
            'StudyDate': '20261126',
            'StudyTime': '101112',
            'PatientName': f'{patient}^Test',
            'PatientBirthDate': '19700101',
            'PatientSex': 'O',
            'StudyID': str(k),
            'AccessionNumber': f'A{k}',
            'StudyDescription': 'made by a test',
            'SeriesNumber': '1',
            'FrameOfReferenceUID': f'1.2.3.{k}.7',
        }
        write_series(scan, root / patient, patient, f'1.2.3.{k}.1', syntax, tags)
    return root


def same(a, b):
    """Check whether two folders hold the same objects, header and pixels."""

    def read(folder):
        return {
            d.SOPInstanceUID: d
            for d in (
                pydicom.dcmread(p)
                for p in Path(folder).rglob('*')
                if p.is_file() and p.suffix not in ('.sqlite', '.lock') and 'index' not in p.name
            )
        }

    one, two = read(a), read(b)
    assert set(one) == set(two) and one, f'{len(one)} and {len(two)} objects'
    for uid in one:
        assert np.array_equal(one[uid].pixel_array, two[uid].pixel_array), uid
        for element in one[uid]:
            if element.keyword not in ('PixelData',):
                assert element == two[uid].get(element.tag), (uid, element)


def run(*command, ok=True, seconds=PATIENCE):
    done = subprocess.run(
        [DCMTK.get(command[0], command[0]), *map(str, command[1:])], capture_output=True, text=True, timeout=seconds
    )
    assert (done.returncode == 0) == ok, f'{command}: {done.returncode}\n{done.stdout}\n{done.stderr}'
    return done.stdout + done.stderr


@pytest.fixture
def node(tmp_path):
    with Node(Store(tmp_path / 'store', free=0), port=0) as made:
        yield made


@needs_dcmtk
def test_dcmtk_speaks_to_our_node(node, scans, tmp_path):
    here, to_us = ('127.0.0.1', node.port), ('-aec', 'CTLAB')
    run('echoscu', *to_us, *here)
    run('storescu', *to_us, *here, *sorted((scans / 'Jane').iterdir()))
    run('storescu', *to_us, '-xr', *here, *sorted((scans / 'Joan').iterdir()))
    run('dcmsend', *to_us, '--no-uid-checks', *here, '--scan-directories', '--recurse', scans)
    assert node.store.totals()['instance'] == 18 and node.store.totals()['refused'] == 0
    same(scans, node.store.folder / 'train_images')
    syntaxes = {f['syntax'] for f in node.store.find('IMAGE', {'PatientID': 'Jim'})}
    assert syntaxes == {'1.2.840.10008.1.2.4.90'}, 'as it was sent'

    def find(model, level, *keys):
        wanted = [part for key in (f'QueryRetrieveLevel={level}', *keys) for part in ('-k', key)]
        return run('findscu', model, *to_us, *here, *wanted)

    dates, counts = 'StudyDate=20261101-20261130', 'NumberOfStudyRelatedInstances'
    found = find('-S', 'STUDY', 'PatientName=j*', 'StudyInstanceUID', counts, dates)
    assert all(f'1.2.3.{k}' in found for k in (1, 2, 3)) and found.count('[6 ]') == 3
    assert '1.2.3.1' not in find('-P', 'PATIENT', 'PatientID=Nobody')


@needs_dcmtk
def test_dcmtk_fetches_from_our_node(node, scans, tmp_path):
    here, to_us = ('127.0.0.1', node.port), ('-aec', 'CTLAB')
    send(Peer('CTLAB', *here), scans)
    study = ('-k', 'QueryRetrieveLevel=STUDY', '-k')
    for name in ('got', 'unpacked', 'moved'):
        (tmp_path / name).mkdir()
    run('getscu', '-S', '+B', *to_us, *here, '-od', tmp_path / 'got', *study, 'StudyInstanceUID=1.2.3.1')
    same(scans / 'Jane', tmp_path / 'got')
    run('getscu', '-S', *to_us, *here, '-od', tmp_path / 'unpacked', *study, 'StudyInstanceUID=1.2.3.3')
    same(scans / 'Jim', tmp_path / 'unpacked')  # a client that knows no JPEG 2000 gets it unpacked
    port = free_port()
    node.peers = (Peer('MOVER', '127.0.0.1', port),)

    def move(destination, *more, **options):
        titles = ('-aet', 'MOVER', *to_us, '-aem', destination)
        run('movescu', '-S', *titles, *here, '-k', 'StudyInstanceUID=1.2.3.2', *more, **options)

    series = ('-k', 'QueryRetrieveLevel=SERIES', '-k', 'SeriesInstanceUID=1.2.3.2.1')
    move('MOVER', *series, '+P', port, '-od', tmp_path / 'moved')
    same(scans / 'Joan', tmp_path / 'moved')
    move('STRANGER', '-k', 'QueryRetrieveLevel=STUDY', ok=False)


@needs_dcmtk
def test_our_clients_speak_to_dcmtk(scans, tmp_path):
    port, archive = free_port(), tmp_path / 'archive'
    archive.mkdir()
    (tmp_path / 'dcmqrscp.cfg').write_text(f"""NetworkTCPPort = {port}
MaxPDUSize = 16384
MaxAssociations = 16
HostTable BEGIN
us = (CTLAB, localhost, 11112)
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE {archive} RW (200, 1024mb) ANY
AETable END
""")
    server = subprocess.Popen(
        [DCMTK['dcmqrscp'], '-c', tmp_path / 'dcmqrscp.cfg'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        peer = Peer('ARCHIVE', '127.0.0.1', port)
        assert echo(peer) < 5
        first = send(peer, scans)
        assert (first.moved, first.failed) == (18, []), first.failed
        again = send(peer, scans)
        assert (again.moved, again.there) == (0, 18)
        assert {r['PatientID'] for r in query(peer, 'STUDY', {'PatientID': 'J*', 'StudyInstanceUID': ''})} == {
            'Jane',
            'Joan',
            'Jim',
        }
        store = Store(tmp_path / 'fetched', free=0)
        back = fetch(peer, store, {'PatientID': 'Jane'})
        assert (back.moved, back.failed) == (6, [])
        same(scans / 'Jane', store.folder / 'train_images')
    finally:
        server.terminate()
        server.wait(10)


@needs_dcmtk
def test_our_client_keeps_a_ledger_of_what_a_peer_took(scans, tmp_path):
    plain = free_port()
    (tmp_path / 'scp').mkdir()
    command = [DCMTK['storescp'], '-aet', 'SCP', '-od', tmp_path / 'scp', str(plain)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(plain)
        peer = Peer('SCP', '127.0.0.1', plain)
        first, again = (send(peer, scans, ledger=tmp_path / 'ledger') for _ in range(2))
        counts = (first.moved, again.moved, again.there)
        assert counts == (18, 0, 18), 'a peer that answers no query is believed by the ledger'
        same(scans, tmp_path / 'scp')  # it takes nothing packed, so it was unpacked
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def orthanc(running_orthanc):
    """Orthanc with nothing in it."""
    import requests

    for patient in requests.get(f'{running_orthanc[1]}/patients', timeout=PATIENCE).json():
        requests.delete(f'{running_orthanc[1]}/patients/{patient}', timeout=PATIENCE).raise_for_status()
    return running_orthanc


@pytest.fixture(scope='module')
def running_orthanc(tmp_path_factory):
    root, dicom, http, ours = tmp_path_factory.mktemp('orthanc'), free_port(), free_port(), free_port()
    (root / 'config.json').write_text(
        json.dumps(
            {
                'Name': 'test',
                'StorageDirectory': str(root / 'db'),
                'IndexDirectory': str(root / 'db'),
                'HttpPort': http,
                'DicomPort': dicom,
                'DicomAet': 'ORTHANC',
                'RemoteAccessAllowed': False,
                'AuthenticationEnabled': False,
                'Plugins': [str(WEB_PLUGIN)],
                'DicomWeb': {'Enable': True, 'Root': '/dicom-web/'},
                'DicomModalities': {'ctlab': ['CTLAB', '127.0.0.1', ours]},
                'DicomAlwaysAllowGet': True,
                'DicomAlwaysAllowFind': True,
                'DicomAlwaysAllowMove': True,
            }
        )
    )
    with open(root / 'log', 'w') as log:
        server = subprocess.Popen([ORTHANC, root / 'config.json'], stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(http)
        wait_for(dicom)
        yield Peer('ORTHANC', '127.0.0.1', dicom), f'http://127.0.0.1:{http}', ours
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(autouse=True)
def _quiet():
    """Silence pydicom's warnings about hostile values."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@needs_orthanc
def test_a_cohort_goes_to_orthanc_and_back(orthanc, scans, tmp_path):
    import requests

    peer, http, ours = orthanc
    with Node(Store(tmp_path / 'first', free=0), port=ours) as node:
        assert send(Peer('CTLAB', '127.0.0.1', node.port), scans).moved == 18
        assert send(peer, node.store.folder / 'train_images').moved == 18
    assert send(peer, scans).there == 18
    second = Store(tmp_path / 'second', free=0)
    back = fetch(peer, second, {'PatientID': 'J*'})
    assert (back.moved, back.failed) == (18, [])
    same(scans, second.folder / 'train_images')
    with Node(Store(tmp_path / 'third', free=0), port=ours) as node:  # Orthanc sends, by its own will and by C-MOVE
        for study in requests.get(f'{http}/studies', timeout=PATIENCE).json():
            requests.post(f'{http}/modalities/ctlab/store', data=study, timeout=PATIENCE).raise_for_status()
        same(scans, node.store.folder / 'train_images')
    fourth = Store(tmp_path / 'fourth', free=0)
    assert fetch(peer, fourth, {'PatientID': 'Joan'}, 'move', port=ours).moved == 6
    same(scans / 'Joan', fourth.folder / 'train_images')


@needs_orthanc
def test_dicomweb_with_orthanc_both_ways(orthanc, scans, tmp_path):
    import requests
    from dicomweb_client import DICOMwebClient

    peer, http, _ = orthanc
    theirs = DICOMwebClient(f'{http}/dicom-web')
    with DicomWebServer(Store(tmp_path / 'web', free=0), port=0) as web:
        session = requests.Session()
        session.headers['Authorization'] = f'Bearer {web.token}'
        mine = DICOMwebClient(web.url, session=session)
        objects = [pydicom.dcmread(p) for p in sorted(scans.rglob('*.dcm'))]
        assert len(mine.store_instances(objects).ReferencedSOPSequence) == 18
        for study in mine.search_for_studies():
            theirs.store_instances(mine.retrieve_study(study['0020000D']['Value'][0]))
        for client in (mine, theirs):
            found = client.search_for_studies()
            assert {s['00100020']['Value'][0] for s in found} == {'Jane', 'Joan', 'Jim'}, client.base_url
            assert len(client.search_for_studies(search_filters={'PatientID': 'Jane'})) == 1
        other = Store(tmp_path / 'back', free=0)
        for study in theirs.search_for_studies():
            for ds in theirs.retrieve_study(study['0020000D']['Value'][0], media_types=(('application/dicom', '*'),)):
                ds.save_as(tmp_path / 'one.dcm')
                other.add((tmp_path / 'one.dcm').read_bytes())
        same(scans, other.folder / 'train_images')


@needs_orthanc
@needs_dcmtk
def test_orthanc_keeps_and_finds_our_findings(orthanc, scans, tmp_path):
    import highdicom as hd

    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.core.anatomy import STRUCTURE_CODES
    from ctlab.network.structured_report import Finding, result_uid, write_structured_report
    from ctlab.scans.dicom import read_series
    from ctlab.scans.volume import Volume

    peer, http, _ = orthanc
    scan = read_series(scans / 'Jane')
    mask = np.zeros(scan.shape, np.uint8)
    mask[1:4, 5:20, 5:20] = STRUCTURE_CODES['liver']
    write_dicom_seg(Volume(mask, scan.affine), scans / 'Jane', tmp_path / 'out' / 'seg.dcm')
    seg = hd.seg.segread(tmp_path / 'out' / 'seg.dcm')
    write_structured_report(
        scans / 'Jane',
        [Finding('liver', 1.35, 'mL')],
        tmp_path / 'out' / 'sr.dcm',
        (result_uid(1), result_uid(2)),
        'organ model',
        '1',
        seg,
    )
    assert send(peer, scans / 'Jane').failed == [] and send(peer, tmp_path / 'out').moved == 2
    rows = query(peer, 'SERIES', {'StudyInstanceUID': '1.2.3.1', 'SeriesInstanceUID': '', 'Modality': ''})
    assert {r['Modality'] for r in rows} >= {'CT', 'SEG', 'SR'}
    assert 'research-only' in run('dsrdump', '+Pc', tmp_path / 'out' / 'sr.dcm') and 'Error' not in run(
        'dcmdump', '-q', tmp_path / 'out' / 'seg.dcm'
    )
    back = Store(tmp_path / 'back', free=0)
    fetch(peer, back, {'StudyInstanceUID': '1.2.3.1'})
    kept = {f['Modality']: f['path'] for f in back.find('IMAGE')}
    assert np.array_equal(hd.seg.segread(kept['SEG']).pixel_array, seg.pixel_array)


@pytest.fixture(scope='module')
def certificates(tmp_path_factory):
    """Make an authority, a server, a client, and a stranger with a certificate of its own."""
    if not shutil.which('openssl'):
        pytest.skip('openssl is not installed')
    root = tmp_path_factory.mktemp('tls')

    def request(name, *more):
        key = ('-newkey', 'rsa:2048', '-nodes', '-keyout', root / f'{name}.key')
        run('openssl', 'req', *key, '-subj', f'/CN={name}', *more)

    for name in ('ca', 'stranger'):
        request(name, '-x509', '-days', '2', '-out', root / f'{name}.pem')
    authority = ('-CA', root / 'ca.pem', '-CAkey', root / 'ca.key', '-CAcreateserial')
    (root / 'names').write_text('subjectAltName=DNS:localhost,IP:127.0.0.1')
    for name in ('server', 'client'):
        request(name, '-out', root / f'{name}.csr')
        signed = ('-in', root / f'{name}.csr', '-out', root / f'{name}.pem', '-days', '2', '-extfile', root / 'names')
        run('openssl', 'x509', '-req', *authority, *signed)
    return root


@needs_dcmtk
def test_tls(certificates, scans, tmp_path):
    def at(name):
        return str(certificates / name)

    tls = TlsConfig(at('server.pem'), at('server.key'), at('ca.pem'))
    with Node(Store(tmp_path / 'store', free=0), port=0, tls=tls) as node:
        mute = socket.create_connection(('127.0.0.1', node.port))  # says nothing, and holds up nobody
        here = ('-aec', 'CTLAB', '127.0.0.1', node.port)
        run('echoscu', '+tls', at('client.key'), at('client.pem'), '+cf', at('ca.pem'), *here)
        run(
            'storescu',
            '+tls',
            at('client.key'),
            at('client.pem'),
            '+cf',
            at('ca.pem'),
            *here,
            *sorted((scans / 'Jane').iterdir()),
        )
        run('echoscu', '+tls', at('stranger.key'), at('stranger.pem'), '+cf', at('ca.pem'), *here, ok=False)
        run('echoscu', '+tla', '+cf', at('ca.pem'), *here, ok=False)
        run('echoscu', *here, ok=False)
        peer = Peer('CTLAB', '127.0.0.1', node.port)
        assert send(peer, scans, tls=TlsConfig(at('client.pem'), at('client.key'), at('ca.pem'))).there == 6
        for wrong in (
            None,
            TlsConfig(authority=at('ca.pem')),
            TlsConfig(at('client.pem'), at('client.key'), at('stranger.pem')),
        ):
            with pytest.raises(OSError):
                echo(peer, tls=wrong, timeout=5)
        assert node.store.totals()['instance'] == 18
        mute.close()


def one_slice(scans):
    return sorted((scans / 'Jane').iterdir())[0].read_bytes()


def test_a_peer_that_vanishes_leaves_nothing(node, scans):
    """Every second peer hangs up in the middle of an object."""
    big = pydicom.dcmread(sorted((scans / 'Jane').iterdir())[0])
    big.Rows = big.Columns = 1024
    big.PixelData = b'\1\2' * (1024 * 1024)
    for k in range(10):
        big.SOPInstanceUID = f'1.2.9.{k}'
        with open_association(
            'VANISH', Peer('CTLAB', '127.0.0.1', node.port), presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
        ) as a:
            if k % 2:
                threading.Timer(0.004, lambda: a.dul.socket.socket and a.dul.socket.socket.close()).start()
            try:
                whole = a.send_c_store(big).get('Status') == 0
            except Exception:
                whole = False
        if not k % 2:
            assert whole
    eventually(lambda: (list(node.store.incoming.iterdir()), node._waiting.total), lambda left: left == ([], 0))
    kept = [pydicom.dcmread(p) for p in node.store.paths()]
    assert len(kept) >= 5 and all(len(d.PixelData) == 2 * 1024 * 1024 for d in kept)


def test_a_full_disk_is_said_and_kept_to(scans, tmp_path):
    with Node(Store(tmp_path / 'store', free=1 << 60), port=0) as node:
        done = send(Peer('CTLAB', '127.0.0.1', node.port), scans / 'Jane')
        assert done.moved == 0 and len(done.failed) == 6 and 'A700' in done.failed[0][1]
        node.store.free = 0
        real, Path.replace = Path.replace, lambda *_: (_ for _ in ()).throw(OSError(28, 'No space left on device'))
        try:
            assert send(Peer('CTLAB', '127.0.0.1', node.port), scans / 'Jane').moved == 0
        finally:
            Path.replace = real
        assert send(Peer('CTLAB', '127.0.0.1', node.port), scans / 'Jane').moved == 6, (
            'and goes on when there is room again'
        )
        assert not list(node.store.incoming.iterdir())


def test_a_disk_that_is_really_full(scans, tmp_path):
    """Fill a file system of two megabytes.

    What is acknowledged is whole, the rest is refused, and room makes it work again.
    """
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', disk], capture_output=True).returncode:
        pytest.skip('no file system can be mounted here')
    try:
        big = pydicom.dcmread(sorted((scans / 'Jane').iterdir())[0])
        big.Rows = big.Columns = 256
        big.PixelData = b'\1\2' * (256 * 256)
        (tmp_path / 'in').mkdir()
        for k in range(30):
            big.SOPInstanceUID = big.file_meta.MediaStorageSOPInstanceUID = f'1.2.6.{k}'
            big.save_as(tmp_path / 'in' / f'{k}.dcm')
        with Node(Store(disk / 'store', free=0), port=0) as node:
            peer = Peer('CTLAB', '127.0.0.1', node.port)
            first = send(peer, tmp_path / 'in')
            assert 5 < first.moved < 15 and first.moved + len(first.failed) == 30, first
            assert all('A700' in why for _, why in first.failed)
            kept = node.store.paths()
            assert len(kept) == first.moved == len(list(node.store.folder.rglob('*.dcm')))
            assert all(len(pydicom.dcmread(p).PixelData) == 2 * 256 * 256 for p in kept)
            subprocess.run(['mount', '-o', 'remount,size=20m', disk], check=True)
            second = send(peer, tmp_path / 'in')
            assert (second.there, second.moved, second.failed) == (first.moved, 30 - first.moved, [])
            assert not list(node.store.incoming.iterdir())
    finally:
        subprocess.run(['umount', '-l', disk])


def mutated(raw, head, rng):
    """Change, cut or repeat bytes of an object's header."""
    mutant = bytearray(raw)
    for _ in range(rng.randint(1, 12)):
        at, how = rng.randrange(min(len(mutant), head)), rng.random()
        if how < 0.6:
            mutant[at] = rng.randrange(256)
        elif how < 0.8:
            del mutant[at : at + rng.randint(1, 40)]
        else:
            mutant[at:at] = mutant[at : at + rng.randint(1, 40)]
    return bytes(mutant)


def answer_to(association, request):
    """Send a request past pynetdicom's own checks, and wait for its answer."""
    association._reactor_checkpoint.clear()
    while association.is_established and not association._is_paused:
        time.sleep(0.0001)  # else the reactor may take the answer
    association.dimse.send_msg(request, association.accepted_contexts[0].context_id)
    _, answer = association.dimse.get_msg(block=True)
    association._reactor_checkpoint.set()
    while association.is_established and association._is_paused:
        time.sleep(0.0001)  # it may not have heard yet
    return answer


def test_mutated_objects_get_an_answer(node, scans):
    """Three hundred files with bytes changed, cut or repeated: an answer to each, nothing outside, nothing half."""
    rng, raw = random.Random(0), bytearray(one_slice(scans))
    head = raw.index(struct.pack('<HH', 0x7FE0, 0x10))
    outside = {p for p in node.store.folder.parent.rglob('*') if node.store.folder not in p.parents}
    from io import BytesIO

    from pynetdicom import dimse_primitives

    answered = 0
    meta = pydicom.dcmread(BytesIO(bytes(raw)), stop_before_pixels=True).file_meta
    start = 132 + 12 + meta.FileMetaInformationGroupLength
    peer = Peer('CTLAB', '127.0.0.1', node.port)
    context = presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
    todo = list(range(300))
    while todo:
        with open_association('MUTANT', peer, context, timeout=300.0) as a:
            while todo and a.is_established:
                k = todo.pop()
                mutant = mutated(raw[start:], head, rng)
                request = dimse_primitives.C_STORE()
                request.MessageID, request.Priority, request.DataSet = k + 1, 2, BytesIO(mutant)
                request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, f'1.2.8.{k}'
                answered += answer_to(a, request) is not None
    assert answered == 300, 'every one got an answer'
    assert echo(peer) < 5
    totals = node.store.totals()
    assert totals['instance'] == len(list(node.store.folder.rglob('*.dcm'))) and totals['refused'] > 100
    assert outside == {p for p in node.store.folder.parent.rglob('*') if node.store.folder not in p.parents}
    for path in node.store.paths():
        assert re.fullmatch(r'(train_images|objects)/\d+/\d+/\d+\.dcm', path.relative_to(node.store.folder).as_posix())


def test_lengths_that_lie(node):
    """A PDU that claims more, less or another kind than it is; and one byte at a time."""

    def hello():
        return socket.create_connection(('127.0.0.1', node.port), timeout=5)

    rng = random.Random(1)
    for kind in (0, 1, 2, 4, 5, 7, 255):
        for length in (0, 1, 4, 68, 1 << 16, (1 << 20) + 2000, (1 << 32) - 1):
            with hello() as s, contextlib.suppress(OSError):
                s.sendall(
                    struct.pack('>BBL', kind, 0, length) + bytes(rng.randrange(256) for _ in range(min(length, 200)))
                )
    with hello() as s:
        for byte in struct.pack('>BBL', 1, 0, 70):
            s.sendall(bytes([byte]))
    assert echo(Peer('CTLAB', '127.0.0.1', node.port)) < 5


def in_fragments(ds):
    """(control byte, bytes) of a C-STORE: its command, then its object in three."""
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset
    from pynetdicom.dimse_messages import C_STORE_RQ
    from pynetdicom.dimse_primitives import C_STORE
    from pynetdicom.dsutils import encode

    (file := DicomBytesIO()).is_little_endian, file.is_implicit_VR = True, False
    write_dataset(file, ds)
    raw, ask, message = file.getvalue(), C_STORE(), C_STORE_RQ()
    ask.MessageID, ask.Priority, ask.DataSet = 1, 2, io.BytesIO()
    ask.AffectedSOPClassUID, ask.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    message.primitive_to_message(ask)
    message.command_set.CommandDataSetType = 1
    command = encode(message.command_set, True, True)
    third = len(raw) // 3
    return [(3, command), (0, raw[:third]), (0, raw[third : 2 * third]), (2, raw[2 * third :])]


def pdu_of(context, *fragments):
    body = b''.join(struct.pack('>LBB', len(raw) + 2, context, control) + raw for control, raw in fragments)
    return struct.pack('>BBL', 4, 0, len(body)) + body


def test_who_stops_within_an_object_keeps_nobody_from_sending(node, scans):
    """One at a time computes in the node; whoever waits for the network must have given the turn away."""
    peer, first = Peer('CTLAB', '127.0.0.1', node.port), sorted((scans / 'Jane').iterdir())[0]
    contexts = presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            a = stack.enter_context(open_association('SLOW', peer, contexts))
            (context,) = (c.context_id for c in a.accepted_contexts)
            whole = pdu_of(context, *in_fragments(pydicom.dcmread(first)))
            a.dul.socket.socket.sendall(whole[: len(whole) // 2])
        assert echo(peer) < 5 and send(peer, scans / 'Jane').failed == []
        assert node.store.totals()['instance'] == len(list((scans / 'Jane').iterdir()))
        a.dul.socket.socket.sendall(whole[len(whole) // 2 :])  # and it may go on


@pytest.mark.parametrize(
    'way', ['one PDU', 'a PDU each', 'a byte at a time', 'command in two', 'empty fragments', 'two objects in one PDU']
)
def test_an_object_may_come_in_any_pieces(node, scans, way):
    ds = pydicom.dcmread(sorted((scans / 'Jane').iterdir())[0])
    with open_association(
        'PIECES', Peer('CTLAB', '127.0.0.1', node.port), presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
    ) as a:
        (context,) = (c.context_id for c in a.accepted_contexts)
        command, *rest = in_fragments(ds)
        one = pdu_of(context, command, *rest)
        half = len(command[1]) // 2
        sent = {
            'one PDU': [one],
            'a PDU each': [pdu_of(context, f) for f in (command, *rest)],
            'a byte at a time': [one[k : k + 1] for k in range(300)] + [one[300:]],
            'command in two': [pdu_of(context, (1, command[1][:half]), (3, command[1][half:]), *rest)],
            'empty fragments': [pdu_of(context, command, (0, b''), *rest[:-1], (0, rest[-1][1]), (2, b''))],
            'two objects in one PDU': [pdu_of(context, command, *rest, command, *rest)],
        }[way]
        a._reactor_checkpoint.clear()  # or its own thread takes the answers
        while not a._is_paused:
            time.sleep(0.001)
        for part in sent:
            a.dul.socket.socket.sendall(part)
        answers = [a.dimse.get_msg(block=True)[1] for _ in range(1 + way.startswith('two'))]
        a._reactor_checkpoint.set()
        assert {(m.Status, m.AffectedSOPInstanceUID) for m in answers} == {(0, ds.SOPInstanceUID)}
    (kept,) = node.store.paths()
    assert pydicom.dcmread(kept).PixelData == ds.PixelData


@pytest.mark.parametrize('way', ['a command within', 'another context', 'a length that lies', 'no command set'])
def test_broken_messages_end_the_association_and_nothing_else(node, scans, way):
    ds = pydicom.dcmread(sorted((scans / 'Jane').iterdir())[0])
    peer = Peer('CTLAB', '127.0.0.1', node.port)
    with open_association('BROKEN', peer, presentation_contexts([(CT, '1.2.840.10008.1.2.1')])) as a:
        (context,) = (c.context_id for c in a.accepted_contexts)
        command, first, second, last = in_fragments(ds)
        sent = {
            'a command within': pdu_of(context, command, first, command, second, last),
            'another context': pdu_of(context, command, first) + pdu_of(context + 2, second) + pdu_of(context, last),
            'a length that lies': pdu_of(context, command, first)[:6]
            + b'\xff\xff'
            + pdu_of(context, command, first)[8:],
            'no command set': pdu_of(context, (3, command[1][:-3]), first, second, last),
        }[way]
        a.dul.socket.socket.sendall(sent)
        until = time.monotonic() + PATIENCE
        while a.is_established and time.monotonic() < until:
            time.sleep(0.02)
        assert a.is_aborted
    assert node.store.totals()['instance'] == 0 and node._waiting.total == 0
    assert echo(peer) < 5


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs /proc')
def test_an_association_leaves_no_open_file(node, scans):
    peer = Peer('CTLAB', '127.0.0.1', node.port)

    def still_open():
        return len(list(Path('/proc/self/fd').iterdir()))

    send(peer, scans / 'Jane')
    before = still_open()
    for _ in range(20):
        send(peer, scans / 'Jane')
        query(peer, 'STUDY', {})
    until = time.monotonic() + PATIENCE
    while still_open() > before + 4 and time.monotonic() < until:
        time.sleep(0.1)
    assert still_open() <= before + 4


def test_who_talks_waits_until_the_association_s_thread_does(monkeypatch):
    """The thread is let pass, and somebody begins to talk before it has said so: it must not take the answer away."""
    association, passed = SimpleNamespace(_is_paused=True), []
    checkpoint = _Checkpoint(association)

    def let_pass(event, timeout=None):
        passed.append(association._is_paused)
        checkpoint.clear() if len(passed) == 1 else checkpoint.set()
        return True

    monkeypatch.setattr(threading.Event, 'wait', let_pass)
    assert checkpoint.wait() and passed == [True, True] and not association._is_paused


@contextlib.contextmanager
def answered_by_a_helper(node):
    """Call a node until one of its helpers takes the call."""
    peer, kinds = Peer('CTLAB', '127.0.0.1', node.port), presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with open_association('WAITS', peer, kinds, timeout=PATIENCE) as a:
            if sum(node._load.associations[1:]):
                yield a
                return
    raise TimeoutError('no helper answered')


def wait_for_helpers(node):
    """Return when a helper answers, and nobody calls any more."""
    if node.processes > 1:
        with answered_by_a_helper(node):
            pass
        eventually(lambda: sum(node._load.associations), lambda n: n == 0)


@pytest.mark.parametrize('processes', [1, 3])
def test_sixteen_at_a_time_and_the_seventeenth_is_told(scans, tmp_path, processes):
    generous = NodeLimits(handshake=300.0, idle=300.0)  # what is asked is whether sixteen are served, not how soon
    with Node(Store(tmp_path / 'store', free=0), port=0, limits=generous, processes=processes) as node:
        wait_for_helpers(node)
        peer, files = Peer('CTLAB', '127.0.0.1', node.port), sorted(scans.rglob('*.dcm'))
        syntaxes = [pydicom.dcmread(f, stop_before_pixels=True).file_meta.TransferSyntaxUID for f in files]

        def work(k):
            """Answers to a patient's objects."""
            with open_association(
                f'P{k}', peer, presentation_contexts([(CT, s) for s in syntaxes]), timeout=300.0
            ) as a:
                return [a.send_c_store(renamed(f, k)).Status for f in files]

        def renamed(file, k):
            ds = pydicom.dcmread(file)
            ds.SeriesInstanceUID = f'1.5.{k}.{ds.StudyInstanceUID[-1]}'
            ds.PatientID, ds.StudyInstanceUID = f'{k}', f'1.5.{k}'
            ds.SOPInstanceUID = f'1.5.{k}.{ds.SOPInstanceUID}'
            return ds

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(work, range(16)))
        assert answers == [[0] * 18] * 16
        assert node.store.totals()['instance'] == 16 * 18 and node.store.totals()['patient'] == 16
    few = NodeLimits(associations=2)
    with Node(Store(tmp_path / 'small', free=0), port=0, limits=few, processes=processes) as node:
        wait_for_helpers(node)
        peer = Peer('CTLAB', '127.0.0.1', node.port)
        kinds = presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
        a, b, c = (open_association(title, peer, kinds) for title in 'ABC')
        with a, b, pytest.raises(OSError), c:
            pass


def send_until_killed(association, server, slices, numbers, acknowledged):
    """Send objects, each with a UID of its own, while the server lives; note which it acknowledged."""
    while association.is_established and server.is_alive():
        n = next(numbers)
        ds = slices[n % len(slices)].copy()
        ds.SOPInstanceUID = f'1.2.7.{n}'
        try:
            status = association.send_c_store(ds)
        except Exception:
            return
        if status.get('Status') == 0:
            acknowledged.add(ds.SOPInstanceUID)


@pytest.mark.parametrize('processes, lives, moments', [(1, 20, (0.02, 0.25)), (2, 8, (0.5, 2.0))])
def test_killed_at_many_moments_it_has_what_it_acknowledged(scans, tmp_path, processes, lives, moments):
    """The command is killed with -9 while objects come in; what it acknowledged is there, once and whole."""
    port, acknowledged, rng = free_port(), set(), random.Random(2)
    slices = [pydicom.dcmread(p) for p in sorted((scans / 'Jane').iterdir())]
    peer, kinds = Peer('CTLAB', '127.0.0.1', port), presentation_contexts([(CT, '1.2.840.10008.1.2.1')])
    code = f"""from ctlab.network.node import Node; from ctlab.network.store import Store
s = Store({str(tmp_path / 'store')!r}, free=0); s.rebuild_index()
Node(s, port={port}, processes={processes}).start()
import time
time.sleep(600)"""
    (tmp_path / 'node.py').write_text(code)
    numbers = itertools.count()

    def send(server):
        while server.is_alive():  # the first call may reach a helper of the life before
            with contextlib.suppress(OSError), open_association('SENDER', peer, kinds, timeout=5) as a:
                send_until_killed(a, server, slices, numbers, acknowledged)

    for life in range(1, lives + 1):
        server = start_script(tmp_path / 'node.py')
        wait_for(port)
        senders = [threading.Thread(target=send, args=(server,)) for _ in range(2 * processes - 1)]
        for sender in senders:
            sender.start()
        until = time.monotonic() + PATIENCE
        while len(acknowledged) < 2 * life and time.monotonic() < until:
            time.sleep(0.005)  # a busy machine begins late
        time.sleep(rng.uniform(*moments))
        server.kill()
        server.join()
        for sender in senders:
            sender.join()
    store = Store(tmp_path / 'store', free=0)
    store.rebuild_index()
    kept = [f['SOPInstanceUID'] for f in store.find('IMAGE')]
    assert len(acknowledged) >= 2 * lives and acknowledged <= set(kept) and len(kept) == len(set(kept))
    for path in store.paths():
        assert pydicom.dcmread(path).pixel_array.shape == (32, 40)
    assert not list(store.incoming.iterdir())


ADD = """import sys
from ctlab.network.store import ObjectRefusedError, Store
from test_store import item
store, uids = Store(sys.argv[1], free=0), [f'1.1.1.{n}' for n in range(*map(int, sys.argv[2:]))]
for uid in uids:
    for _ in range(100):  # again, where the half of one was cleared away
        try:
            store.add(item(uid=uid))
            break
        except ObjectRefusedError:
            continue
sys.exit(sum(store.add(item(uid=uid)).new for uid in uids))
"""


def test_processes_take_turns(tmp_path):
    """Two processes add objects of one series, half of them both, while this one sets the index right."""
    store, rebuilt = Store(tmp_path / 'store', free=0), []
    (tmp_path / 'add.py').write_text(ADD)
    adding = [start_script(tmp_path / 'add.py', store.folder, *part) for part in ((1, 101), (51, 151))]
    while any(process.is_alive() for process in adding):
        rebuilt.append(store.rebuild_index())
        time.sleep(0.05)  # it clears away what others have begun, and would do nothing else
    assert [process.exitcode for process in adding] == [0, 0], 'all of them were there'
    assert rebuilt and all(done == {'entered': 0, 'forgotten': 0, 'set aside': 0} for done in rebuilt)
    paths = {f['SOPInstanceUID']: f['path'] for f in store.find('IMAGE')}
    assert set(paths) == {f'1.1.1.{n}' for n in range(1, 151)} and len(set(paths.values())) == 150
    for uid, path in paths.items():
        assert pydicom.dcmread(path).SOPInstanceUID == uid


def test_a_helper_that_is_killed_takes_nothing_with_it(scans, tmp_path):
    """Its sender sees the connection end; what was acknowledged is there, and another takes its place."""
    (ds,), acknowledged = [pydicom.dcmread(p) for p in sorted((scans / 'Jane').iterdir())[:1]], []

    def send(a, n):
        ds.SOPInstanceUID = f'1.2.8.{n}'
        with contextlib.suppress(RuntimeError):  # the connection has ended
            if a.send_c_store(ds).get('Status') == 0:
                acknowledged.append(ds.SOPInstanceUID)

    with Node(Store(tmp_path / 'store', free=0), port=0, processes=2) as node:
        with answered_by_a_helper(node) as a:
            send(a, 1)
            (first,) = node._helpers.pids
            os.kill(first, signal.SIGKILL)
            eventually(lambda: node._helpers.pids != [first], bool)
            send(a, 2)
        with answered_by_a_helper(node) as a:
            send(a, 3)
        assert acknowledged == ['1.2.8.1', '1.2.8.3']
        (second,) = node._helpers.pids
    assert not Path(f'/proc/{second}').exists() and second != first
    store = Store(tmp_path / 'store', free=0)
    assert sorted(f['SOPInstanceUID'] for f in store.find('IMAGE')) == acknowledged
    assert not any(store.rebuild_index().values())


def test_a_reading_that_is_killed_is_done_once(tmp_path):
    """The node is killed with -9 while it reads; in the end one segmentation and one report are here and there."""
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body

    view = ScanProtocol(spacing=5.0, thickness=5.0, start=160, stop=340, matrix=64, field_of_view=400)
    hu, _, _ = acquire(draw_body(5, 4.0), view, 5)
    write_series(hu, tmp_path / 'in', 'phantom', '1.2.3.1', tags={'StudyInstanceUID': '1.2.3'})
    with Node(Store(tmp_path / 'archive', free=0), 'ARCHIVE', port=0) as archive:
        (tmp_path / 'rules.toml').write_text(
            f'quiet = 0\nsend_to = "ARCHIVE@127.0.0.1:{archive.port}"\n[[rule]]\nname = "organs"\n'
        )
        port, rng = free_port(), random.Random(3)
        ours, store = str(Path(sys.executable).with_name('ctlab')), str(tmp_path / 'store')
        command = [ours, 'node', store, '--port', str(port), '--rules', str(tmp_path / 'rules.toml')]

        def results():
            return [f['Modality'] for f in archive.store.find('IMAGE')]

        def one_life(life):
            wait_for(port)
            if life == 0:
                assert send(Peer('CTLAB', '127.0.0.1', port), tmp_path / 'in').moved == len(hu.array)
            until = time.monotonic() + (rng.uniform(3, 9) if life < 3 else 180)
            while time.monotonic() < until and (life < 3 or len(results()) < 2):
                time.sleep(0.1)
            time.sleep(1 if life == 3 else 0)

        for life in range(4):
            quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
            server = subprocess.Popen(command, **quiet, start_new_session=True)
            try:
                one_life(life)
            finally:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
        assert sorted(results()) == ['SEG', 'SR']
    store = Store(tmp_path / 'store', free=0)
    assert sorted(f['Modality'] for f in store.find('IMAGE') if f['Modality'] != 'CT') == ['SEG', 'SR']
    assert store.rebuild_index() == {'entered': 0, 'forgotten': 0, 'set aside': 0}


def test_the_commands(ctlab, scans, tmp_path):
    port, web = free_port(), free_port()
    ours, options = str(Path(sys.executable).with_name('ctlab')), f'--port {port} --web {web} --token open --anonymise'
    command = [ours, 'node', str(tmp_path / 'store'), *options.split(), '--key', str(tmp_path / 'key')]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(port)
        wait_for(web)
        here = f'CTLAB@127.0.0.1:{port}'
        assert 'answers in' in ctlab('echo', here).stdout
        sent = ctlab('send', scans, here, '--json', cwd=tmp_path)
        assert sent.returncode == 0 and json.loads(sent.stdout)['moved'] == 18, sent.stdout + sent.stderr
        listed = ctlab('fetch', here, tmp_path / 'new', '--patient', '*', '--list').stdout
        assert '3 studies' in listed and 'Jane' not in listed and 'P-' in listed
        got = ctlab('fetch', here, tmp_path / 'new', '--patient', 'P-*', '--json')
        assert json.loads(got.stdout) | {'seconds': 0} == {'moved': 18, 'there': 0, 'failed': 0, 'seconds': 0}
        assert not any(b'Jane' in p.read_bytes() for p in (tmp_path / 'new').rglob('*.dcm'))
        import requests

        url, bearer = f'http://127.0.0.1:{web}/studies', {'Authorization': 'Bearer open'}
        assert len(requests.get(url, headers=bearer, timeout=PATIENCE).json()) == 3
    finally:
        server.send_signal(signal.SIGTERM)
        out, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0 and 'stopped' in out and 'Traceback' not in out
    assert 'PatientName,emptied,18' in (tmp_path / 'store' / 'deidentified.csv').read_text()
    for arguments, word in (
        (('echo', 'PACS'), 'TITLE@host:port'),
        (('echo', f'CTLAB@127.0.0.1:{port}'), 'does not answer'),
        (('fetch', here, tmp_path / 'x'), '--patient'),
        (('node', tmp_path / 'y', '--host', '0.0.0.0'), 'says to whom'),
        (('send', tmp_path / 'nothing', here), 'no such file'),
        (('node', tmp_path / 'y', '--port', '0', '--rules', tmp_path / 'no.toml'), 'no.toml'),
    ):
        done = ctlab(*arguments)
        assert done.returncode and word in done.stderr and 'Traceback' not in done.stderr, (arguments, done.stderr)


def test_arrange_without_names(ctlab, scans, tmp_path):
    burned = pydicom.dcmread(sorted((scans / 'Jim').iterdir())[0])
    export = tmp_path / 'export'
    shutil.copytree(scans, export)
    for k in range(9):
        burned.SeriesInstanceUID, burned.SOPInstanceUID, burned.BurnedInAnnotation, burned.InstanceNumber = (
            '1.2.3.3.2',
            f'1.2.3.3.2.{k}',
            'YES',
            str(k),
        )
        burned.ImagePositionPatient = [0, 0, 3.0 * k]
        burned.save_as(export / f'Jim-burned-{k}.dcm')
    done = ctlab(
        'arrange', export, tmp_path / 'out', '--least', '5', '--anonymise', '--key', tmp_path / 'key', '--json'
    )
    facts = json.loads(done.stdout)
    assert (facts['patients'], facts['series'], facts['set_aside']) == (3, 3, 1), done.stdout + done.stderr
    everything = b''.join(p.read_bytes() for p in (tmp_path / 'out').rglob('*') if p.is_file())
    assert not any(w in everything for w in (b'Jane', b'Joan', b'Jim', b'19700101', b'20261126', b'1.2.3.1.1')), (
        'no name, date or UID anywhere'
    )
    assert (
        'burned' in (tmp_path / 'out' / 'set_aside.csv').read_text()
        and 'PatientName,emptied' in (tmp_path / 'out' / 'deidentified.csv').read_text()
    )
    from ctlab.scans.dicom import read_series

    a, b = (
        read_series(scans / 'Jane'),
        [read_series(p) for p in sorted((tmp_path / 'out' / 'train_images').glob('*/*'))],
    )
    assert any(np.array_equal(a.array, s.array) for s in b)
