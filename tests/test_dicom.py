"Every single-slice file that pydicom brings along for its own tests is read as pydicom reads it, or refused by name."
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from pydicom.pixels import apply_modality_lut

from ctlab.dicom import DicomError, quiet_decoders, read_header, read_pixels

FILES = [p for p in sorted((Path(pydicom.data.__file__).parent/'test_files').rglob('*')) if p.is_file() and p.stat().st_size < 1 << 20]


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
