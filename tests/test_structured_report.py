"""Reports on multi-frame files; those on single slices are in the chapter, and beside Orthanc and OHIF."""

import shutil
import subprocess
import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest

from ctlab.cohort.masks import write_dicom_seg
from ctlab.core.anatomy import STRUCTURE_CODES
from ctlab.network.structured_report import Finding, result_uid, write_structured_report
from ctlab.scans.dicom import read_series, write_series
from ctlab.scans.volume import Volume, make_volume


@pytest.fixture(params=['as scanned', 'from the other end'])
def series(request, tmp_path):
    """Write a scan as one file of nine frames."""
    scan = make_volume(np.random.default_rng(0).integers(-900, 900, (9, 24, 20)).astype(np.int16), (2.0, 0.8, 0.5))
    files = write_series(scan, tmp_path / 'slices', 'Jane', '1.2.3.1', 'plain', {'StudyInstanceUID': '1.2.3'})
    slices = [pydicom.dcmread(f) for f in files]
    if request.param != 'as scanned':
        for number, ds in enumerate(reversed(slices), 1):
            ds.InstanceNumber = number
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        frames = hd.legacy.LegacyConvertedEnhancedCTImage(slices, '1.2.5', 1, '1.2.5.1', 1)
    (tmp_path / 'in').mkdir()
    frames.save_as(tmp_path / 'in' / 'frames.dcm')
    return tmp_path / 'in'


def frame_heights(path):
    """Read how high each frame lies."""
    groups = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    return [float(g.PlanePositionSequence[0].ImagePositionPatient[2]) for g in groups]


def images_of(dataset, found):
    """Collect (instance, frame) of every image that a report's tree names."""
    for item in dataset.get('ContentSequence', []):
        if item.ValueType == 'IMAGE' and 'ReferencedFrameNumber' in item.ReferencedSOPSequence[0]:
            one = item.ReferencedSOPSequence[0]
            found.append((one.ReferencedSOPInstanceUID, int(one.ReferencedFrameNumber)))
        images_of(item, found)
    return found


def test_axes_lie_on_the_frame_where_a_structure_is_largest(series, tmp_path):
    scan = read_series(series)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2:7, 8:12, 8:12] = STRUCTURE_CODES['liver']
    mask[5, 6:14, 5:15] = STRUCTURE_CODES['liver']  # here it is largest
    write_dicom_seg(Volume(mask, scan.affine), series, tmp_path / 'seg.dcm')
    seg, findings = hd.seg.segread(tmp_path / 'seg.dcm'), [Finding('liver', 1.0, 'mL'), Finding('injury', 0.5, '1')]
    write_structured_report(series, findings, tmp_path / 'sr.dcm', (result_uid(1), result_uid(2)), 'x', '1', seg)
    report, source = hd.sr.srread(tmp_path / 'sr.dcm'), pydicom.dcmread(series / 'frames.dcm')
    named, heights = images_of(report, []), frame_heights(series / 'frames.dcm')
    height = (scan.affine @ (0, 0, 5, 1))[2]
    assert {uid for uid, _ in named} == {source.SOPInstanceUID}
    assert [heights[frame - 1] for _, frame in named] == [height, height, heights[len(heights) // 2]]
    lengths = {}
    for group in report.content.get_planar_roi_measurement_groups() or report.content.get_image_measurement_groups():
        lengths |= {m.name.meaning: float(m.value) for m in group.get_measurements()}
    assert lengths['Long Axis'] == pytest.approx(np.hypot(8 * 0.8, 10 * 0.5), abs=0.01)
    if shutil.which('dsrdump'):
        told = subprocess.run(['dsrdump', str(tmp_path / 'sr.dcm')], capture_output=True, text=True)
        assert told.returncode == 0 and not told.stderr, told.stderr
