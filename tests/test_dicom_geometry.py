"""Series, frames and slices one by one: what is grouped, ordered, split, counted and said."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ctlab.scans import dicom_geometry as geometry
from ctlab.scans.dicom_header import DicomError, Header, read_header

FLAT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slices(places, **facts):
    """Headers of slices at heights or positions."""
    at = [p if isinstance(p, tuple) else (0.0, 0.0, float(p)) for p in places]
    common = {'orientation': FLAT, 'rows': 4, 'columns': 5, 'pixel_spacing': (1.0, 1.0), 'series_uid': '1.2'} | facts
    return [Header(f'{k:03d}.dcm', position=p, instance=k + 1, **common) for k, p in enumerate(at)]


# files


def test_files_are_listed_in_order_and_links_and_hidden_ones_left_alone(tmp_path):
    for name in ('b/2', 'b/1', 'a/x/1', 'c', '.hidden', 'b/.also', '.folder/1'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    (tmp_path / 'link').symlink_to(tmp_path / 'c')
    (tmp_path / 'loop').symlink_to(tmp_path, target_is_directory=True)
    found = [str(p)[len(str(tmp_path)) + 1 :] for p in geometry.list_files(tmp_path)]
    assert found == ['c', '.folder/1', 'a/x/1', 'b/1', 'b/2'], 'files first, folders after, each by name'
    assert list(geometry.list_files(tmp_path / 'nowhere')) == [] == list(geometry.list_files(tmp_path / 'c'))


def test_a_folder_that_may_not_be_read_hides_nothing_else(tmp_path, monkeypatch):
    import os

    for name in ('a/1', 'b/1', 'c/1'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b'')
    whole = os.scandir
    monkeypatch.setattr(os, 'scandir', lambda at: whole(at if not at.endswith('b') else f'{at}/none'))
    assert [str(p)[len(str(tmp_path)) + 1 :] for p in geometry.list_files(tmp_path)] == ['a/1', 'c/1']


def test_what_cannot_be_read_is_returned_with_its_reason(tmp_path):
    (tmp_path / 'text').write_text('no DICOM')
    good, bad = geometry.read_headers([tmp_path / 'text'])
    assert good == [] and len(bad) == 1 and bad[0][0] == str(tmp_path / 'text')
    assert bad[0][1] and not bad[0][1].startswith(str(tmp_path)), 'the path is said once'
    assert geometry.read_headers([]) == ([], [])


# frames


def frames_file(path, n=3, own=None, shared=None, **top):
    """Write an enhanced file; `own(k)` and `shared` are functional groups."""
    from pydicom.data import get_testdata_file

    made = pydicom.dcmread(get_testdata_file('CT_small.dcm'))
    made.NumberOfFrames = n
    for key, value in top.items():
        setattr(made, key, value)
    made.PixelData = made.PixelData * n
    if own:
        made.PerFrameFunctionalGroupsSequence = Sequence([group(own(k)) for k in range(n)])
    if shared:
        made.SharedFunctionalGroupsSequence = Sequence([group(shared)])
    made.save_as(path)
    return path


def group(content):
    """Make a dataset from nested dictionaries: each of them is a sequence of one item."""
    made = Dataset()
    for name, value in content.items():
        setattr(made, name, Sequence([group(value)]) if isinstance(value, dict) else value)
    return made


EVERYTHING = {
    'PixelMeasuresSequence': {'PixelSpacing': [0.5, 0.7], 'SliceThickness': 3, 'SpacingBetweenSlices': 2},
    'PlaneOrientationSequence': {'ImageOrientationPatient': [1, 0, 0, 0, 0, -1]},
    'PixelValueTransformationSequence': {'RescaleSlope': 2, 'RescaleIntercept': -7, 'RescaleType': 'HU'},
    'FrameVOILUTSequence': {'WindowCenter': [40, 50], 'WindowWidth': [400, 500]},
    'CTImageFrameTypeSequence': {'FrameType': ['ORIGINAL', 'PRIMARY', 'VOLUME', 'NONE']},
}


def test_frames_take_what_they_share(tmp_path):
    path = frames_file(
        tmp_path / 'a.dcm',
        own=lambda k: {
            'PlanePositionSequence': {'ImagePositionPatient': [1, 2, 10 * k]},
            'FrameContentSequence': {
                'FrameAcquisitionNumber': 4 + k,
                'TemporalPositionIndex': 7,
                'FrameAcquisitionDateTime': '20200101',
            },
        },
        shared=EVERYTHING,
    )
    header = read_header(path)
    found = geometry.read_frames(header)
    assert [h.frame for h in found] == [0, 1, 2] and [h.instance for h in found] == [1, 2, 3]
    assert [h.position for h in found] == [(1, 2, 0), (1, 2, 10), (1, 2, 20)]
    one = found[1]
    assert one.orientation == (1, 0, 0, 0, 0, -1) and one.pixel_spacing == (0.5, 0.7)
    assert (one.thickness, one.spacing_tag, one.slope, one.intercept, one.rescale_type) == (3, 2, 2, -7, 'HU')
    assert one.windows == ((40, 400, ''), (50, 500, '')) and one.image_type == 'ORIGINAL\\PRIMARY\\VOLUME\\NONE'
    assert (one.acquisition, one.moment, one.time, one.pixels_at) == (5, 7, '20200101', 0)
    assert (one.path, one.rows, one.frames) == (header.path, header.rows, 3)
    assert geometry.read_headers([path]) == (found, [])


def test_what_a_frame_says_itself_comes_first_and_the_file_last(tmp_path):
    path = frames_file(
        tmp_path / 'a.dcm',
        own=lambda k: {'PixelMeasuresSequence': {'PixelSpacing': [k + 1, 2]}},
        shared=EVERYTHING | {'PixelValueTransformationSequence': {'RescaleSlope': 0}},
    )
    header = read_header(path)
    found = geometry.read_frames(header)
    assert [h.pixel_spacing for h in found] == [(1, 2), (2, 2), (3, 2)] and found[0].thickness is None
    assert (found[0].slope, found[0].intercept) == (0, header.intercept), 'zero is said, nothing is not'
    assert found[0].position is None and found[0].acquisition == header.acquisition
    own = read_header(frames_file(tmp_path / 'b.dcm', own=lambda k: {'FrameContentSequence': {}}))
    bare = geometry.read_frames(own)
    assert bare[0].windows == own.windows and bare[0].image_type == own.image_type and bare[0].time == ''
    assert bare[0].rescale_type == own.rescale_type and bare[0].moment == own.moment and bare[2].slope == own.slope
    kind = {'MRImageFrameTypeSequence': {'FrameType': ['DERIVED', 'PRIMARY']}}
    mr = geometry.read_frames(read_header(frames_file(tmp_path / 'c.dcm', own=lambda k: kind)))
    assert mr[0].image_type == 'DERIVED\\PRIMARY'


def test_frames_that_say_nothing_or_lie(tmp_path, monkeypatch):
    path = frames_file(tmp_path / 'a.dcm')
    header = read_header(path)
    assert geometry.read_frames(header) == [header], 'no word of the frames: the file is one'
    path = frames_file(tmp_path / 'b.dcm', own=lambda k: {'FrameContentSequence': {}})
    lying = pydicom.dcmread(path)
    lying.NumberOfFrames = 2
    lying.save_as(path)
    with pytest.raises(DicomError) as error:
        geometry.read_frames(read_header(path))
    assert str(error.value) == f'{path}: describes 3 frames and claims 2'
    monkeypatch.setattr(geometry, 'MAX_FRAMES', 3)
    frames_file(tmp_path / 'c.dcm', own=lambda k: {'FrameContentSequence': {}})
    assert len(geometry.read_frames(read_header(tmp_path / 'c.dcm'))) == 3, 'as many as are allowed'
    monkeypatch.setattr(geometry, 'MAX_FRAMES', 2)
    with pytest.raises(DicomError) as error:
        geometry.read_frames(read_header(tmp_path / 'c.dcm'))
    assert str(error.value) == f'{tmp_path / "c.dcm"}: claims 3 frames'
    monkeypatch.setattr(pydicom, 'dcmread', lambda *_, **__: 1 / 0)
    monkeypatch.setattr(geometry, 'MAX_FRAMES', 3)
    with pytest.raises(DicomError) as error:
        geometry.read_frames(header)
    assert str(error.value) == f"{header.path}: the frames' description is damaged (ZeroDivisionError)"


# series


def test_what_belongs_to_one_series():
    base = slices(range(3))
    others = [
        slices([9], series_uid='1.1'),
        slices([9], orientation=(1, 0, 0, 0, 0, -1)),
        slices([9], rows=9),
        slices([9], columns=9),
        slices([9], pixel_spacing=(1.0, 1.001)),
    ]
    alike = slices([4], orientation=(1.0, 0.001, -0.0, 0.0, 1.0, -0.004), pixel_spacing=(1.00001, 1.0))
    found = geometry.group_series([*base, *(h for o in others for h in o), *alike])
    assert found[0] == base + alike, 'small differences of rounding are none'
    assert [len(g) for g in found[1:]] == [1] * 5 and found[1] == others[0], 'the largest first, then by UID'
    assert geometry.group_series(slices([1], orientation=None, pixel_spacing=None))[0][0].orientation is None
    two = [Header('b', series_uid='1'), Header('a', series_uid='1', rows=1)]
    assert [g[0].path for g in geometry.group_series(two)] == ['a', 'b'], 'at last by path'


def test_the_order_of_slices_and_those_of_one_place():
    headers = slices([30, 10, 20, 10.005, 10.02])
    kept, twice = geometry._sort_by_position(headers, np.array([30, 10, 20, 10.005, 10.02]))
    assert kept == [1, 4, 2, 0] and twice == [3]
    same = [Header('b', instance=2), Header('a', instance=2), Header('c', instance=1), Header('d')]
    kept, twice = geometry._sort_by_position(same, np.zeros(4))
    assert kept == [3] and twice == [2, 1, 0], 'by instance, then by path; no instance counts as none'
    kept, _ = geometry._sort_by_position(slices([0, 0.01]), np.array([0, 0.01]))
    assert kept == [0, 1], 'a hundredth of a millimetre is another place'


@pytest.mark.parametrize(
    'positions, spacing, missing',
    [
        ([5], 0, []),
        ([0, 2], 2, []),
        ([0, 2, 4, 6.3], 2.1, []),
        ([0, 2, 4, 8, 10], 2, [3]),
        ([0, 2, 4, 10, 12], 2, [3, 4]),
        ([0, 2.01, 4.02, 8.04], 2.01, [3]),
        ([0, 2, 4.1, 8.1], 2.1, [3]),
        ([0, 1, 2, 3, 100], 1, []),
        ([0, 1, 2, 3, 4, 23], 1, list(range(5, 23))),
        ([0, 1, 2, 3, 4, 24], 1, []),
    ],
)
def test_spacing_and_what_is_missing(positions, spacing, missing):
    found = geometry._regular(np.array(positions, float))
    assert found[0] == pytest.approx(spacing, abs=1e-9) and found[1] == missing


@pytest.mark.parametrize(
    'steps, parts',
    [
        ([1] * 5, []),
        ([1] * 5 + [2] * 5, [(0, 6), (6, 11)]),
        ([1] * 3 + [2] * 3, [(0, 4), (4, 7)]),
        ([1] * 2 + [2] * 5, []),
        ([1] * 5 + [2] * 2, []),
        ([1] * 5 + [1.04] * 5, []),
        ([1] * 5 + [1.06] * 5, [(0, 6), (6, 11)]),
        ([2] * 5 + [1] * 5 + [2] * 5, [(0, 6), (6, 11), (11, 16)]),
        ([1] * 5 + [1.5] + [2] * 5, [(0, 6), (6, 12)]),
        ([1] * 5 + [2.5] + [2] * 5, [(0, 6), (6, 12)]),
        ([1] * 5 + [2.7] + [2] * 5, []),
        ([1] * 5 + [1.5, 1.5] + [2] * 5, []),
        ([1] * 5 + [1.5, 1.8] + [2] * 5, []),
        ([1] * 5 + [6] * 5, [(0, 6), (6, 11)]),
        ([1] * 5 + [6.1] * 5, []),
        (sum(([1 + k % 2] * 3 for k in range(6)), []), [(0, 4), (4, 7), (7, 10), (10, 13), (13, 16), (16, 19)]),
        (sum(([1 + k % 2] * 3 for k in range(7)), []), []),
        ([1, 2, 3, 1, 2, 3], []),
    ],
)
def test_parts_of_one_spacing(steps, parts):
    assert geometry.spacing_zones(np.concatenate([[0], np.cumsum(steps)])) == parts


def test_the_shift_of_a_tilted_gantry():
    places = np.array([(0, 0.1 * k, 2.0 * k) for k in range(5)])
    assert geometry._shear(places, np.array([0, 0, 1.0]), 2.0) == pytest.approx([0, 0.1, 0])
    assert geometry._shear(places, np.array([0, 0, 1.0]), 4.0) == pytest.approx([0, 0.2, 0])
    for drift, seen in ((0.0045, True), (0.0035, False)):
        small = np.array([(drift * k, 0, 2.0 * k) for k in range(5)])
        assert geometry._shear(small, np.array([0, 0, 1.0]), 2.0).any() == seen, 'from 0.002 of the spacing on'
    for drift, seen in ((0.0011, True), (0.0009, False)):
        thin = np.array([(drift * k, 0, 0.1 * k) for k in range(5)])
        assert geometry._shear(thin, np.array([0, 0, 1.0]), 0.1).any() == seen, 'and from a micrometre on'
    assert geometry._shear(places[:1], np.array([0, 0, 1.0]), 2.0).tolist() == [0, 0, 0]
    two = geometry._shear(places[:2], np.array([0, 0, 1.0]), 2.0)
    assert two == pytest.approx([0, 0.1, 0]), 'two slices are enough'


def test_scans_at_the_same_places():
    once = slices(range(6))
    assert geometry.split_acquisitions(once) == [list(range(6))]
    for key, values in (('acquisition', (1, 2)), ('moment', (2, 1)), ('time', ('10', '09'))):
        both = [h for v in values for h in slices(range(4), **{key: v})]
        assert geometry.split_acquisitions(both) == (
            [[0, 1, 2, 3], [4, 5, 6, 7]] if values[0] < values[1] else [[4, 5, 6, 7], [0, 1, 2, 3]]
        ), key
    none = slices(range(4)) + slices(range(4), acquisition=3)
    assert geometry.split_acquisitions(none) == [[4, 5, 6, 7], [0, 1, 2, 3]], 'without a number comes last'
    few = slices([*range(6), 0, 1])
    assert geometry.split_acquisitions(few) == [list(range(8))], 'two places taken twice are no second scan'
    half = slices([*range(6), 0, 1, 2])
    assert geometry.split_acquisitions(half) == [list(range(6)), [6, 7, 8]], 'three, and half of the places, are'
    third = slices([*range(8), 0, 1, 2])
    assert geometry.split_acquisitions(third) == [list(range(11))], 'less than half are not'
    mixed = slices([0, 1, 2, 3, 0, 1, 2, 3], acquisition=1)
    mixed[0].acquisition = 2
    assert geometry.split_acquisitions(mixed) == [[0, 1, 2, 3], [4, 5, 6, 7]], 'a number that does not part them'
    back = slices([0, 1, 2, 3, 0, 1, 2, 3])
    for k, h in enumerate(back):
        h.instance = 8 - k
    assert geometry.split_acquisitions(back) == [[4, 5, 6, 7], [0, 1, 2, 3]], 'by instance number'
    near = slices([0, 1, 2, 3, 0.004, 1.004, 2.004, 3.004])
    assert len(geometry.split_acquisitions(near)) == 2, 'a few micrometres are the same place'


def test_a_whole_series():
    found = geometry.series_geometry(slices([4, 0, 2, 6, 2]))
    assert found.order == [1, 2, 0, 3] and found.duplicates == [4] and found.spacing == 2 and found.missing == []
    assert found.positions.tolist() == [0, 2, 4, 6] and found.normal.tolist() == [0, 0, 1] and not found.shear.any()
    assert found.notes == ['1 slices at a place already taken left out'] and found.tilt == 0
    assert geometry.series_geometry(slices([4], spacing_tag=3.0, thickness=5.0)).spacing == 3
    assert geometry.series_geometry(slices([4], thickness=5.0)).spacing == 5
    assert geometry.series_geometry(slices([4])).spacing == 1
    gap = geometry.series_geometry(slices([0, 2, 4, 8]))
    assert gap.missing == [3] and gap.notes == ['1 of 5 slices missing']
    two = geometry.series_geometry(slices([0, 1, 2, 3, 4, 6, 8, 10]))
    assert two.spacing == 1 and two.missing == []
    assert two.notes == ['the spacing changes on the way: 5 slices of 1 mm, then 3 slices of 2 mm; read on 1 mm']
    tilted = geometry.series_geometry(slices([(0.0, 0.2 * k, 2.0 * k) for k in range(6)]))
    assert tilted.tilt == pytest.approx(np.degrees(np.arctan(0.1))) and tilted.notes == ['gantry tilt of 5.7°']
    lost = slices([0, 2, 4])
    lost[1].position = None
    lost[2].orientation = None
    lone = geometry.series_geometry(lost)
    assert lone.order == [0] and lone.notes == ['2 slices without a position left out']
    both = [h for v in (2, 1) for h in slices(range(4), acquisition=v)]
    first = geometry.series_geometry(both)
    assert first.order == [4, 5, 6, 7] and first.duplicates == [0, 1, 2, 3]
    assert first.notes == [
        '2 acquisitions at the same places (4, 4 slices); the first is read; acquisition=2 (commands: '
        '--acquisition 2) gives the next'
    ]


@pytest.mark.parametrize(
    'orientation, fine',
    [
        ((1, 0, 0, 0, 1, 0), True),
        ((1.005, 0, 0, 0, 0.995, 0), True),
        ((1.02, 0, 0, 0, 1, 0), False),
        ((1, 0, 0, 0, 0.98, 0), False),
        ((1, 0, 0, 0.02, 0.9998, 0), False),
        ((1, 0, 0, 0.005, 0.99998, 0), True),
    ],
)
def test_orientations_that_are_none(orientation, fine):
    headers = slices(range(3), orientation=orientation)
    if fine:
        assert len(geometry.series_geometry(headers).order) == 3
        return
    with pytest.raises(DicomError) as error:
        geometry.series_geometry(headers)
    assert str(error.value) == '000.dcm: ImageOrientationPatient is no pair of perpendicular unit vectors'


def test_no_slice_with_a_place():
    with pytest.raises(DicomError) as error:
        geometry.series_geometry(slices(range(2), orientation=None))
    assert str(error.value) == '000.dcm: no slice of the series has a position and orientation'
