"Every single-slice file that pydicom brings along for its own tests is read as pydicom reads it, or refused by name."
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.pixels import apply_modality_lut
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from ctlab.scans.dicom import DicomError, quiet_decoders, read_header, read_pixels

FILES = [
    p
    for p in sorted((Path(pydicom.data.__file__).parent/'test_files').rglob('*'))
    if p.is_file() and p.stat().st_size < 1 << 20
]


@pytest.mark.filterwarnings('ignore')
def test_as_pydicom_reads_it():
    read, refused = set(), 0
    for path in FILES:
        try:
            with quiet_decoders(): values = read_pixels(header := read_header(path))
        except DicomError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        if header.photometric == 'MONOCHROME1': continue  # turned around here, as the chapter on DICOM says
        try: wanted = apply_modality_lut((dataset := pydicom.dcmread(path, force=True)).pixel_array, dataset)
        except (ValueError, AttributeError): continue  # pydicom itself stumbles over a damaged header
        assert values.shape == wanted.shape and np.allclose(values, wanted.astype(float)), path
        read.add(header.syntax)
    assert len(read) >= 8 and '1.2.840.10008.1.2.2' in read, 'big-endian files among them'
    assert refused


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('order, syntax', [('<', ExplicitVRLittleEndian), ('>', ExplicitVRBigEndian)])
def test_a_modality_table_in_either_order_of_bytes(tmp_path, order, syntax):
    from ctlab.scans.dicom import SliceWriter
    path, stored = tmp_path/'slice.dcm', np.arange(64, dtype=np.uint16).reshape(8, 8)
    SliceWriter('plain').write(path, stored, {'SOPInstanceUID': '1.2.3'})
    dataset = pydicom.dcmread(path)
    for name in ('RescaleSlope', 'RescaleIntercept'):
        if name in dataset: delattr(dataset, name)
    item = pydicom.Dataset()
    item.add_new('LUTDescriptor', 'US', [64, 0, 16])
    item.add_new('LUTData', 'OW', (np.arange(64)**2).astype(f'{order}u2').tobytes())
    item.ModalityLUTType = 'HU'
    dataset.ModalityLUTSequence, dataset.PixelData, dataset.file_meta.TransferSyntaxUID = (
        [item],
        stored.astype(f'{order}u2').tobytes(),
        syntax,
    )
    pydicom.dcmwrite(path, dataset, little_endian=order == '<', implicit_vr=False)
    read = read_pixels(read_header(path))
    assert np.array_equal(read, stored.astype(int)**2)
    dataset = pydicom.dcmread(path)
    assert np.array_equal(read, apply_modality_lut(dataset.pixel_array, dataset))


def test_a_series_of_two_spacings_as_dcm2niix_reads_it(tmp_path):
    "Its equalised file is ours; the one beside it gives every slice the spacing of the first."
    import shutil, subprocess
    import ctlab
    from ctlab.phantoms.acquisition import Scan, acquire
    from ctlab.phantoms.body import draw_body
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import reorient, resample
    if not shutil.which('dcm2niix'): pytest.skip('dcm2niix is absent (Debian: apt-get install dcm2niix)')
    hu, *_ = acquire(
        draw_body(3, 5.0), Scan(spacing=2.0, thickness=2.0, start=60, stop=400, matrix=48, field_of_view=400), 3
    )
    files = write_series(hu, tmp_path/'fine')
    (tmp_path/'series').mkdir()
    for k in (*range(0, 60, 2), *range(63, len(files), 5)): shutil.copy(files[k], tmp_path/'series')
    ours = ctlab.read(tmp_path/'series')
    (tmp_path/'out').mkdir()
    subprocess.run(
        ['dcm2niix', '-o', tmp_path / 'out', '-f', 'x', '-z', 'n', tmp_path / 'series'], check=True, capture_output=True
    )
    theirs, plain = (reorient(ctlab.read(tmp_path/'out'/name)) for name in ('x_Eq_1.nii', 'x.nii'))
    there = resample(theirs, like=ours, antialias=False, outside=-5000).array
    both = there > -4000
    assert both.mean() > .95 and np.abs(there - ours.array)[both].max() < 1, 'the same values in the same places'
    wrong = resample(plain, like=ours, antialias=False, outside=-5000).array
    assert (
        np.abs(wrong - ours.array)[wrong > -4000].max() > 200
    ), 'the file that keeps its slices puts them where they are not'
