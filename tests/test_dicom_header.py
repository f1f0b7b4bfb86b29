"""Headers: the quick way, pydicom's way and the cache say the same, field by field; and what is refused."""

import os
from dataclasses import fields, replace

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian

from ctlab.scans import dicom_header as headers
from ctlab.scans.dicom_header import DicomError, Header, read_header
from ctlab.scans.dicom_pixels import read_pixels
from ctlab.scans.dicom_writer import SliceWriter

TAGS = {
    'SOPInstanceUID': '1.2.3.4',
    'SeriesInstanceUID': '1.2.3',
    'StudyInstanceUID': '1.2',
    'PatientID': 'p 1',
    'InstanceNumber': 5,
    'ImagePositionPatient': ['-1.5', '2', '3e1'],
    'ImageOrientationPatient': ['1', '0', '0', '0', '1', '0'],
    'PixelSpacing': ['0.5', '0.7'],
    'SliceThickness': '2.5',
    'SpacingBetweenSlices': '2.25',
    'RescaleSlope': '1',
    'RescaleIntercept': '-1024',
    'RescaleType': 'HU',
    'WindowCenter': ['40', '-600'],
    'WindowWidth': ['400', '1500'],
    'WindowCenterWidthExplanation': ['SOFT', 'LUNG'],
    'VOILUTFunction': 'SIGMOID',
    'PixelPaddingValue': 7,
    'PatientPosition': 'FFS',
    'AcquisitionNumber': 3,
    'TemporalPositionIdentifier': 2,
    'AcquisitionTime': '101112.5',
    'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'],
}


