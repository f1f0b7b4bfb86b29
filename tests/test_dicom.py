"""Read every single-slice file of pydicom's own tests as pydicom reads it, or refuse it by name."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from ctlab.scans.dicom import DicomError, read_header, read_pixels, silence_decoders

FILES = [
    p
    for p in sorted((Path(pydicom.data.__file__).parent / 'test_files').rglob('*'))
    if p.is_file() and p.stat().st_size < 1 << 20
]


@pytest.mark.filterwarnings('ignore')
def test_as_pydicom_reads_it():
    read, refused = set(), 0
    for path in FILES:
        try:
            with silence_decoders():
                values = read_pixels(header := read_header(path))
        except DicomError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        if header.photometric == 'MONOCHROME1':
            continue  # turned around here, as the chapter on DICOM says
        if header.syntax == '1.2.840.10008.1.2.4.51' and header.stored > 8:
            continue  # pydicom has no decoder under free terms; DCMTK is the referee below
        try:
            wanted = apply_modality_lut((dataset := pydicom.dcmread(path, force=True)).pixel_array, dataset)
        except (ValueError, AttributeError):
            continue  # pydicom itself stumbles over a damaged header
        assert values.shape == wanted.shape and np.allclose(values, wanted.astype(float)), path
        read.add(header.syntax)
    assert len(read) >= 8 and '1.2.840.10008.1.2.2' in read, 'big-endian files among them'
    assert refused


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('order, syntax', [('<', ExplicitVRLittleEndian), ('>', ExplicitVRBigEndian)])
def test_a_modality_table_in_either_order_of_bytes(tmp_path, order, syntax):
    from ctlab.scans.dicom import SliceWriter

    path, stored = tmp_path / 'slice.dcm', np.arange(64, dtype=np.uint16).reshape(8, 8)
    SliceWriter('plain').write(path, stored, {'SOPInstanceUID': '1.2.3'})
    dataset = pydicom.dcmread(path)
    for name in ('RescaleSlope', 'RescaleIntercept'):
        if name in dataset:
            delattr(dataset, name)
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'US', [64, 0, 16])
    item.add_new('LUTData', 'OW', (np.arange(64) ** 2).astype(f'{order}u2').tobytes())
    item.ModalityLUTType = 'HU'
    dataset.ModalityLUTSequence, dataset.PixelData, dataset.file_meta.TransferSyntaxUID = (
        [item],
        stored.astype(f'{order}u2').tobytes(),
        syntax,
    )
    pydicom.dcmwrite(path, dataset, little_endian=order == '<', implicit_vr=False)
    read = read_pixels(read_header(path))
    assert np.array_equal(read, stored.astype(int) ** 2)
    dataset = pydicom.dcmread(path)
    assert np.array_equal(read, apply_modality_lut(dataset.pixel_array, dataset))


def test_a_series_of_two_spacings_as_dcm2niix_reads_it(tmp_path):
    """Its equalised file is ours; the one beside it gives every slice the spacing of the first."""
    import ctlab
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import reorient, resample

    if not shutil.which('dcm2niix'):
        pytest.skip('dcm2niix is absent (Debian: apt-get install dcm2niix)')
    hu, *_ = acquire(
        draw_body(3, 5.0), ScanProtocol(spacing=2.0, thickness=2.0, start=60, stop=400, matrix=48, field_of_view=400), 3
    )
    files = write_series(hu, tmp_path / 'fine')
    (tmp_path / 'series').mkdir()
    for k in (*range(0, 60, 2), *range(63, len(files), 5)):
        shutil.copy(files[k], tmp_path / 'series')
    ours = ctlab.read(tmp_path / 'series')
    (tmp_path / 'out').mkdir()
    subprocess.run(
        ['dcm2niix', '-o', tmp_path / 'out', '-f', 'x', '-z', 'n', tmp_path / 'series'], check=True, capture_output=True
    )
    theirs, plain = (reorient(ctlab.read(tmp_path / 'out' / name)) for name in ('x_Eq_1.nii', 'x.nii'))
    there = resample(theirs, like=ours, antialias=False, outside=-5000).array
    both = there > -4000
    assert both.mean() > 0.95 and np.abs(there - ours.array)[both].max() < 1, 'the same values in the same places'
    wrong = resample(plain, like=ours, antialias=False, outside=-5000).array
    assert np.abs(wrong - ours.array)[wrong > -4000].max() > 200, (
        'the file that keeps its slices puts them where they are not'
    )


def head_hu(x, y, z):
    """Compute the value of a drawn head at any place in the patient."""
    r = np.sqrt((x / 75) ** 2 + (y / 95) ** 2 + ((z - 45) / 80) ** 2)

    def soft(edge, wide):
        return 1 / (1 + np.exp((r - edge) / wide))

    return (
        -1000
        + 1040 * soft(1.06, 0.06)
        + 500 * (soft(1.0, 0.06) - soft(0.9, 0.06))
        + 4 * np.sin(x / 9) * soft(0.9, 0.06)
    )


def head(folder, degrees=-18.0, steps=(2.5,) * 13 + (5.0,) * 14, matrix=96):
    """Make a tilted head of 28 slices, thin through the skull base and thick above it.

    Its values are known everywhere in the patient: returns the function of (x, y, z) that they are of.
    """
    from ctlab.scans.dicom import SliceWriter

    lean, spacing = np.radians(degrees), 240 / matrix
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(lean), np.sin(lean)])
    folder.mkdir(parents=True)
    writer, at = SliceWriter('rle'), 0.0
    y, x = np.mgrid[:matrix, :matrix] * spacing - 120
    for k, step in enumerate((0.0, *steps), 1):
        at += step
        start = np.array([0, 0, at])  # the table moves straight on, the gantry leans
        points = start + x[..., None] * row + y[..., None] * column
        writer.write(
            folder / f'{k}.dcm',
            np.round(head_hu(*np.moveaxis(points, -1, 0)) + 1024).astype(np.uint16),
            {
                'SOPInstanceUID': f'1.2.77.{k}',
                'SeriesInstanceUID': '1.2.77',
                'StudyInstanceUID': '1.2',
                'FrameOfReferenceUID': '1.2.7',
                'InstanceNumber': k,
                'PatientID': 'head',
                'PatientPosition': 'HFS',
                'ImagePositionPatient': [f'{v:.6f}' for v in start - 120 * row - 120 * column],
                'ImageOrientationPatient': [f'{v:.9f}' for v in (*row, *column)],
                'PixelSpacing': [spacing] * 2,
                'SliceThickness': step or steps[0],
                'RescaleSlope': 1,
                'RescaleIntercept': -1024,
                'RescaleType': 'HU',
                'KVP': 120,
                'WindowCenter': 40,
                'WindowWidth': 80,
                'Manufacturer': 'GE MEDICAL SYSTEMS',
                'GantryDetectorTilt': f'{degrees:g}',
                'Modality': 'CT',
            },
        )
    return head_hu


def off_by(volume, hu, slices=slice(None), edge=4):
    """How far a volume is from the function that it is of, at most places."""
    from ctlab.scans.volume import to_patient

    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing='ij'), -1)
    difference = np.abs(volume.array - hu(*np.moveaxis(to_patient(volume, index), -1, 0)))
    inside = np.ones(volume.shape, bool)
    inside[:, :edge] = inside[:, -edge:] = False  # where a leaning slice ends, air moves in
    return difference[slices][inside[slices]]


@pytest.mark.parametrize(
    'steps', [(2.5,) * 13 + (5.0,) * 14, (2.5,) * 9 + (5.0,) * 9 + (7.5,) * 9, (5.0,) * 9 + (3.75,) + (2.5,) * 17]
)
def test_a_tilted_head_whose_spacing_changes_stands_where_it_is(tmp_path, steps):
    import ctlab

    hu = head(tmp_path / 'head', steps=steps)
    volume = ctlab.read(tmp_path / 'head')
    assert min(volume.spacing[0], 2.6) == pytest.approx(2.5 * np.cos(np.radians(18)), abs=1e-3)
    words = ' '.join(volume.meta['warnings'])
    assert 'the spacing changes on the way' in words and 'gantry tilt of 18.0' in words
    own = [k for k in range(len(volume.array)) if k not in volume.meta['interpolated']]
    assert [len(s) for s in volume.meta['sources']].count(1) == len(own) and volume.meta['interpolated']
    assert off_by(volume, hu, own).mean() < 3, 'slices of its own, moved back by their lean'
    assert np.quantile(off_by(volume, hu), 0.98) < 60 and off_by(volume, hu).mean() < 12
    parts = ctlab.read(tmp_path / 'head', spacing='as stored')
    assert sum(len(p.array) for p in parts) == 28 and all(off_by(p, hu).mean() < 3 for p in parts)
    files = sorted((tmp_path / 'head').iterdir(), key=lambda p: int(p.stem))
    assert all(np.array_equal(a.array, b.array) for a, b in zip(parts, ctlab.read(files, spacing='as stored')))


def test_a_tilted_head_part_by_part_beside_simpleitk_and_dcm2niix(tmp_path):

    import SimpleITK as sitk

    import ctlab
    from ctlab.scans.volume import resample, to_sitk

    head(tmp_path / 'head')
    parts, first = ctlab.read(tmp_path / 'head', spacing='as stored'), 1
    for k, part in enumerate(parts):
        folder = tmp_path / f'part{k}'
        folder.mkdir()
        files = [tmp_path / 'head' / f'{n}.dcm' for n in range(first, first + len(part.array))]
        first += len(part.array)
        for f in files:
            shutil.copy(f, folder)
        leaning = sitk.ReadImage([str(f) for f in files])  # stacks slices along their normal, and forgets the lean
        steps = [np.array(pydicom.dcmread(f).ImagePositionPatient, float) for f in (files[0], files[-1])]
        normal = np.array(leaning.GetDirection()).reshape(3, 3)[:, 2]
        run = steps[1] - steps[0]
        leaning.SetSpacing((*leaning.GetSpacing()[:2], run @ normal / (len(files) - 1)))  # it took the way of the table
        slide = run / (run @ normal) - normal  # in-plane, for a millimetre along the normal
        lean = sitk.AffineTransform(3)
        lean.SetMatrix((np.eye(3) - np.outer(slide, normal)).ravel().tolist())
        lean.SetCenter(steps[0].tolist())
        theirs = sitk.GetArrayFromImage(
            sitk.Resample(leaning, to_sitk(part), lean, sitk.sitkLinear, -5000.0, sitk.sitkFloat32)
        )
        both = theirs > -4000
        both[:, :12] = both[:, -12:] = False  # where air moves in
        assert both.mean() > 0.7 and np.abs(theirs - part.array)[both].max() <= 1, 'rounded, else the same'
        if not shutil.which('dcm2niix'):
            continue
        command = ['dcm2niix', '-o', tmp_path, '-f', f'out{k}', '-z', 'n', folder]
        subprocess.run(command, check=True, capture_output=True)
        upright = ctlab.read(tmp_path / f'out{k}_Tilt_1.nii')
        there = resample(upright, like=part, antialias=False, outside=-5000).array
        both = there > -4000
        assert both.mean() > 0.8 and np.median(np.abs(there - part.array)[both]) < 3, 'in the same place'


@pytest.mark.parametrize('change', ['nothing', 'a slice is missing'])
def test_a_segmentation_of_a_tilted_head_lies_on_its_slices_as_they_were_stored(tmp_path, change):
    """Each frame against the shape itself, at the places that the stored slice says its pixels have."""
    import highdicom as hd

    import ctlab
    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.core.anatomy import STRUCTURE_CODES
    from ctlab.scans.volume import Volume, to_patient

    head(tmp_path / 'head', **({} if change == 'nothing' else {'steps': (4.0,) * 27}))
    if change == 'a slice is missing':
        (tmp_path / 'head' / '12.dcm').unlink()

    def ball(p):
        return (p[..., 0] / 50) ** 2 + ((p[..., 1] - 5) / 60) ** 2 + ((p[..., 2] - 45) / 35) ** 2 < 1

    volume = ctlab.read(tmp_path / 'head')
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing='ij'), -1)
    mask = Volume((ball(to_patient(volume, index)) * STRUCTURE_CODES['liver']).astype(np.uint8), volume.affine)
    write_dicom_seg(mask, tmp_path / 'head', tmp_path / 'seg.dcm')
    made = hd.seg.segread(tmp_path / 'seg.dcm')
    stored = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, (tmp_path / 'head').iterdir())}
    agree, there = [], 0
    for frame, pixels in zip(made.PerFrameFunctionalGroupsSequence, made.pixel_array):
        source = stored[frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        row, column = np.reshape(source.ImageOrientationPatient, (2, 3)).astype(float)
        r, c = np.mgrid[: source.Rows, : source.Columns]
        dy, dx = source.PixelSpacing
        wanted = ball(
            np.array(source.ImagePositionPatient, float) + r[..., None] * dy * column + c[..., None] * dx * row
        )
        there += int(wanted.sum())
        agree.append(2 * (wanted & (pixels > 0)).sum() / max(1, wanted.sum() + (pixels > 0).sum()))
    assert len(agree) >= 12 and there > 10_000 and np.median(agree) > 0.96 and np.mean(agree) > 0.93, agree


def test_lossy_jpeg_of_twelve_bits_beside_dcmtk(tmp_path):
    """No decoder that pydicom knows reads it under free terms; two decoders of lossy JPEG may differ by one."""
    if not shutil.which('dcmdjpeg'):
        pytest.skip('dcmdjpeg is not installed')
    path = pydicom.data.get_testdata_file('JPGExtended.dcm')
    subprocess.run(['dcmdjpeg', path, tmp_path / 'plain.dcm'], check=True, capture_output=True)
    ours, theirs = read_stored(path), pydicom.dcmread(tmp_path / 'plain.dcm').pixel_array
    assert ours.shape == theirs.shape and np.ptp(theirs) > 200
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


def read_stored(path):
    """Decode any syntax as `read_pixels` does, without asking whether it is CT."""
    from ctlab.scans.dicom_pixels import _decode

    return _decode(str(path))
