"""Series: which is chosen and what is said of the rest; how slices become a volume, value by value."""

from types import SimpleNamespace

import numpy as np
import pytest

from ctlab.scans import dicom
from ctlab.scans.dicom import DicomError, choose_series, find_series, is_localiser, read_series
from ctlab.scans.dicom_header import Header
from ctlab.scans.dicom_writer import SliceWriter

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def group(uid, count, folder='/scan', **facts):
    """Make headers of a series."""
    return [
        Header(f'{folder}/{uid}-{k}', series_uid=uid, instance=k, orientation=AXIAL, rows=4, columns=4, **facts)
        for k in range(count)
    ]


def write_slice(folder, k, place, pixels=None, **tags):
    """Write a slice at a place, of pixels that all hold ten times its place unless others are given."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((4, 4), round(10 * place)) if pixels is None else pixels
    pixels = np.array(pixels, np.uint16)
    pixels[0, 0] += 1  # no slice is all the same
    facts = {
        'SOPInstanceUID': f'1.2.3.{k}',
        'SeriesInstanceUID': '1.2.3',
        'StudyInstanceUID': '1.2',
        'InstanceNumber': k,
        'ImagePositionPatient': ['0', '0', f'{place:g}'],
        'ImageOrientationPatient': [f'{v:g}' for v in AXIAL],
        'PixelSpacing': ['1', '1'],
        'RescaleSlope': '1',
        'RescaleIntercept': '0',
    }
    SliceWriter('plain').write(folder / f'{k:02d}.dcm', pixels, facts | tags)
    return folder / f'{k:02d}.dcm'


def write_places(folder, places, **tags):
    """Write a series of slices at these places."""
    for k, place in enumerate(places):
        write_slice(folder, k, place, **tags)
    return folder


# which series


def test_a_localiser_is_known_by_its_image_type():
    assert is_localiser(Header('a', image_type='ORIGINAL\\PRIMARY\\localizer'))
    assert not is_localiser(Header('a', image_type='ORIGINAL\\PRIMARY\\AXIAL'))
    assert not is_localiser(Header('a', image_type='NOT A LOCALIZER'))


def test_localisers_are_left_out_unless_there_is_nothing_else():
    scouts = group('9', 2, image_type='ORIGINAL\\PRIMARY\\LOCALIZER')
    chosen, notes = choose_series(scouts + group('1', 5))
    assert {h.series_uid for h in chosen} == {'1'} and notes == ['2 localisers left out']
    assert choose_series(scouts) == (scouts, [])
    assert choose_series(group('1', 5))[1] == []


@pytest.mark.parametrize(
    'sizes, left_out',
    [((20, 2), 2), ((30, 3), 3), ((10, 2), 2), ((30, 2, 1), 3), ((5, 1), 1), ((1,), 0), ((7,), 0)],
)
def test_few_strangers_are_left_out(sizes, left_out):
    headers = [h for k, n in enumerate(sizes) for h in group(f'{k}', n)]
    chosen, notes = choose_series(headers)
    assert len(chosen) == sizes[0] and {h.series_uid for h in chosen} == {'0'}
    assert notes == ([f'{left_out} slices of another series left out'] if left_out else [])


@pytest.mark.parametrize('sizes', [(20, 3), (29, 3), (4, 4), (3, 3, 1)])
def test_several_series_are_named_for_a_choice(sizes):
    headers = [h for k, n in enumerate(sizes) for h in group(f'{k}', n, f'/scan{k}', modality='CT')]
    headers[0].modality = 'MR'
    with pytest.raises(DicomError) as error:
        choose_series(headers)
    listing = '; '.join(f'{k} ({n} slices, {"MR" if k == 0 else "CT"})' for k, n in enumerate(sizes))
    words = "several series; choose one with series_uid='…' (commands: --series …) from "
    assert str(error.value) == f'/scan0: {words}{listing}'
    assert [h.series_uid for h in choose_series(headers, '1')[0]] == ['1'] * sizes[1]


def test_no_more_than_six_series_are_listed():
    headers = [h for k in range(8) for h in group(f'{k}', 9 - k, modality='CT')]
    with pytest.raises(DicomError) as error:
        choose_series(headers)
    assert str(error.value).count(' slices, CT)') == 6


def test_a_series_that_is_not_there():
    headers = [*group('2', 1, '/one'), *group('1', 3, '/two')]
    with pytest.raises(DicomError) as error:
        choose_series(headers, '7')
    assert str(error.value) == '/one: no series 7; found 1, 2'
    with pytest.raises(DicomError) as error:
        choose_series(headers[:1], '7')
    assert str(error.value) == '/one: no series 7; found 2'


# which files


def test_what_cannot_be_found_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        find_series(tmp_path / 'none')
    assert str(error.value) == f'{tmp_path / "none"}: no such folder'
    (tmp_path / 'empty').mkdir()
    with pytest.raises(DicomError) as error:
        find_series(tmp_path / 'empty')
    assert str(error.value) == f'{tmp_path / "empty"}: no readable DICOM image'
    (tmp_path / 'empty' / 'note.txt').write_text('hello')
    (tmp_path / 'empty' / 'other.txt').write_text('hello')
    why = 'not a DICOM file (no DICM mark after the preamble)'
    for source, name in (
        (tmp_path / 'empty', tmp_path / 'empty'),
        ([tmp_path / 'empty' / 'note.txt'], tmp_path / 'empty' / 'note.txt'),
        ([tmp_path / 'empty' / 'note.txt', tmp_path / 'empty' / 'other.txt'], 'file list'),
    ):
        with pytest.raises(DicomError) as error:
            find_series(source)
        assert str(error.value) == f'{name}: no readable DICOM image ({why})'


def test_what_is_left_out_is_noted(tmp_path):
    folder = write_places(tmp_path / 'a', range(5))
    assert find_series(folder)[1] == []
    write_slice(folder, 9, 0, ImageType=['ORIGINAL', 'PRIMARY', 'LOCALIZER'], SeriesInstanceUID='1.2.9')
    (folder / 'zz.txt').write_text('hello')
    headers, notes = find_series(folder)
    assert len(headers) == 5
    assert notes == ['1 localisers left out', 'zz.txt: not a DICOM file (no DICM mark after the preamble)']


def test_one_of_two_series(tmp_path):
    write_places(tmp_path / 'all' / 'a', range(3))
    write_places(tmp_path / 'all' / 'b', range(10, 14), SeriesInstanceUID='1.2.4')
    assert len(find_series(tmp_path / 'all', '1.2.4')[0]) == 4
    assert read_series(tmp_path / 'all', '1.2.4').array[:, 1, 1].tolist() == [100, 110, 120, 130]
    assert read_series(tmp_path / 'all', '1.2.3').array[:, 1, 1].tolist() == [0, 10, 20]


def test_options_that_are_none(tmp_path):
    with pytest.raises(ValueError) as error:
        read_series(tmp_path, spacing='odd')
    assert str(error.value) == "spacing is 'regular' or 'as stored', not 'odd'"
    with pytest.raises(ValueError) as error:
        read_series(tmp_path, gaps='fill')
    assert str(error.value) == "gaps is 'refuse' or 'mark', not 'fill'"


# acquisitions


def test_acquisitions_of_the_same_places(tmp_path):
    for k in range(8):
        write_slice(tmp_path / 'a', k, k % 4, np.full((4, 4), k), AcquisitionNumber=1 + k // 4)
    write_slice(tmp_path / 'a', 20, 0, ImageOrientationPatient=[], AcquisitionNumber=1)
    headers = dicom.read_headers(dicom.list_files(tmp_path / 'a'))[0]
    for number in (1, 2):
        notes = []
        found = dicom._acquisition(headers, number, notes)
        assert [h.instance // 4 for h in found] == [number - 1] * 4 and notes == [f'acquisition {number} of 2']
    assert read_series(tmp_path / 'a', acquisition=2).array[:, 1, 1].tolist() == [4, 5, 6, 7]
    assert read_series(tmp_path / 'a').array[:, 1, 1].tolist() == [0, 1, 2, 3]
    for number in (0, 3):
        with pytest.raises(DicomError) as error:
            dicom._acquisition(headers, number, [])
        assert str(error.value) == f'{tmp_path / "a"}: acquisition {number} of 2'
    with pytest.raises(DicomError, match='^/scan: acquisition 2 of 0$'):
        dicom._acquisition(group('1', 1), 2, [])


# several spacings


ZONES = [0, 1, 2, 3, 4, 6, 8, 10.001]


def test_the_smallest_of_several_spacings(tmp_path):
    volume = read_series(write_places(tmp_path / 'a', ZONES))
    assert volume.array.dtype == np.int16 and volume.array[:, 1, 1].tolist() == [*range(0, 110, 10)]
    assert volume.meta['sources'] == [*((k,) for k in range(5)), (4, 5), (5,), (5, 6), (6,), (6, 7), (7,)]
    assert volume.meta['interpolated'] == [5, 7, 9] and volume.meta['files'] == 8
    odd = np.arange(16).reshape(4, 4)
    for k in (4, 5):
        write_slice(tmp_path / 'a', k, ZONES[k], 3 * odd if k == 5 else 0 * odd + 2)
    between = read_series(tmp_path / 'a').array[5]
    assert np.array_equal(between[1:], np.round((3 * odd + 2)[1:] / 2)), 'rounded, not cut off'


def test_values_that_are_no_whole_numbers_stay_so(tmp_path):
    volume = read_series(write_places(tmp_path / 'a', ZONES, RescaleSlope='0.25'))
    assert volume.array.dtype == np.float32
    assert np.allclose(volume.array[:, 1, 1], np.arange(11) * 2.5, atol=0.01), 'no interpolated slice is rounded'


@pytest.mark.parametrize('other', [0, 7])
def test_the_first_and_the_last_slice_say_what_numbers_there_are(tmp_path, other):
    folder = write_places(tmp_path / 'a', ZONES)
    write_slice(folder, other, ZONES[other], np.full((4, 4), 3), RescaleSlope='0.25')
    volume = read_series(folder)
    assert volume.array.dtype == np.float32 and volume.array[0 if other == 0 else -1, 1, 1] == 0.75


# one spacing


def test_one_slice_is_a_volume(tmp_path):
    path = write_slice(tmp_path, 0, 3, np.arange(12).reshape(3, 4))
    volume = read_series([path])
    assert volume.array.shape == (1, 3, 4) and volume.array.dtype == np.int16
    assert np.array_equal(volume.array[0, 1:], np.arange(12).reshape(3, 4)[1:])
    assert volume.affine[2, 3] == 3 and volume.meta['files'] == 1


@pytest.mark.parametrize(
    'places, missing, spacing, words',
    [
        ([0, 1, 2, 3, 6], 2, 1, "read it all the same with gaps='mark' (commands: --gaps mark)"),
        ([0, 1, 2, 3, 7], 3, 1, "read it all the same with gaps='mark' (commands: --gaps mark)"),
        ([0, 1, 2.5, 3, 4], 1, 1, 'give a list of files that do, or a folder with these alone'),
        ([0, 2, 5, 6, 8], 1, 2, 'give a list of files that do, or a folder with these alone'),
    ],
)
@pytest.mark.parametrize('how', ['regular', 'as stored'])
def test_slices_that_lie_on_no_grid(tmp_path, places, missing, spacing, words, how):
    write_places(tmp_path / 'a', places)
    first = (tmp_path / 'a' / '00.dcm').rename(tmp_path / 'first.dcm')
    with pytest.raises(DicomError) as error:
        read_series([first, *sorted((tmp_path / 'a').iterdir())], spacing=how)
    assert str(error.value) == (
        f'{tmp_path}: the {len(places)} slices do not lie on a regular grid '
        f'({missing} missing, spacing about {spacing} mm); {words}'
    )


def test_a_quarter_may_be_missing_and_a_place_may_be_off_by_a_fifth(tmp_path):
    volume = read_series(write_places(tmp_path / 'a', [0, 1, 2, 3, 4, 7]))
    assert volume.array[:, 1, 1].tolist() == [*range(0, 80, 10)] and volume.meta['filled'] == [5, 6]
    volume = read_series(write_places(tmp_path / 'b', [0, 2, 4.3, 6, 8]))
    assert volume.array[:, 1, 1].tolist() == [0, 20, 43, 60, 80] and volume.meta['filled'] == []


def cut_short(path):
    """Take the last bytes of a file's pixels away."""
    path.write_bytes(path.read_bytes()[:-8])


