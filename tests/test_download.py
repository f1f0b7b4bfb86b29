"""Send files in the form of the RSNA 2023 download through every command: no Modality, SOPClassUID in the meta only."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.uid import CTImageStorage, RLELossless
from test_network import needs_dcmtk, run

from ctlab.cohort.layout import list_series
from ctlab.network.client import fetch, query, send
from ctlab.network.dicomweb import DicomWebServer
from ctlab.network.node import Node, Peer
from ctlab.network.store import Store
from ctlab.scans.dicom import read_series

ELEMENTS = {
    'BitsAllocated',
    'BitsStored',
    'Columns',
    'ContentDate',
    'ContentTime',
    'FrameOfReferenceUID',
    'HighBit',
    'ImageOrientationPatient',
    'ImagePositionPatient',
    'InstanceNumber',
    'KVP',
    'PatientID',
    'PatientPosition',
    'PhotometricInterpretation',
    'PixelData',
    'PixelRepresentation',
    'PixelSpacing',
    'RescaleIntercept',
    'RescaleSlope',
    'RescaleType',
    'Rows',
    'SOPInstanceUID',
    'SamplesPerPixel',
    'SeriesInstanceUID',
    'SeriesNumber',
    'SliceThickness',
    'StudyInstanceUID',
    'WindowCenter',
    'WindowWidth',
}


def elements(path):
    return {e.keyword for e in pydicom.dcmread(path)}


@pytest.fixture(scope='module')
def series(tiny):
    """Find a faultless series of the tiny cohort."""
    faults = pd.read_csv(tiny / 'truth' / 'faults.csv', keep_default_na=False).set_index('series_id')['fault']
    return next(Path(r.folder) for r in list_series(tiny).itertuples() if not faults[r.series_id])


def test_every_file_of_a_cohort_has_these_elements_and_no_others(tiny):
    for folder in list_series(tiny)['folder']:
        dataset = pydicom.dcmread(sorted(Path(folder).iterdir())[0])
        assert elements(dataset.filename) == ELEMENTS, folder
        meta = dataset.file_meta
        assert meta.MediaStorageSOPClassUID == CTImageStorage and meta.TransferSyntaxUID == RLELossless
        assert (dataset.BitsAllocated, dataset.BitsStored) == (16, 12) and dataset.Rows == dataset.Columns


def test_the_fuller_form_is_an_option(ctlab, tmp_path):
    from dataclasses import replace

    from ctlab.phantoms.cohorts import PRESETS, make_cohort

    small = replace(PRESETS['tiny'], patients=1, grid=9.0, matrix=32, every_fault=False, full_headers=True)
    root = make_cohort(tmp_path / 'full', small, 1, {}, 1, progress=False)
    assert elements(next(root.rglob('1.dcm'))) == ELEMENTS | {'SOPClassUID', 'Modality'}
    assert '--full-headers' in ctlab('phantom', '--help').stdout


def test_arrange_takes_it_for_ct_and_without_names_it_still_has_its_class(ctlab, series, tmp_path):
    shutil.copytree(series, tmp_path / 'export' / 'disc')
    for options, name in (((), 'plain'), (('--anonymise', '--key', tmp_path / 'key'), 'clean')):
        ended = ctlab('arrange', tmp_path / 'export', tmp_path / name, '--json', *options)
        facts = json.loads(ended.stdout)
        assert (facts['series'], facts['set_aside']) == (1, 0), ended.stdout + ended.stderr
        made = next((tmp_path / name / 'train_images').glob('*/*'))
        assert np.array_equal(read_series(made).array, read_series(series).array)
    made = pydicom.dcmread(next(made.iterdir()))
    assert made.SOPClassUID == made.file_meta.MediaStorageSOPClassUID == CTImageStorage and made.Modality == 'CT'
    assert made.PatientID.startswith('P-')


def test_the_node_knows_its_class_keeps_it_and_gives_it(ctlab, series, tmp_path):
    files = sorted(series.iterdir())
    with Node(Store(tmp_path / 'store', free=0), port=0) as node:
        peer = Peer('CTLAB', '127.0.0.1', node.port)
        ended = ctlab('send', series, f'CTLAB@127.0.0.1:{node.port}', '--json', cwd=tmp_path)
        assert json.loads(ended.stdout)['moved'] == len(files), ended.stdout + ended.stderr
        rows = query(peer, 'SERIES', {'PatientID': '*', 'Modality': 'CT', 'SeriesInstanceUID': ''})
        assert len(rows) == 1 and rows[0]['Modality'] == 'CT'
        back = Store(tmp_path / 'back', free=0)
        assert fetch(peer, back, {'PatientID': '*'}).moved == len(files)
    kept = {p.read_bytes() for p in node.store.paths()}

    def values(paths):
        return {pydicom.dcmread(p).SOPInstanceUID: pydicom.dcmread(p).pixel_array.tobytes() for p in paths}

    assert values(node.store.paths()) == values(files) == values(back.paths()) and len(kept) == len(files)
    assert all(f['SOPClassUID'] == CTImageStorage for f in back.find('IMAGE'))


def test_dicomweb_says_what_an_object_is(series, tmp_path):
    import requests
    from dicomweb_client import DICOMwebClient

    store = Store(tmp_path / 'store', free=0)
    for f in sorted(series.iterdir())[:5]:
        store.add(f.read_bytes())
    with DicomWebServer(store, port=0) as web:
        session = requests.Session()
        session.headers['Authorization'] = f'Bearer {web.token}'
        client = DICOMwebClient(web.url, session=session)
        study = client.search_for_studies()[0]
        assert study['00080061']['Value'] == ['CT']
        uid = study['0020000D']['Value'][0]
        one = client.search_for_series(uid)[0]
        assert one['00080060']['Value'] == ['CT'] and one['00200011']['Value'] == [1]
        for item in client.retrieve_series_metadata(uid, one['0020000E']['Value'][0]):
            assert item['00080016']['Value'] == [CTImageStorage] and item['00080060']['Value'] == ['CT']
        objects = client.retrieve_study(uid, media_types=(('application/dicom', '*'),))
        assert len(objects) == 5 and {o.file_meta.MediaStorageSOPClassUID for o in objects} == {CTImageStorage}
        stored = client.store_instances([pydicom.dcmread(sorted(series.iterdir())[7])])
        assert stored.ReferencedSOPSequence[0].ReferencedSOPClassUID == CTImageStorage


@needs_dcmtk
def test_dcmtk_takes_it_from_our_node(series, tmp_path):
    """What C-GET hands on has its class, as the standard demands."""
    with Node(Store(tmp_path / 'store', free=0), port=0) as node:
        assert send(Peer('CTLAB', '127.0.0.1', node.port), series).failed == []
        (tmp_path / 'got').mkdir()
        study = pydicom.dcmread(next(series.iterdir())).StudyInstanceUID
        query = ('-k', 'QueryRetrieveLevel=STUDY', '-k', f'StudyInstanceUID={study}')
        run('getscu', '-S', '+B', '-aec', 'CTLAB', '127.0.0.1', node.port, '-od', tmp_path / 'got', *query)
    got = [pydicom.dcmread(p) for p in (tmp_path / 'got').iterdir()]
    assert len(got) == len(list(series.iterdir())) and {d.SOPClassUID for d in got} == {CTImageStorage}


def test_the_segmentation_refers_to_the_slices_by_their_class(ctlab, series, tmp_path):
    from highdicom.seg import segread

    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.core.anatomy import STRUCTURE_CODES
    from ctlab.scans.volume import Volume

    scan = read_series(series)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:6, 5:20, 5:20] = STRUCTURE_CODES['liver']
    write_dicom_seg(Volume(mask, scan.affine), series, tmp_path / 'seg.dcm')
    made = segread(tmp_path / 'seg.dcm')
    refers = {
        s.ReferencedSOPInstanceUID: s.ReferencedSOPClassUID
        for f in made.PerFrameFunctionalGroupsSequence
        for d in f.DerivationImageSequence
        for s in d.SourceImageSequence
    }
    there = {pydicom.dcmread(p, stop_before_pixels=True).SOPInstanceUID for p in series.iterdir()}
    assert set(refers) <= there and len(refers) == 4 and set(refers.values()) == {CTImageStorage}
    assert ctlab('view', series, tmp_path / 'scan.html', '--limit', 32).returncode == 0


def test_the_workbench_takes_it(series, tmp_path):
    from ctlab.interfaces.workbench import Workspace, add_missing_uids

    work = Workspace(tmp_path / 'work')
    found = work.import_files(series)
    assert not found.faults and found.named == 0 and ' · CT · ' in work.scans()[0].label
    store = Store(tmp_path / 'clean', names=None, free=0)
    raw = io.BytesIO()
    dataset = pydicom.dcmread(next(series.iterdir()))
    del dataset.StudyInstanceUID
    dataset.save_as(raw)
    store.add(add_missing_uids(raw.getvalue(), 'here'))
    assert next(store.find('IMAGE'))['SOPClassUID'] == CTImageStorage
