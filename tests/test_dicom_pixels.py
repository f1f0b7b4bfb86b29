"""From the bits of a file to HU and grey, and back into a file: rule by rule, with pydicom as referee."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from ctlab.scans import dicom_pixels as pixels
from ctlab.scans.dicom_header import DicomError, Header, read_header
from ctlab.scans.dicom_writer import SYNTAXES, SliceWriter, slice_tags, write_series
from ctlab.scans.volume import Volume, make_volume

# bits


@pytest.mark.parametrize(
    'raw, stored, high, signed, wanted',
    [
        ([0x0FFF, 0xF001], 12, 11, False, [4095, 1]),
        ([0x0FFF, 0x0801, 0xF7FF], 12, 11, True, [-1, -2047, 2047]),
        ([0x1230, 0xFFF0], 12, 15, False, [0x123, 4095]),
        ([0x8000, 0x7FF0], 12, 15, True, [-2048, 2047]),
        ([0x8000, 0x7FFF], 16, 15, True, [-32768, 32767]),
        ([0x8000, 0x7FFF], 16, 15, False, [32768, 32767]),
        ([1, 2], 12, 11, False, [1, 2]),
        ([0x3FFE], 12, 12, False, [0xFFF]),
        ([5], 12, 13, False, [1]),
        ([1], 1, 0, True, [-1]),
    ],
)
def test_bits_as_they_are_meant(raw, stored, high, signed, wanted):
    given = np.array(raw, np.uint16)
    found = pixels.unpack_stored_bits(given, stored, high, signed)
    assert found.astype(int).tolist() == wanted and given.tolist() == raw, 'and what was given is not changed'
    assert pixels.unpack_stored_bits(np.zeros(0, np.uint16), 12, 11, False).size == 0


@pytest.mark.parametrize('stored, high', [(0, 0), (17, 16), (12, 10), (12, 16), (12, -1)])
def test_bits_that_cannot_be(stored, high):
    with pytest.raises(DicomError) as error:
        pixels.unpack_stored_bits(np.zeros(2, np.uint16), stored, high, False)
    assert str(error.value) == f'BitsStored {stored} and HighBit {high} do not fit into 16 bits'


# HU


def test_hu_by_the_files_own_words():
    values = np.array([[0, 100, 4095]], np.uint16)

    def hu(**facts):
        return pixels.to_hounsfield(values, Header('a', **({'stored': 12} | facts)))

    assert hu(slope=1.0, intercept=-1024.0).tolist() == [[-1024, -924, 3071]]
    assert hu(slope=1.0, intercept=-1024.0).dtype == np.int16 == hu().dtype and hu().tolist() == [[0, 100, 4095]]
    assert hu(slope=1.0, intercept=0.5).dtype == np.float32 and hu(intercept=0.5).tolist() == [[0.5, 100.5, 4095.5]]
    assert hu(slope=2.0, intercept=-1.0).tolist() == [[-1, 199, 8189]] and hu(slope=2.0).dtype == np.float32
    assert hu(slope=0.0, intercept=7.0).tolist() == [[7, 7, 7]], 'a slope of zero is one, too'
    for stored, exact in ((14, True), (15, False)):
        assert (hu(stored=stored, slope=1.0, intercept=-1024.0).dtype == np.int16) == exact, 'int16 where all fit'
    for intercept, exact in ((32767.0, True), (32768.0, False), (-32768.0, False)):
        assert (hu(slope=1.0, intercept=intercept).dtype == np.int16) == exact
    assert pixels.to_hounsfield(values.astype(float), Header('a', stored=12)).dtype == np.float32
    for modality, moved in (('CT', True), ('', True), ('MR', False)):
        found = hu(modality=modality, rescale_type='mgml', slope=1.0, intercept=-24.0)[0, 0]
        assert found == (-1024 if moved else -24), 'a density of 1000 mg/mL is water'
    assert hu(rescale_type='HU', intercept=-24.0)[0, 0] == -24
    table = hu(modality_table=(100, np.array([5, 6, 7])), slope=3.0)
    assert table.tolist() == [[5, 5, 7]] and table.dtype == np.float32, 'a table is in place of slope and intercept'


def test_inverted_grey_is_turned():
    values = np.array([[0, 100, 4095]], np.uint16)
    turned = pixels.to_hounsfield(values, Header('a', stored=12, photometric='MONOCHROME1'))
    assert turned.tolist() == [[4095, 3995, 0]]
    signed = np.array([[-2048, 0, 2047]], np.int16)
    turned = pixels.to_hounsfield(signed, Header('a', stored=12, signed=True, photometric='MONOCHROME1', slope=2.0))
    assert turned.tolist() == [[4094, -2, -4096]]
    kept = pixels.to_hounsfield(values, Header('a', stored=12, photometric='MONOCHROME1', slope=-1.0))
    assert kept.tolist() == [[0, -100, -4095]], 'a negative slope has turned it'
    real = pixels.to_hounsfield(values.astype(np.float64), Header('a', stored=12, photometric='MONOCHROME1'))
    assert real.tolist() == [[4095, 3995, 0]]


# what is refused


def fine(**facts):
    return Header('a', **({'rows': 4, 'columns': 5, 'size': 1000, 'syntax': SYNTAXES['plain']} | facts))


@pytest.mark.parametrize(
    'facts, words',
    [
        (
            {'rows': pixels.MAX_SIDE + 1},
            f'a: claims {pixels.MAX_SIDE + 1} × 5 pixels; more than {pixels.MAX_SIDE} a side',
        ),
        ({'columns': pixels.MAX_SIDE + 1}, f'a: claims 4 × {pixels.MAX_SIDE + 1} pixels'),
        ({'samples': 3}, 'a: 3 samples per pixel; expected a grey image'),
        ({'frames': 2}, 'a: 2 frames in one file that says nothing of where each lies'),
        ({'allocated': 12, 'stored': 12}, 'a: 12 bits allocated; expected 8, 16 or 32'),
        ({'stored': 17}, 'a: 17 bits stored in 16'),
        ({'stored': 0}, 'a: 0 bits stored in 16'),
        ({'size': 39}, 'a: truncated, 40 bytes of pixels promised in a file of 39'),
        ({'size': 79, 'frames': 2, 'frame': 1}, 'a: truncated, 80 bytes of pixels promised in a file of 79'),
        (
            {'rows': 5000, 'columns': 5000, 'size': 8110, 'syntax': SYNTAXES['rle']},
            'a: 50000000 bytes of pixels cannot come from a file of 8110',
        ),
    ],
)
def test_what_cannot_be_one_grey_slice(facts, words):
    with pytest.raises(DicomError) as error:
        pixels.check_pixels(fine(**facts))
    assert str(error.value).startswith(words)


@pytest.mark.parametrize(
    'facts',
    [
        {},
        {'size': 40},
        {'size': 80, 'frames': 2, 'frame': 1},
        {'size': 39, 'syntax': SYNTAXES['rle']},
        {'allocated': 8, 'stored': 8, 'size': 20},
        {'allocated': 32, 'stored': 32, 'size': 80},
        {'stored': 1},
        {'stored': 16},
        {'rows': pixels.MAX_SIDE, 'columns': 1, 'size': 10**6},
        {'rows': 5000, 'columns': 5000, 'size': 8112, 'syntax': SYNTAXES['rle']},
    ],
)
def test_what_can_be(facts):
    pixels.check_pixels(fine(**facts))


# files


def series(folder, syntax='plain', shape=(1, 36, 40), **tags):
    rng = np.random.default_rng(0)
    volume = make_volume(rng.integers(-1024, 3072, shape).astype(np.int16), (3.0, 0.5, 0.7), (1, 2, 3))
    return volume, write_series(volume, folder, 'p', syntax=syntax, tags=tags)


@pytest.mark.parametrize('syntax', SYNTAXES)
def test_a_file_comes_back_as_it_was_and_as_pydicom_reads_it(tmp_path, syntax):
    volume, paths = series(tmp_path, syntax, (3, 36, 40))
    assert [p.name for p in paths] == ['1.dcm', '2.dcm', '3.dcm']
    for k, path in enumerate(paths):
        header, theirs = read_header(path), pydicom.dcmread(path)
        assert np.array_equal(pixels.read_pixels(header), volume.array[k])
        assert np.array_equal(apply_modality_lut(theirs.pixel_array, theirs), volume.array[k])
        stored = pixels.read_stored_values(header)
        assert np.array_equal(stored, theirs.pixel_array) and stored.flags.c_contiguous
        assert theirs.file_meta.TransferSyntaxUID == SYNTAXES[syntax]


def test_the_quick_way_gives_up_rather_than_guess(tmp_path):
    for syntax in ('plain', 'rle'):
        volume, (path,) = series(tmp_path / syntax, syntax)
        header = read_header(path)
        assert header.pixels_at and np.array_equal(pixels._decode_fast(header), volume.array[0] + 1024)
        whole = path.read_bytes()
        at = header.pixels_at
        assert whole[at : at + 4] == b'\xe0\x7f\x10\x00'

        def changed(where, what, whole=whole, header=header):
            other = Path(header.path).with_name('other')
            other.write_bytes(whole[:where] + what + whole[where + len(what) :])
            return replace(header, path=str(other))

        assert pixels._decode_fast(changed(at + 4, b'UN')) is None
        assert pixels._decode_fast(replace(header, syntax=SYNTAXES['jpeg2000'])) is None
        (path.parent / 'short').write_bytes(whole[: at + 11])
        assert pixels._decode_fast(replace(header, path=str(path.parent / 'short'))) is None
        if syntax == 'plain':
            assert pixels._decode_fast(changed(at + 8, (2 * 36 * 40 - 1).to_bytes(4, 'little'))) is None, (
                'a byte too few'
            )
        else:
            for where in (at + 8, at + 12):
                assert pixels._decode_fast(changed(where, b'\0\0\0\0')) is None
            assert pixels._decode_fast(changed(len(whole) - 8, b'\xfe\xff\x00\xe0')) is None, 'a second fragment'


def test_what_cannot_be_decoded_is_said(tmp_path):
    _, (path,) = series(tmp_path, 'jpeg2000')
    whole = path.read_bytes()
    start = whole.index(b'\xff\x4f\xff\x51')
    path.write_bytes(whole[: start + 8] + bytes(len(whole) - start - 8))
    with pytest.raises(DicomError) as error:
        pixels.read_stored_values(read_header(path))
    assert str(error.value).startswith(f'{path}: the pixels cannot be decoded (')
    _, (path,) = series(tmp_path / 'b', 'rle')
    header = replace(read_header(path), rows=40, columns=36, pixels_at=0)
    with pytest.raises(DicomError) as error:
        pixels.read_stored_values(header)
    assert str(error.value) == f'{path}: decoded to (36, 40), the header promised (40, 36)'


def test_decoders_are_silent_and_stderr_comes_back(capfd):
    import os

    with pytest.raises(ZeroDivisionError), pixels.silence_decoders():
        os.write(2, b'noise')
        _ = 1 / 0
    os.write(2, b'speech')
    assert capfd.readouterr().err == 'speech'
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(20):
        with pixels.silence_decoders():
            pass
    assert len(os.listdir('/proc/self/fd')) == before, 'no file is left open'


# grey


@pytest.mark.parametrize('function', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
@pytest.mark.parametrize('window', [(40, 400), (-600, 1500), (50.5, 2)])
def test_grey_as_pydicom_shows_it(function, window):
    values = np.linspace(-1024, 3071, 300).astype(np.float32)[None]
    header = Header('a', windows=((1, 2, ''), (*window, '')), voi_function=function)
    theirs = pydicom.Dataset()
    theirs.WindowCenter, theirs.WindowWidth, theirs.VOILUTFunction = *window, function
    theirs.PhotometricInterpretation, theirs.BitsStored, theirs.PixelRepresentation = 'MONOCHROME2', 16, 1
    theirs.RescaleSlope, theirs.RescaleIntercept = 1, 0
    shown = apply_voi_lut(values.astype(float), theirs)
    found = pixels.to_display(values, header, 1)
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1
    assert np.allclose(found, (shown + 32768) / 65535, atol=1e-4)
    assert np.array_equal(pixels.to_display(values, header, 9), found), 'the last where there are not so many'


def test_a_step_and_tables_and_nothing():
    step = pixels.to_display(np.array([[-1.0, 0.0, 1.0]], np.float32), Header('a', windows=((0.5, 1, ''),)))
    assert step.tolist() == [[0, 0.5, 1]], 'a window of one is a threshold'
    table = Header('a', voi_table=(10, np.array([0, 50, 200])), windows=((0, 1, ''),))
    assert pixels.to_display(np.array([[9, 10.6, 12, 99]]), table).tolist() == [[0, 0.25, 1, 1]]
    dark = Header('a', voi_table=(0, np.array([0.0, 0.5])))
    assert pixels.to_display(np.array([[0, 1]]), dark).tolist() == [[0, 0.5]]
    with pytest.raises(DicomError) as error:
        pixels.to_display(np.zeros((1, 1)), Header('a'))
    assert str(error.value) == 'a: offers neither a window nor a VOI table'


# the writer


def test_what_a_written_slice_says(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = [[0, 0.5, 0], [0.7, 0, 0], [0, 0, -3.0]]
    affine[:3, 3] = (1 / 3, -2, 1e-9)
    volume = Volume(np.zeros((2, 4, 5), np.int16), affine)
    tags = slice_tags(volume, 1, '1.2.3', 7)
    assert tags['ImagePositionPatient'] == ['0.3333333333', '-2', '-2.999999999']
    assert tags['ImageOrientationPatient'] == ['0', '1', '0', '1', '0', '0']
    assert tags['PixelSpacing'] == ['0.5', '0.7'] and tags['SliceThickness'] == '3'
    assert (tags['SOPInstanceUID'], tags['SeriesInstanceUID'], tags['StudyInstanceUID']) == ('1.2.3.7', '1.2.3', '1.2')
    assert (tags['FrameOfReferenceUID'], tags['SeriesNumber'], tags['InstanceNumber']) == ('1.2.3.0', 1, 7)
    assert all(len(v) <= 16 for v in tags['ImagePositionPatient'])
    same = {'PatientPosition': 'HFS', 'RescaleSlope': '1', 'RescaleIntercept': '-1024', 'RescaleType': 'HU'}
    assert {k: tags[k] for k in same} == same and (tags['KVP'], tags['WindowCenter'], tags['WindowWidth']) == (
        *('120', '50', '400'),
    )


def test_a_written_series(tmp_path):
    volume = make_volume(np.array([[[-2000.4, -1024, 0.5, 1.5, 3071, 9000]]], np.float32), (1.0, 1.0, 1.0))
    (path,) = write_series(volume, tmp_path / 'a' / 'b', tags={'Modality': 'CT', 'SeriesDescription': 'x'})
    found = pydicom.dcmread(path)
    assert (found.pixel_array.astype(int) - 1024).tolist() == [[-1024, -1024, 0, 2, 3071, 3071]], (
        'clipped, and rounded to even'
    )
    assert found.PatientID == 'anonymous' and found.SeriesDescription == 'x' and found.SOPClassUID.name.startswith('CT')
    assert (found.BitsAllocated, found.BitsStored, found.HighBit, found.PixelRepresentation) == (16, 12, 11, 0)
    assert found.SamplesPerPixel == 1 and found.PhotometricInterpretation == 'MONOCHROME2'
    meta = found.file_meta
    assert meta.MediaStorageSOPInstanceUID == found.SOPInstanceUID and meta.MediaStorageSOPClassUID == found.SOPClassUID
    assert meta.ImplementationVersionName == 'CTLAB' and meta.FileMetaInformationVersion == b'\0\1'
    assert meta.ImplementationClassUID == '1.2.826.0.1.3680043.8.498.1'
    again = pydicom.dcmread(write_series(volume, tmp_path / 'c')[0])
    assert again.SeriesInstanceUID == found.SeriesInstanceUID and len(found.SOPInstanceUID) <= 64
    others = [(volume, 'q'), (make_volume(volume.array, (2.0, 1.0, 1.0)), 'anonymous')]
    others.append((make_volume(np.zeros((1, 2, 2)), (1.0, 1.0, 1.0)), 'anonymous'))
    for k, (scan, patient) in enumerate(others):
        other = pydicom.dcmread(write_series(scan, tmp_path / f'd{k}', patient)[0])
        assert other.SeriesInstanceUID != found.SeriesInstanceUID, 'patient, place and size make the UID'
    named = pydicom.dcmread(write_series(volume, tmp_path / 'e', series_uid='1.2.3')[0])
    assert named.SeriesInstanceUID == '1.2.3' and named.StudyInstanceUID == '1.2'


def test_a_writer_goes_on_with_other_tags_and_sizes(tmp_path):
    writer = SliceWriter('plain', full=False)
    common = {'SOPInstanceUID': '1.2.3', 'RescaleSlope': '1'}
    writer.write(tmp_path / '1', np.arange(6, dtype=np.uint16).reshape(2, 3), common | {'PatientID': 'a'})
    writer.write(tmp_path / '2', np.arange(8, dtype=np.uint16).reshape(4, 2), common | {'SOPInstanceUID': '1.2.4'})
    one, two = (pydicom.dcmread(tmp_path / n) for n in '12')
    assert (
        'SOPClassUID' not in one
        and 'Modality' not in one
        and one.file_meta.MediaStorageSOPClassUID.name.startswith('CT')
    )
    assert one.pixel_array.tolist() == [[0, 1, 2], [3, 4, 5]] and (two.Rows, two.Columns) == (4, 2)
    assert two.SOPInstanceUID == two.file_meta.MediaStorageSOPInstanceUID == '1.2.4'
    assert one['PixelData'].VR == 'OW' and pydicom.dcmread(series(tmp_path, 'rle')[1][0])['PixelData'].VR == 'OB'


def test_signed_values_in_jpeg2000(tmp_path):
    writer = SliceWriter('jpeg2000')
    writer.dataset.PixelRepresentation = 1
    values = np.array([[-2048, -1, 0, 2047] * 9] * 36, np.int16)
    writer.write(tmp_path / 'a', (values & 0x0FFF).astype(np.uint16), {'SOPInstanceUID': '1.2'})
    assert pydicom.dcmread(tmp_path / 'a').pixel_array.tolist() == values.tolist()


# files of many frames, and what few decoders read


def many_frames(path, syntax, frames):
    """Write frames into one file."""
    from pydicom.encaps import encapsulate

    SliceWriter('plain').write(path, frames[0], {'SOPInstanceUID': '1.2.3'})
    made = pydicom.dcmread(path)
    made.NumberOfFrames = len(frames)
    if syntax == 'plain':
        made.PixelData = frames.tobytes()
    else:
        from rle.utils import encode_array

        made.file_meta.TransferSyntaxUID = SYNTAXES['rle']
        made.NumberOfFrames = 1  # of what is encoded at a time
        made.PixelData = encapsulate([next(encode_array(f, made)) for f in frames])
        made.NumberOfFrames = len(frames)
        made['PixelData'].VR = 'OB'
    made.save_as(path)


@pytest.mark.parametrize('syntax', ['plain', 'rle'])
def test_frames_of_one_file(tmp_path, monkeypatch, syntax):
    frames = np.random.default_rng(0).integers(0, 4096, (5, 8, 9)).astype('<u2')
    many_frames(tmp_path / 'a', syntax, frames)
    whole = replace(read_header(tmp_path / 'a'), pixels_at=0)
    parsed, reading = [], pixels._parsed_file
    monkeypatch.setattr(pixels, '_parsed_file', lambda path: parsed.append(path) or reading(path))
    pixels._open_file.cache_clear()
    for k in (3, 0, 4, 1, 2):
        assert np.array_equal(pixels.read_stored_values(replace(whole, frame=k)), frames[k]), k
    assert parsed == [whole.path], 'parsed once for all of its frames'
    many_frames(tmp_path / 'a', syntax, frames[::-1].copy())
    import os

    os.utime(tmp_path / 'a', ns=(1, 1))
    assert np.array_equal(pixels.read_stored_values(replace(whole, frame=0)), frames[4]), 'a changed file is read again'
    assert len(parsed) == 2
    with pytest.raises(DicomError, match='cannot be decoded'):
        pixels.read_stored_values(replace(whole, frame=5, frames=6, size=10**6))


def test_lossy_jpeg_of_twelve_bits_goes_to_its_own_decoder(tmp_path, monkeypatch):
    _, (path,) = series(tmp_path, 'jpeg2000')
    made = pydicom.dcmread(path)
    made.file_meta.TransferSyntaxUID = pixels._EXTENDED
    made.save_as(path)
    header, asked = read_header(path), []
    import dicomsdl

    class Opened:
        def pixelData(self, index, storedvalue):  # noqa: N802, the library's own name
            asked.append((index, storedvalue))
            return np.full((36, 40), 7, np.uint16)

    monkeypatch.setattr(dicomsdl, 'open', lambda p: asked.append(p) or Opened())
    assert (pixels.read_stored_values(header) == 7).all() and asked == [str(path), (0, True)]
    made.BitsStored = 8
    made.BitsAllocated, made.HighBit = 8, 7
    made.save_as(path)
    with pytest.raises(DicomError, match='cannot be decoded'):
        pixels.read_stored_values(read_header(path))
    assert len(asked) == 2, 'eight bits are read as all others'


def test_quick_pixels_are_used_where_they_can_be(tmp_path, monkeypatch):
    _, (path,) = series(tmp_path)
    header, slow = read_header(path), []
    monkeypatch.setattr(pixels, '_decode', lambda *a: slow.append(a) or np.zeros((36, 40), np.uint16))
    assert pixels.read_stored_values(header).any() and not slow
    assert not pixels.read_stored_values(replace(header, pixels_at=0)).any() and slow == [(str(path), None)]
    monkeypatch.setattr(pixels, '_decode', lambda *a: [][1])
    with pytest.raises(DicomError) as error:
        pixels.read_stored_values(replace(header, pixels_at=0))
    assert str(error.value).endswith('the pixels cannot be decoded (IndexError: list index out of range)')


def test_an_inverted_picture_of_sixteen_bits_does_not_overflow():
    values = np.array([[0, 65535]], np.uint16)
    turned = pixels.to_hounsfield(values, Header('a', stored=16, photometric='MONOCHROME1'))
    assert turned.tolist() == [[65535, 0]]
    signed = np.array([[-32768, 32767]], np.int16)
    turned = pixels.to_hounsfield(signed, Header('a', stored=16, signed=True, photometric='MONOCHROME1'))
    assert turned.tolist() == [[32767, -32768]]
    flat = pixels.to_hounsfield(values, Header('a', stored=16, photometric='MONOCHROME1', slope=0.0, intercept=3.0))
    assert flat.tolist() == [[3, 3]]
    assert pixels.to_hounsfield(np.array([[5]], np.uint8), Header('a', stored=8)).dtype == np.int16


def test_the_first_window_is_shown_unless_another_is_asked_for():
    header = Header('a', windows=((0, 2, ''), (100, 2, '')), voi_function='LINEAR_EXACT')
    assert pixels.to_display(np.array([[0.0, 100.0]]), header).tolist() == [[0.5, 1]]
    narrow = Header('a', windows=((0.5, 1.5, ''),))
    assert pixels.to_display(np.array([[0.125]]), narrow).tolist() == [[0.75]]
    assert pixels.to_display(np.array([[1]]), Header('a', voi_table=(0, np.array([0, 1])))).dtype == np.float32