def written(path, full=True, rows=3, columns=4, without=(), **tags):
    """Write a slice with these tags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)
    SliceWriter('plain', full).write(path, pixels, {k: v for k, v in (TAGS | tags).items() if k not in without})
    return path


def slowly(path, monkeypatch):
    """Read a header by pydicom."""
    with monkeypatch.context() as patch:
        patch.setattr(headers, 'parse_plain_header', lambda block: None)
        return read_header(path)


def test_every_field_of_a_header(tmp_path, monkeypatch):
    path = written(tmp_path / 'a.dcm')
    found = read_header(path)
    wanted = Header(
        path=str(path),
        patient_id='p 1',
        study_uid='1.2',
        series_uid='1.2.3',
        sop_uid='1.2.3.4',
        instance=5,
        modality='CT',
        position=(-1.5, 2, 30),
        orientation=(1, 0, 0, 0, 1, 0),
        rows=3,
        columns=4,
        pixel_spacing=(0.5, 0.7),
        thickness=2.5,
        spacing_tag=2.25,
        stored=12,
        high_bit=11,
        photometric='MONOCHROME2',
        slope=1,
        intercept=-1024,
        rescale_type='HU',
        windows=((40, 400, 'SOFT'), (-600, 1500, 'LUNG')),
        voi_function='SIGMOID',
        padding=7,
        syntax='1.2.840.10008.1.2.1',
        patient_position='FFS',
        size=path.stat().st_size,
        pixels_at=found.pixels_at,
        acquisition=3,
        moment=2,
        time='101112.5',
        image_type='ORIGINAL\\PRIMARY\\AXIAL',
    )
    assert found == wanted and found.pixels_at > 0
    assert path.read_bytes()[found.pixels_at : found.pixels_at + 4] == b'\xe0\x7f\x10\x00'
    assert slowly(path, monkeypatch) == replace(wanted, pixels_at=0)


@pytest.mark.parametrize('full', [True, False])
def test_what_a_header_does_not_say(tmp_path, monkeypatch, full):
    optional = [k for k in TAGS if k not in ('SOPInstanceUID', 'PixelSpacing')]
    path = written(tmp_path / 'a.dcm', full, without=optional)
    found = read_header(path)
    assert found == replace(slowly(path, monkeypatch), pixels_at=found.pixels_at)
    bare = Header(str(path), sop_uid='1.2.3.4', rows=3, columns=4, pixel_spacing=(0.5, 0.7), stored=12, high_bit=11)
    common = {'photometric': 'MONOCHROME2', 'syntax': '1.2.840.10008.1.2.1', 'size': found.size, 'modality': 'CT'}
    assert replace(found, pixels_at=0) == replace(bare, **common), 'the class stands for the modality'


def test_other_ways_to_say_it(tmp_path, monkeypatch):
    for name, tags, field, wanted in (
        ('a', {'WindowCenter': '40', 'WindowWidth': '400', 'WindowCenterWidthExplanation': 'ONE'}, 'windows', 1),
        ('b', {'WindowWidth': ['400', '0.5']}, 'windows', ((40, 400, 'SOFT'),)),
        ('c', {'WindowWidth': ['1', '400'], 'WindowCenterWidthExplanation': 'A'}, 'windows', 2),
        ('d', {'RescaleSlope': '0'}, 'slope', 0.0),
        ('e', {'SliceThickness': ['3', '4']}, 'thickness', 3.0),
        ('f', {'InstanceNumber': None}, 'instance', None),
        ('g', {'PatientID': ' p '}, 'patient_id', 'p'),
        ('h', {'ImageType': 'DERIVED'}, 'image_type', 'DERIVED'),
    ):
        path = written(tmp_path / name, **tags)
        found = read_header(path)
        assert found == replace(slowly(path, monkeypatch), pixels_at=found.pixels_at), name
        value = getattr(found, field)
        if name == 'a':
            assert value == ((40, 400, 'ONE'),)
        elif name == 'c':
            assert value == ((40, 1, 'A'), (-600, 400, ''))
        else:
            assert value == wanted and type(value) is type(wanted), name


def test_what_is_not_usable_is_noted(tmp_path, monkeypatch):
    path = written(tmp_path / 'a')
    whole = path.read_bytes()
    for name, old, new, field in (
        ('ImagePositionPatient', b'-1.5\\2\\3e1', b'-1.5\\2\\nan', 'position'),
        ('ImageOrientationPatient', b'1\\0\\0\\0\\1\\0', b'1\\0\\0\\0\\110', 'orientation'),
        ('PixelSpacing', b'0.5\\0.7', b'0.5\\inf', 'pixel_spacing'),
        ('RescaleIntercept', b'-1024', b'-10x4', 'intercept'),
        ('InstanceNumber', b'IS\x02\x005 ', b'IS\x02\x00x ', 'instance'),
    ):
        assert whole.count(old) == 1, name
        path.write_bytes(whole.replace(old, new))
        for found in (read_header(path), slowly(path, monkeypatch)):
            assert getattr(found, field) is None and found.notes == (f'{name} is not usable',), name


def test_numbers():
    assert headers._numbers('1.5') == (1.5,) and headers._numbers([1, '2']) == (1, 2) == headers._numbers((1, 2), 2)
    assert headers._numbers(None) is None is headers._numbers('') and headers._numbers([1, 2], 3) is None
    assert headers._numbers([1, float('inf')]) is None is headers._numbers('nan') and headers._numbers([]) == ()
    assert (
        headers._only_number('3') == 3 and headers._only_number([3, 4]) is None and headers._first_number([3, 4]) == 3
    )
    assert headers._first_number([]) == () and headers._whole('5.0') == 5 and headers._whole(7) == 7
    with pytest.raises(ValueError):
        headers._whole('x')


# the quick way


def element(tag, vr, value):
    """Encode an element in explicit little endian."""
    head = (tag >> 16).to_bytes(2, 'little') + (tag & 0xFFFF).to_bytes(2, 'little') + vr
    if vr in headers._LONG:
        return head + b'\0\0' + len(value).to_bytes(4, 'little') + value
    return head + len(value).to_bytes(2, 'little') + value


START = bytes(128) + b'DICM'
SYNTAX = element(0x00020010, b'UI', b'1.2.840.10008.1.2.1\0')
END = element(0x7FE00010, b'OW', b'')


def parse(*parts, start=START):
    return headers.parse_plain_header(start + b''.join(parts))


def test_the_quick_way_reads_plain_elements():
    rows, name = element(0x00280010, b'US', b'\x05\0'), element(0x00100020, b'LO', b'a ')
    assert parse(SYNTAX, name, rows, END) == (
        {'PatientID': 'a', 'Rows': 5},
        '1.2.840.10008.1.2.1',
        132 + len(SYNTAX + name + rows),
    )
    kinds = element(0x00280120, b'SS', b'\xff\xff'), element(0x00181310, b'UL', b'\0\0\0\0')
    assert parse(SYNTAX, kinds[1], kinds[0], END)[0] == {'PixelPaddingValue': -1}, 'what is not wanted is passed over'
    many = element(0x00200032, b'DS', b'1\\2 \\3\0')
    assert parse(SYNTAX, many, END)[0] == {'ImagePositionPatient': ['1', '2', '3']}
    long_text = element(0x00081030, b'UT', b'x' * 300)
    assert parse(SYNTAX, long_text, rows, END)[0] == {'Rows': 5}


@pytest.mark.parametrize(
    'parts',
    [
        (element(0x00020010, b'UI', b'1.2.840.10008.1.2\0'), END),
        (element(0x00020010, b'UI', b'1.2.840.10008.1.2\0'), element(0x00280010, b'US', b'\x05\0'), END),
        (element(0x00280010, b'US', b'\x05\0'), SYNTAX, END),
        (SYNTAX,),
        (SYNTAX, element(0x00283000, b'SQ', b''), END),
        (SYNTAX, element(0x00283010, b'SQ', b''), END),
        (SYNTAX, element(0x00100020, b'LO', b'\xe4 '), END),
        (SYNTAX, element(0x00280010, b'US', b'\x05\0\0\0'), END),
        (SYNTAX, element(0x00280010, b'UN', b'\x05\0'), END),
        (SYNTAX, element(0x00280010, b'US', b'\x05\0'), element(0x00280010, b'US', b'\x05\0'), END),
        (SYNTAX, element(0x00280011, b'US', b'\x05\0'), element(0x00280010, b'US', b'\x05\0'), END),
        (SYNTAX, element(0x00280010, b'us', b'\x05\0'), END),
        (SYNTAX, element(0x00280010, b'1U', b'\x05\0'), END),
        (SYNTAX, element(0x00100020, b'LO', b'abcd')[:-2] + b'zz'[:0]),
    ],
)
def test_the_quick_way_leaves_the_rest_to_pydicom(parts):
    assert parse(*parts) is None
    assert parse(SYNTAX, END, start=bytes(128) + b'DICK') is None


def test_the_elements_of_a_block():
    block = SYNTAX + element(0x00280010, b'US', b'\x05\0') + END
    found = list(headers._iter_elements(block, 0))
    assert [f[0] for f in found] == [0x00020010, 0x00280010, 0x7FE00010]
    assert [block[a:b] for _, _, a, b in found] == [b'1.2.840.10008.1.2.1\0', b'\x05\0', b'']
    assert found[2][2] == len(block) - 12 and found[1][1] == b'US'
    assert list(headers._iter_elements(block[: len(SYNTAX) + 9], 0))[1:] == [], 'cut off within an element'
    assert len(list(headers._iter_elements(block[:-1], 0))) == 2, 'less than a whole element is left'


# the cache


def same_headers(paths):
    """Read headers with one cache and one by one; returns how many came from the cache."""
    cache, hits = headers._HeaderCache(), 0
    reading = cache.read

    def counted(*args):
        nonlocal hits
        found = reading(*args)
        hits += found is not None
        return found

    cache.read = counted
    for path in paths:
        together, alone = headers._read_cached(str(path), cache), read_header(path)
        assert [(f.name, getattr(together, f.name)) for f in fields(Header)] == [
            (f.name, getattr(alone, f.name)) for f in fields(Header)
        ]
        assert np.array_equal(read_pixels(together), read_pixels(alone))
    return hits


def test_slices_of_a_series_come_from_the_cache(tmp_path):
    paths = [
        written(
            tmp_path / f'{k}.dcm',
            SOPInstanceUID=f'1.2.3.{10**k}',
            InstanceNumber=k + 1,
            ImagePositionPatient=['0', '0', str(2.5 * k)],
            AcquisitionTime=f'1011{k}',
            AcquisitionNumber=k,
        )
        for k in range(8)
    ]
    assert same_headers(paths) == 5, 'the second file and the third tell what changes'


@pytest.mark.parametrize(
    'change',
    [
        {'PixelSpacing': ['0.5', '0.8']},
        {'RescaleIntercept': '-1000'},
        {'SeriesInstanceUID': '1.2.9'},
        {'PatientID': 'q 1'},
        {'ImageOrientationPatient': ['0', '1', '0', '1', '0', '0']},
        {'ImagePositionPatient': ['0', '0', 'x']},
        {'rows': 4},
        {'columns': 2},
        {'SliceThickness': None},
        {'SeriesDescription': 'later'},
        {'full': False},
    ],
)
def test_a_slice_that_differs_is_read_itself(tmp_path, change):
    paths = []
    for k in range(9):
        tags = {'SOPInstanceUID': f'1.2.3.{k}', 'ImagePositionPatient': ['0', '0', str(k)], 'InstanceNumber': k}
        path = tmp_path / f'{k}.dcm'
        if change == {'ImagePositionPatient': ['0', '0', 'x']} and k == 5:
            written(path, **tags).write_bytes(path.read_bytes().replace(b'0\\0\\5 ', b'0\\0\\x '))
        else:
            written(path, **(tags | (change if k == 5 else {})))
        paths.append(path)
    assert 3 <= same_headers(paths) < 8


def test_a_private_element_may_change_with_every_slice(tmp_path):
    paths = [
        written(tmp_path / f'{k}', SOPInstanceUID=f'1.2.3.{k}', SeriesDescription='x' * (k + 1), PatientComments=f'{k}')
        for k in range(6)
    ]
    assert same_headers(paths) == 4


def test_files_with_nothing_in_common_are_not_walked_for_ever(tmp_path):
    cache = headers._HeaderCache()
    for k in range(30):
        headers._read_cached(str(written(tmp_path / f'{k}', PatientID=f'{k}', SeriesInstanceUID=f'1.2.{k}')), cache)
    assert cache.misses == 21
    noted = headers._HeaderCache()
    header = read_header(written(tmp_path / 'a'))
    noted.learn((tmp_path / 'a').read_bytes(), replace(header, notes=('odd',)))
    noted.learn((tmp_path / 'a').read_bytes(), replace(header, pixels_at=0))
    assert noted.misses == 0 and noted.values is None


def test_no_more_is_read_than_earlier_headers_needed(tmp_path, monkeypatch):
    """A header that is longer than those before is read to its end all the same."""
    asked, read = [], headers._read_beginning
    monkeypatch.setattr(headers, '_read_beginning', lambda p, *n: asked.append(n) or read(p, *n))
    cache, long = headers._HeaderCache(), {'ImageComments': 'x' * 3000}
    paths = [written(tmp_path / f'{k}', InstanceNumber=k, **(long if k == 5 else {})) for k in range(8)]
    found = [headers._read_cached(str(p), cache) for p in paths]
    assert [h.instance for h in found] == list(range(8)) and found == [read_header(p) for p in paths]
    short = (found[0].pixels_at + 256,)
    assert asked[:9] == [(headers._BLOCK,)] * 2 + [short] * 4 + [(), (headers._BLOCK,), (headers._BLOCK,)]


# tables


def lut(first, values, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(values) % 65536, first, bits]
    item.add_new('LUTData', 'US', [int(v) for v in values])
    return item


def test_look_up_tables():
    class Item:
        def __init__(self, descriptor, data):
            self.LUTDescriptor, self.LUTData = descriptor, data

    def table(descriptor, data, order='<u2'):
        found = headers._table([Item(descriptor, data)], order)
        return found and (found[0], found[1].tolist(), found[1].dtype == np.uint16)

    assert table([3, -5, 16], [1, 2, 65535]) == (-5, [1, 2, 65535], True)
    assert table([2, 0, 16], b'\x01\x00\x00\x02') == (0, [1, 512], True)
    assert table([2, 0, 16], b'\x00\x01\x02\x00', '>u2') == (0, [1, 512], True)
    assert table([3, 0, 8], b'\x01\x02\x03\x00') == (0, [1, 2, 3], True), 'two values of eight bits in one word'
    assert table([4, 0, 8], b'\x01\x02\x03\x04') == (0, [1, 2, 3, 4], True)
    assert table([2, 0, 8], [1, 2]) == (0, [1, 2], True)
    assert len(table([0, 0, 16], list(range(65536)))[1]) == 65536, 'none stands for 65536'
    assert table([3, 0, 16], [1, 2]) is None and table([2, 0, 7], [1, 2]) is None and table([2, 0, 17], [1, 2]) is None


@pytest.mark.filterwarnings('ignore')
def test_tables_and_implicit_representations(tmp_path):
    made = pydicom.dcmread(written(tmp_path / 'a'))
    made.ModalityLUTSequence = Sequence([lut(0, list(range(1000, 1012)))])
    made.VOILUTSequence = Sequence([lut(3, [0, 40000])])
    made.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.save_as(tmp_path / 'b', implicit_vr=True, little_endian=True)
    found = read_header(tmp_path / 'b')
    assert (found.syntax, found.pixels_at) == (ImplicitVRLittleEndian, 0)
    assert (found.rows, found.position) == (3, (-1.5, 2, 30))
    assert found.modality_table[0] == 0 and found.modality_table[1].tolist() == list(range(1000, 1012))
    assert found.voi_table[0] == 3 and found.voi_table[1].tolist() == [0, 40000]
    assert read_pixels(found).ravel().tolist() == list(range(1000, 1012))


# classes


def test_classes_are_completed():
    def completed(guess=False, stored='', **tags):
        dataset = Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        if stored:
            dataset.file_meta.MediaStorageSOPClassUID = stored
        for name, value in tags.items():
            setattr(dataset, name, value)
        found = headers.complete_class(dataset, guess)
        assert found is dataset
        return found.get('SOPClassUID', ''), found.get('Modality', '')

    ct, mr = '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.4'
    assert completed(stored=ct) == (ct, 'CT') and completed(stored=mr) == (mr, 'MR')
    assert completed(stored=f'{ct}.1') == (f'{ct}.1', 'CT') and completed(stored='1.2.3') == ('1.2.3', '')
    assert completed(stored=ct, SOPClassUID=mr, Modality='PT') == (mr, 'PT'), 'what is said stays'
    assert completed() == ('', '') and completed(True) == (ct, '') and completed(True, Modality='MR') == (mr, 'MR')
    assert completed(True, SOPClassUID='1.2.3') == ('1.2.3', '')
    assert headers.complete_class(Dataset()).get('SOPClassUID') is None, 'without meta information'


# what is refused


def test_files_that_are_none(tmp_path, monkeypatch):
    def refused(path):
        with pytest.raises(DicomError) as error:
            read_header(path)
        return str(error.value)

    assert refused(tmp_path / 'a') == f'{tmp_path / "a"}: cannot be opened (No such file or directory)'
    assert refused(tmp_path) == f'{tmp_path}: not a regular file'
    os.mkfifo(tmp_path / 'pipe')
    assert refused(tmp_path / 'pipe') == f'{tmp_path / "pipe"}: not a regular file'
    (tmp_path / 'b').write_text('text')
    assert refused(tmp_path / 'b') == f'{tmp_path / "b"}: not a DICOM file (no DICM mark after the preamble)'
    (tmp_path / 'c').write_bytes(START + SYNTAX + END)
    assert refused(tmp_path / 'c') == (
        f'{tmp_path / "c"}: holds no picture (Rows and Columns are missing): another kind of DICOM file, or cut off in '
        'the header'
    )
    path = written(tmp_path / 'd')
    monkeypatch.setattr(headers, 'MAX_BYTES', path.stat().st_size)
    assert read_header(path).rows == 3, 'as large as is allowed'
    monkeypatch.setattr(headers, 'MAX_BYTES', path.stat().st_size - 1)
    assert refused(path) == f'{path}: 0.0 GiB, more than one image can hold'
    monkeypatch.undo()
    monkeypatch.setattr(headers, 'parse_plain_header', lambda block: 1 / 0)
    assert refused(path) == f'{path}: the header is damaged (ZeroDivisionError: division by zero)'
    monkeypatch.undo()
    whole, reading = os.listdir('/proc/self/fd'), os.pread

    def broken(*_):
        raise OSError(5, 'Input/output error')

    monkeypatch.setattr(os, 'pread', broken)
    assert refused(path) == f'{path}: cannot be read (Input/output error)'
    monkeypatch.setattr(os, 'pread', reading)
    assert len(os.listdir('/proc/self/fd')) == len(whole), 'no file is left open'


@pytest.mark.parametrize('rows, columns', [(0, 4), (3, 0)])
def test_pictures_without_a_side(tmp_path, rows, columns):
    path = written(tmp_path / 'a')
    whole = path.read_bytes()
    for tag, value in ((b'\x28\x00\x10\x00US\x02\x00', rows), (b'\x28\x00\x11\x00US\x02\x00', columns)):
        at = whole.index(tag) + len(tag)
        whole = whole[:at] + value.to_bytes(2, 'little') + whole[at + 2 :]
    path.write_bytes(whole)
    with pytest.raises(DicomError, match='holds no picture'):
        read_header(path)


# values by keyword

UNUSUAL = {
    'Modality': 'MR',
    'Rows': 7,
    'Columns': 9,
    'NumberOfFrames': '5',
    'SamplesPerPixel': 3,
    'BitsAllocated': 32,
    'BitsStored': 20,
    'HighBit': 25,
    'PixelRepresentation': 1,
    'PhotometricInterpretation': 'MONOCHROME1',
}


def test_a_header_from_nothing_and_from_the_unusual():
    assert headers._header('a', {}, 10, '1.2') == Header('a', size=10, syntax='1.2')
    found = headers._header('a', UNUSUAL, 10, '1.2', 99)
    wanted = Header('a', modality='MR', rows=7, columns=9, frames=5, samples=3, allocated=32, stored=20, high_bit=25)
    assert found == replace(wanted, signed=True, photometric='MONOCHROME1', size=10, syntax='1.2', pixels_at=99)
    assert headers._header('a', {'BitsStored': 12}, 1, '').high_bit == 11, 'the highest that holds them'
    assert headers._header('a', {'MediaStorageSOPClassUID': '1.2.840.10008.5.1.4.1.1.4'}, 1, '').modality == 'MR'
    for name, value in (('ImagePositionPatient', [1, 2]), ('PixelSpacing', [1, 2, 3]), ('RescaleSlope', [1, 2])):
        assert headers._header('a', {name: value}, 1, '').notes == (f'{name} is not usable',), name
    assert headers._header('a', {'WindowCenter': 40, 'WindowWidth': 400}, 1, '').windows == ((40, 400, ''),)
    assert headers._header('a', {'RescaleSlope': 'x'}, 1, '').slope is None


def test_look_up_tables_by_the_order_of_bytes():
    class Item:
        LUTDescriptor, LUTData = [2, 0, 16], b'\x01\x00\x02\x00'

    def table(syntax):
        return headers._header('a', {'ModalityLUTSequence': [Item]}, 1, syntax).modality_table[1].tolist()

    assert table('1.2.840.10008.1.2.1') == [1, 2] and table('1.2.840.10008.1.2.2') == [256, 512]


def test_one_row_and_one_column_are_a_picture(tmp_path):
    found = read_header(written(tmp_path / 'a', rows=1, columns=1))
    assert (found.rows, found.columns) == (1, 1)


def test_a_file_far_away_is_read_by_its_beginning(tmp_path, monkeypatch):
    path = written(tmp_path / 'a')
    whole, asked = path.read_bytes(), []

    def read_bytes(url, start=0, length=None):
        asked.append((url, start, length))
        return whole[start : None if length is None else start + length]

    monkeypatch.setattr(headers.remote, 'is_remote', lambda p: str(p).startswith('far://'))
    monkeypatch.setattr(headers.remote, 'read_bytes', read_bytes)
    monkeypatch.setattr(headers.remote, 'file_size', lambda url: {'far://a': len(whole)}[url])
    found = read_header('far://a')
    assert found == replace(read_header(path), path='far://a') and asked == [('far://a', 0, 1 << 14)]
    from ctlab.scans import dicom_pixels

    assert np.array_equal(dicom_pixels.read_pixels(found), read_pixels(read_header(path)))
    assert asked[1:] == [('far://a', found.pixels_at, None)], 'the pixels alone'
    assert np.array_equal(dicom_pixels.read_pixels(replace(found, pixels_at=0)), read_pixels(read_header(path)))
    assert asked[2:] == [('far://a', 0, None)], 'the whole file, where the quick way does not do'
    assert dicom_pixels._file_stamp('far://a') == len(whole) and dicom_pixels._file_stamp(path) != len(whole)


def test_a_large_file_is_called_by_its_size(tmp_path, monkeypatch):
    path = written(tmp_path / 'a')
    monkeypatch.setattr(headers, '_read_beginning', lambda *_: (b'', 3 << 30))
    with pytest.raises(DicomError, match=r'3\.0 GiB, more than one image can hold'):
        read_header(path)