def test_a_slice_that_cannot_be_decoded_is_interpolated(tmp_path):
    folder = write_places(tmp_path / 'a', range(9))
    for k in (0, 4):
        cut_short(folder / f'{k:02d}.dcm')
    volume = read_series(folder)
    assert volume.array[:, 1, 1].tolist() == [*range(10, 90, 10)] and volume.meta['filled'] == [3]
    assert volume.affine[2, 3] == 1 and volume.meta['files'] == 7
    why = [w for w in volume.meta['warnings'] if 'cannot be decoded' in w]
    assert [w.partition(':')[0] for w in why] == [str(folder / '00.dcm'), str(folder / '04.dcm')]


def test_a_volume_begins_at_its_first_good_slice(tmp_path):
    """The first of slices that lean and lie 2 mm apart is damaged, and one is missing: both are where they were."""
    lean = {'ImageOrientationPatient': ['1', '0', '0', '0', '1', '0']}
    for k in (0, 1, 2, 4, 5, 6, 7, 8):
        write_slice(tmp_path / 'a', k, 2.0 * k, **lean, ImagePositionPatient=['0', f'{0.5 * k:g}', f'{2 * k:g}'])
    cut_short(tmp_path / 'a' / '00.dcm')
    volume = read_series(tmp_path / 'a', gaps='mark')
    assert np.allclose(volume.affine[:3, 3], (0, 0.5, 2)) and volume.meta['gaps'] == [2] and len(volume.array) == 8


