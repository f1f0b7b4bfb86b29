"""Phantom series against independent readers."""

import numpy as np
import pandas as pd
import pydicom
import pytest

from ctlab.phantoms.cohorts import FAULT_RATES
from ctlab.scans import dicom, nifti

#: faults that other readers handle by other rules than ours; each has its own test in the chapters
OTHERS = ('missing', 'duplicate', 'foreign', 'truncated', 'tilt', 'sign', 'units')


def sitk_read(folder):
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_like_itk(folder):
    ours, theirs = dicom.read_series(folder), sitk_read(folder)
    import SimpleITK as sitk

    assert np.array_equal(ours.array, np.round(sitk.GetArrayFromImage(theirs)))
    assert np.allclose(ours.spacing[::-1], theirs.GetSpacing(), atol=1e-4)
    assert np.allclose(ours.affine[:3, 3], theirs.GetOrigin(), atol=1e-4)
    assert np.allclose(ours.direction, np.reshape(theirs.GetDirection(), (3, 3)), atol=1e-5)


def test_every_regular_series_reads_as_in_simpleitk(tiny):
    truth = pd.read_csv(tiny / 'truth' / 'faults.csv', keep_default_na=False)
    regular = truth[~truth['fault'].isin(OTHERS)]
    assert len(regular) >= 12
    for row in regular.itertuples():
        assert_like_itk(tiny / 'train_images' / str(row.patient_id) / str(row.series_id))


def test_the_real_series_reads_as_in_simpleitk(real):
    assert_like_itk(real / 'example_ct_dicom')


def test_masks_lie_on_their_series_as_nibabel_and_simpleitk_see_them(tiny):
    import nibabel

    scans = pd.read_csv(tiny / 'truth' / 'scans.csv', keep_default_na=False)
    plain = scans[scans['fault'] == '']
    assert len(plain) >= 5
    for row in plain.itertuples():
        volume = dicom.read_series(tiny / 'train_images' / str(row.patient_id) / str(row.series_id))
        mask = nibabel.load(tiny / 'segmentations' / f'{row.series_id}.nii')
        lps = np.diag([-1, -1, 1, 1]) @ mask.affine
        corners = np.array([[0, 0, 0, 1], [*(np.array(mask.shape) - 1), 1]]).T
        ours = np.array([[0, 0, 0, 1], [*(np.array(volume.shape[::-1]) - 1), 1]]).T

        def inside(p):
            return np.sort(p[:3], axis=1)

        assert np.allclose(inside(lps @ corners), inside(volume.affine @ ours), atol=0.02)
        values = (
            volume.array[nifti.read(tiny / 'segmentations' / f'{row.series_id}.nii').array == 1]
            if not row.mirrored
            else None
        )
        if values is not None and len(values) > 500:
            assert 40 < np.median(values) < 160  # the liver is liver


def test_every_fault_occurs_and_none_is_written_into_the_files(tiny):
    truth = pd.read_csv(tiny / 'truth' / 'faults.csv', keep_default_na=False)
    assert set(FAULT_RATES) <= set(truth['fault'])
    head = pydicom.dcmread(next((tiny / 'train_images').rglob('*.dcm')))
    assert not any(fault in str(head).lower() for fault in ('fault', 'phantom', 'monochrome1 '))


def test_files_are_valid_dicom_with_the_real_cohorts_form(tiny):
    syntaxes = set()
    for series in sorted((tiny / 'train_images').glob('*/*')):
        ds = pydicom.dcmread(next(iter(sorted(series.glob('*.dcm')))), stop_before_pixels=True)
        syntaxes.add(ds.file_meta.TransferSyntaxUID.name)
        assert (ds.BitsAllocated, ds.BitsStored) == (16, 12) and ds.PatientID == series.parent.name
        assert 'Modality' not in ds and 'SOPClassUID' not in ds
        assert pydicom.uid.UID(ds.SeriesInstanceUID).is_valid and len(ds.SOPInstanceUID) <= 64
        assert 'PatientName' not in ds and 'PatientBirthDate' not in ds
    assert syntaxes == {'RLE Lossless'}


def test_pydicom_finds_no_invalid_value(tiny):
    from pydicom import config
    from pydicom.valuerep import validate_value

    seen, before = set(), config.settings.reading_validation_mode
    config.settings.reading_validation_mode = config.RAISE
    try:
        for path in sorted((tiny / 'train_images').glob('*/*/*.dcm'))[::7]:
            try:
                ds = pydicom.dcmread(path, stop_before_pixels=True)
            except Exception:
                assert path.parent.name in truncated(tiny)
                continue
            elements = [*ds.file_meta, *ds.iterall()]
            values = ((e.VR, v) for e in elements for v in (e.value if e.VM > 1 else [e.value]))
            for vr, value in values:
                validate_value(vr, str(value) if vr in ('DS', 'IS') else value, config.RAISE)
            seen |= {e.keyword for e in elements}
    finally:
        config.settings.reading_validation_mode = before
    assert {'ImagePositionPatient', 'RescaleSlope', 'SOPInstanceUID', 'WindowCenter'} <= seen


