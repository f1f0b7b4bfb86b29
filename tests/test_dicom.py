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