def test_what_is_known_of_a_series_stays_with_its_volume(tmp_path):
    tags = {'WindowCenter': '40', 'WindowWidth': '400', 'SliceThickness': '1.5', 'PatientID': 'P7', 'Modality': 'CT'}
    meta = read_series(write_places(tmp_path / 'a', range(4), **tags)).meta
    assert (meta['patient_id'], meta['series_uid'], meta['modality']) == ('P7', '1.2.3', 'CT')
    assert meta['windows'][0][:2] == (40, 400) and meta['thickness'] == 1.5 and meta['filled'] == []


def test_without_a_pixel_spacing_a_pixel_is_a_millimetre():
    found = SimpleNamespace(normal=np.array([0.0, 0.0, 1.0]), spacing=2.0)
    affine = dicom._affine(Header('a', orientation=AXIAL), found, (5.0, 6.0, 7.0))
    assert np.array_equal(affine, [[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 2, 7], [0, 0, 0, 1]])


def test_with_a_quarter_of_the_slices_damaged_there_is_no_volume(tmp_path):
    folder = write_places(tmp_path / 'a', range(8))
    for k in (2, 4):
        cut_short(folder / f'{k:02d}.dcm')
    with pytest.raises(DicomError) as error:
        read_series(folder)
    assert str(error.value).startswith(f'{folder / "02.dcm"}: the pixels cannot be decoded')
    assert str(error.value).endswith(' (and 1 more of 8 slices)')