def truncated(tiny):
    truth = pd.read_csv(tiny / 'truth' / 'faults.csv', keep_default_na=False)
    return set(truth.loc[truth['fault'] == 'truncated', 'series_id'].astype(str))


def test_same_seed_same_bytes(tmp_path):
    import hashlib

    from ctlab.phantoms.cohorts import Preset, make_cohort

    sizes = Preset(2, 48, 9.0, (20.0,), True, False)

    def digest(r):
        return {
            p.relative_to(r).as_posix(): hashlib.sha1(p.read_bytes()).hexdigest()
            for p in sorted(r.rglob('*'))
            if p.is_file()
        }

    one = digest(make_cohort(tmp_path / 'a', sizes, 3, workers=1, progress=False))
    two = digest(make_cohort(tmp_path / 'b', sizes, 3, workers=2, progress=False))
    assert one == two and len(one) > 20
    other = digest(make_cohort(tmp_path / 'c', sizes, 4, workers=1, progress=False))
    assert other != one


def test_a_killed_cohort_is_finished_by_the_next_call(tmp_path):
    """Killed in the middle, then made again: equal to one that was never disturbed."""
    import hashlib
    import os
    import signal
    import subprocess
    import sys
    import time

    code = (
        'from ctlab.phantoms.cohorts import Preset, make_cohort\n'
        'make_cohort({0!r}, Preset(6, 48, 8., (20.,), True, False), 1, workers=1, progress=False)'
    )
    target = tmp_path / 'killed'
    process = subprocess.Popen([sys.executable, '-c', code.format(str(target))], start_new_session=True)
    while process.poll() is None and len(list((target / 'truth' / 'patients').glob('[0-9]*.json'))) < 2:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (target / 'train_2024.csv').exists()
    for place in (target, tmp_path / 'whole'):
        subprocess.run([sys.executable, '-c', code.format(str(place))], check=True)

    def digest(r):
        return {
            p.relative_to(r).as_posix(): hashlib.sha1(p.read_bytes()).hexdigest()
            for p in sorted(r.rglob('*'))
            if p.is_file()
        }

    assert digest(target) == digest(tmp_path / 'whole')


def test_shapes_of_a_labelled_scan(tmp_path, caplog):
    """A case with masks becomes a body with the same organs; what cannot be read is named, an empty folder refused."""
    from ctlab.core.anatomy import STRUCTURE_CODES
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import DETAILS, draw_body
    from ctlab.phantoms.synthesis import ORGANS, Synthesis, body_pool_from_masks
    from ctlab.scans.volume import Volume

    with pytest.raises(FileNotFoundError, match='no case'):
        body_pool_from_masks(tmp_path, tmp_path)
    hu, structures, _ = acquire(
        draw_body(5, 4.0),
        ScanProtocol(spacing=4.0, thickness=4.0, start=150, stop=385, matrix=110, field_of_view=440),
        5,
    )
    case = tmp_path / 'cases' / 's0001'
    (case / 'segmentations').mkdir(parents=True)
    nifti.write(hu, case / 'ct.nii.gz')
    for name in ('liver', 'colon', 'kidney_left'):
        mask = (structures.array == STRUCTURE_CODES[name]).astype(np.uint8)
        nifti.write(Volume(mask, hu.affine), case / 'segmentations' / f'{name}.nii.gz')
    bone = (structures.array == STRUCTURE_CODES['bone_cortex']).astype(np.uint8)
    nifti.write(Volume(bone, hu.affine), case / 'segmentations' / 'vertebrae_L1.nii.gz')
    (bad := tmp_path / 'cases' / 's0002' / 'segmentations').mkdir(parents=True)
    (bad.parent / 'ct.nii.gz').write_bytes(b'nothing')
    pool = body_pool_from_masks(tmp_path / 'cases', tmp_path / 'work', 4.0, workers=1)
    assert list(pool) == ['s0001'] and 's0002' in caplog.text
    body = pool['s0001']
    of, filled = body // len(DETAILS), body % len(DETAILS)
    for name in ('liver', 'colon', 'kidney_left'):
        assert np.array_equal(of == STRUCTURE_CODES[name], structures.array == STRUCTURE_CODES[name])
    assert set(np.unique(filled[of == STRUCTURE_CODES['colon']])) >= {DETAILS['wall'], DETAILS['stool']}
    unnamed = {STRUCTURE_CODES[n] for n in ('fat', 'muscle', 'bone_cortex')}
    assert unnamed <= set(np.unique(of)), 'what no mask names is something'
    assert not (of == STRUCTURE_CODES['spleen']).any()
    image, classes = Synthesis([body], (32, 40, 48), 4.0).sample(np.random.default_rng(0))
    assert image.shape == (1, 32, 40, 48) and set(classes.unique().tolist()) <= set(range(16)) and len(ORGANS) == 6
    kept = sorted((tmp_path / 'work').rglob('*.npz'))
    before = kept[0].stat().st_mtime_ns
    body_pool_from_masks(tmp_path / 'cases', tmp_path / 'work', 4.0, workers=1)
    assert sorted((tmp_path / 'work').rglob('*.npz')) == kept and kept[0].stat().st_mtime_ns == before