# missing slices


def test_missing_slices_are_interpolated():
    array = np.zeros((5, 2, 2), np.float32)
    array[0], array[3], array[4] = 4.0, 5.0, 7.5
    assert dicom._interpolate_missing(array, [0, 3, 4]) == [1, 2]
    assert np.allclose(array[1], 13 / 3) and np.allclose(array[2], 14 / 3) and (array[4] == 7.5).all()
    array = np.zeros((3, 2, 2), np.int16)
    array[2] = 3
    assert dicom._interpolate_missing(array, [0, 2]) == [1] and (array[1] == 2).all(), 'rounded, not cut off'


# tilted stacks


@pytest.mark.parametrize('spacing', [(2.0, 4.0), (0.5, 0.25), None])
def test_slices_of_a_tilted_stack_move_back(spacing):
    """A line along the table, seen by slices that lean to the back and to the left."""
    dy, dx = spacing or (1.0, 1.0)
    array = np.zeros((3, 12, 12))
    for k in range(3):
        array[k, 6 - 2 * k, 5 + k] = 100
    found = SimpleNamespace(shear=np.array([-dx, 2 * dy, 0.0]))
    head = Header('a', orientation=AXIAL, pixel_spacing=spacing)
    upright = dicom._shear_upright(array, [0, 1, 2], head, found)
    assert [tuple(np.argwhere(s == 100)[0]) for s in upright] == [(6, 5)] * 3
    half = dicom._shear_upright(array, [0, 0.5, 1], head, found)
    assert np.isclose(half[1, 5, 5], 50) and np.isclose(half[1, 5, 6], 50)
