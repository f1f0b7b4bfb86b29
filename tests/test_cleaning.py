"""Cleaning, fact by fact: series of a known fault each, every threshold from both sides, every decision to the word."""

import json

import numpy as np
import pandas as pd
import pydicom
import pytest

from ctlab.cohort import cleaning
from ctlab.cohort.cleaning import (
    FAULT_CAUSES,
    black_fraction,
    classify_series,
    clean_cohort,
    decisions_path,
    examine_series,
    fault_causes,
    read_repaired,
    usable_series,
)
from ctlab.cohort.stacks import SharedReading, StackPreprocessing, prepare
from ctlab.scans import dicom
from ctlab.scans.dicom import DicomError, write_series
from ctlab.scans.volume import make_volume

SOUND = {
    'files': 10,
    'unreadable': 0,
    'slices': 10,
    'missing': 0,
    'tilt': 0.0,
    'localisers': 0,
    'strangers': 0,
    'acquisitions': 1,
    'duplicates': 0,
    'spacings': 1,
    'frames': False,
    'signed': False,
    'photometric': 'MONOCHROME2',
    'windows': 1,
    'unit': 'HU',
    'window': [-150, 250],
    'numbered': True,
    'text_order': False,
    'constant': 0,
    'negative': 0,
    'black': 0.0,
    'body': 0.4,
    'chest': 0.1,
    'in_window': 0.9,
    'blackness': 0.3,
    'reason': '',
}


def body(n=12, size=48, seed=0):
    """Make a round body of water in air, with noise."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = x**2 + y**2 < (0.35 * size) ** 2
    noise = np.random.default_rng(seed).integers(-20, 20, (n, size, size))
    return make_volume(np.where(inside, 40, -1000).astype(np.int16) + noise.astype(np.int16) * inside, (3.0, 2.0, 2.0))


@pytest.fixture
def series(tmp_path):
    """Write a series, let something happen to its files, examine it."""

    def make(change=None, volume=None, **options):
        folder = tmp_path / 'series'
        paths = write_series(volume or body(), folder, **options)
        for k, path in enumerate(paths):
            ds = pydicom.dcmread(path)
            if change and change(k, ds, path) is False:
                continue
            if path.exists():
                ds.save_as(path)
        return folder

    return make


def test_how_black_pictures_are():
    assert black_fraction(np.array([[0, 0], [1, 0]])) == 0.75
    assert black_fraction(np.array([[[0, 0], [0, 0]], [[0, 1], [2, 3]]])).tolist() == [1.0, 0.25]


def test_a_sound_series(series):
    facts = examine_series(series())
    # a window of (50, 400) shows the body; numbers follow the position
    assert {
        k: facts[k] for k in SOUND if k not in ('body', 'chest', 'in_window', 'blackness', 'black', 'text_order')
    } == {
        **{k: SOUND[k] for k in SOUND if k not in ('body', 'chest', 'in_window', 'blackness', 'black', 'text_order')},
        'files': 12,
        'slices': 12,
        'window': [-150.0, 250.0],
    }
    assert (
        facts['body'] == pytest.approx(np.pi * 0.35**2, abs=0.03) and facts['chest'] == 0 and facts['in_window'] > 0.9
    )
    assert 0.5 < facts['blackness'] < 0.7 and facts['black'] == 0 and fault_causes(facts) == []


@pytest.mark.parametrize(
    'numbers, numbered, text',
    [
        ([1, 2, 3], True, True),
        ([3, 2, 1], True, True),
        ([1, 3, 2], False, False),
        ([1, 10, 2], False, True),
        ([2, 10, 1], False, True),
        ([1, 2, 2], False, True),
        ([1, None, 2, 3], True, True),
        ([2, 1], True, True),
        ([], True, True),
        ([9, 10], True, True),
        ([9, 10, 11], True, False),
        ([None, 2], True, True),
        ([3, 1], True, True),
    ],
)
def test_the_order_of_numbers(numbers, numbered, text):
    assert cleaning._numbering(numbers) == {'numbered': numbered, 'text_order': text}


@pytest.mark.parametrize(
    'change, wanted',
    [
        ({}, []),
        ({'slices': 0}, ['unreadable']),
        ({'unreadable': 10}, ['unreadable']),
        ({'unreadable': 9}, ['truncated']),
        ({'body': 0.019}, ['empty']),
        ({'body': 0.02}, []),
        ({'chest': 0.8}, []),
        ({'chest': 0.81}, ['wrong_part']),
        ({'signed': True}, []),
        ({'negative': 3}, []),
        ({'signed': True, 'negative': 1}, ['sign']),
        ({'photometric': 'MONOCHROME1'}, ['monochrome1']),
        ({'unit': ''}, []),
        ({'unit': 'hu'}, []),
        ({'unit': 'MGML'}, ['units']),
        ({'in_window': 0.049}, ['wrong_window']),
        ({'in_window': 0.05}, []),
        ({'in_window': 0.0, 'window': None}, []),
        ({'in_window': 0.0, 'body': 0.01}, ['empty']),
        ({'windows': 2}, ['windows']),
        ({'windows': 0}, []),
        ({'constant': 1}, ['constant']),
        ({'unreadable': 1}, ['truncated']),
        ({'missing': 1}, ['missing']),
        ({'missing': 3, 'slices': 9}, ['missing']),
        ({'missing': 4, 'slices': 10}, ['gap']),
        ({'duplicates': 1}, ['duplicate']),
        ({'strangers': 1}, ['foreign']),
        ({'tilt': 0.5}, []),
        ({'tilt': 0.51}, ['tilt']),
        ({'numbered': False}, ['text_names']),
        ({'numbered': False, 'duplicates': 2}, ['duplicate']),
        ({'spacings': 2}, ['spacing']),
        ({'acquisitions': 2}, ['repeated']),
        ({'localisers': 1}, ['localiser']),
        ({'frames': True}, ['multiframe']),
        ({'frames': True, 'missing': 1, 'unit': 'MGML', 'body': 0.0}, ['empty', 'units', 'missing', 'multiframe']),
    ],
)
def test_every_cause_from_both_sides(change, wanted):
    assert fault_causes(SOUND | change) == wanted


def test_limits_may_be_others():
    assert fault_causes(SOUND | {'body': 0.1}, least_body=0.2) == ['empty'] and fault_causes(
        SOUND, most_chest=0.05
    ) == ['wrong_part']
    assert fault_causes(SOUND, least_window=0.95) == ['wrong_window'] and fault_causes(
        SOUND | {'missing': 1}, most_missing=0.01
    ) == ['gap']


def test_decisions_in_words():
    assert classify_series([]) == ('keep', '')
    assert classify_series(['tilt', 'windows']) == (
        'recovered',
        'a tilted gantry: shift upright; several windows offered: use the first window',
    )
    assert classify_series(['gap', 'tilt', 'empty']) == (
        'set aside',
        'more than a quarter of the slices missing; no patient on the couch',
    )
    for name, (remedy, words) in FAULT_CAUSES.items():
        assert classify_series([name]) == (('recovered', f'{words}: {remedy}') if remedy else ('set aside', words))


def tagged(**tags):
    def change(k, ds, path):
        for name, value in tags.items():
            setattr(ds, name, value)

    return change


@pytest.mark.parametrize(
    'tags, fact',
    [
        ({'PhotometricInterpretation': 'MONOCHROME1'}, {'photometric': 'MONOCHROME1'}),
        ({'WindowCenter': [40, -600], 'WindowWidth': [400, 1500]}, {'windows': 2, 'window': [-160.0, 240.0]}),
        ({'RescaleType': 'MGML'}, {'unit': 'MGML'}),
        ({'RescaleType': 'US', 'Modality': 'MR'}, {'unit': ''}),
        ({'WindowCenter': None, 'WindowWidth': None}, {'windows': 0, 'window': None, 'in_window': 0.0}),
        ({'WindowCenter': '2600', 'WindowWidth': '200'}, {'window': [2500.0, 2700.0], 'in_window': 0.0}),
        ({'PixelRepresentation': 1, 'RescaleIntercept': '0'}, {'signed': True}),
        ({'BitsStored': 16, 'HighBit': 15, 'PixelRepresentation': 1}, {'signed': False}),
    ],
)
def test_what_the_header_says(series, tags, fact):
    facts = examine_series(series(tagged(**tags)))
    assert {k: facts[k] for k in fact} == fact


def test_signs_that_are_not_extended(series):
    def clip(k, ds, path):
        stored = np.frombuffer(ds.PixelData, '<u2').astype(np.int16) - 1024
        ds.PixelRepresentation, ds.RescaleIntercept = 1, '0'
        ds.PixelData = ((stored & 0x0FFF) if k < 7 else stored).astype('<i2').tobytes()

    facts = examine_series(series(clip, syntax='plain'))
    assert (facts['signed'], facts['negative']) == (True, 7) and fault_causes(facts) == ['sign']


def test_slices_that_are_not_there_twice_there_or_somebody_else_s(series):
    def change(k, ds, path):
        if k == 3:
            path.unlink()
        if k == 5:
            ds.SOPInstanceUID += '.9'
            ds.save_as(path.with_name('twice.dcm'))
            return False
        if k == 7:
            ds.SeriesInstanceUID += '.9'
            ds.save_as(path.with_name('stranger.dcm'))
            return False
        if k == 8:
            ds.ImageType = ['ORIGINAL', 'PRIMARY', 'LOCALIZER']
            ds.save_as(path.with_name('scout.dcm'))
            return False

    facts = examine_series(series(change))
    wanted = {'files': 14, 'slices': 11, 'missing': 1, 'duplicates': 1, 'strangers': 1, 'localisers': 1}
    assert {k: facts[k] for k in wanted} == wanted


def test_slices_that_cannot_be_read_or_hold_one_value(series):
    def change(k, ds, path):
        if k == 2:
            path.write_bytes(path.read_bytes()[:-200])
            return False
        if k == 4:
            path.write_bytes(b'no DICOM')
            return False
        if k in (6, 7):
            ds.PixelData = (1024 + np.zeros(48 * 48, '<u2')).tobytes()

    facts = examine_series(series(change, syntax='plain'))
    assert (facts['files'], facts['unreadable'], facts['constant'], facts['slices']) == (12, 2, 2, 11)
    assert 'not a DICOM file' in facts['reason'] and fault_causes(facts) == ['constant', 'truncated', 'missing']


def test_nothing_to_read(tmp_path, series):
    (tmp_path / 'none').mkdir()
    assert examine_series(tmp_path / 'none') == {'files': 0, 'unreadable': 0, 'reason': '', 'slices': 0}
    (tmp_path / 'none' / 'a.dcm').write_bytes(b'x')
    facts = examine_series(tmp_path / 'none')
    assert (facts['files'], facts['unreadable'], facts['slices']) == (1, 1, 0) and facts['reason']
    lost = examine_series(series(tagged(ImagePositionPatient=None)))
    assert lost['slices'] == 0 and 'no slice of the series has a position' in lost['reason'] and lost['files'] == 12

    def black(k, ds, path):
        ds.PixelData = bytes(48 * 48 * 2)

    facts = examine_series(series(black, syntax='plain'))
    assert (facts['constant'], facts['black'], facts['blackness'], facts['body'], facts['chest']) == (
        12,
        1.0,
        1.0,
        0.0,
        0.0,
    )


def test_black_slices_by_the_published_rule(series):
    def dark(k, ds, path):
        pixels = np.zeros((48, 48), '<u2')
        pixels[: 2 if k < 3 else 1, 0] = 2000
        ds.PixelData = pixels.tobytes()

    folder = series(dark, syntax='plain')
    share = 1 - 2 / 48**2
    assert examine_series(folder)['black'] == 1.0 and examine_series(folder, black=share)['black'] == 1.0
    assert examine_series(folder, black=share + 1e-9)['black'] == pytest.approx(0.75)


def inner_air(small, inside):
    """Compute the share of air in one slice."""
    return cleaning._inner_air(small[None], inside[None])[0]


def test_air_within_the_body():
    small = np.full((64, 64), -1000.0)
    small[10:54, 10:54] = 40
    assert inner_air(small, small > -250) == 0
    small[20:42, 20:42] = -800
    assert inner_air(small, small > -250) == pytest.approx(22**2 / 44**2)
    small[0, 0] = 40
    assert inner_air(small, small > -250) == pytest.approx(22**2 / 44**2), 'the largest part alone'
    small[20:42, 20:42] = -400
    assert inner_air(small, small > -250) == 0, 'fat is no air'
    assert inner_air(small, small > 999) == 0


def test_air_is_measured_slice_by_slice():
    """Against SciPy's filling of holes in each slice alone: parts of any form, at the edge, none at all."""
    from scipy.ndimage import binary_fill_holes, gaussian_filter, label

    rng = np.random.default_rng(1)
    small = gaussian_filter(rng.normal(0, 1, (60, 64, 64)), (0, 3, 3)) * 6000 - rng.uniform(0, 900, (60, 1, 1))
    small[7], small[8] = -1000, 40
    inside = small > -250
    for k, found in enumerate(cleaning._inner_air(small, inside)):
        parts, n = label(inside[k])
        outline = binary_fill_holes(parts == np.bincount(parts.ravel())[1:].argmax() + 1) if n else parts > 0
        assert found == (outline & (small[k] < -400)).sum() / max(1, outline.sum())


def test_a_chest_is_known_by_its_air(series):
    scan = body()
    scan.array[:, 12:36, 14:22] = scan.array[:, 12:36, 26:34] = -800
    facts = examine_series(series(volume=scan))
    assert facts['chest'] == 1.0 and fault_causes(facts) == ['wrong_part']


@pytest.fixture
def cohort(tmp_path):
    root = tmp_path / 'cohort'
    for k in (1, 2, 3):
        write_series(body(seed=k), root / 'train_images' / str(k) / str(10 + k), str(k))
    for path in (root / 'train_images' / '2' / '12').iterdir():
        path.write_bytes(b'x')
    for path in (root / 'train_images' / '3' / '13').iterdir():
        ds = pydicom.dcmread(path)
        ds.WindowCenter, ds.WindowWidth = [50, 60], [400, 500]
        ds.save_as(path)
    return root


def test_a_cohort_is_examined_once(cohort, tmp_path, monkeypatch):
    table = clean_cohort(cohort, tmp_path / 'work', workers=1, progress=False)
    columns = 'patient_id series_id slices blackness black_share published causes decision reason'
    assert list(table.columns) == columns.split() and table['series_id'].tolist() == [11, 12, 13]
    assert table['decision'].tolist() == ['keep', 'set aside', 'recovered']
    assert table['causes'].tolist() == ['', 'unreadable', 'windows'] and table['slices'].tolist() == [12, 0, 12]
    assert table['black_share'].tolist() == [0.0, 1.0, 0.0]
    assert table['published'].tolist() == ['kept', 'deleted', 'kept']
    assert 'not a DICOM file' in table['reason'].iloc[1] and table['blackness'].iloc[1] == 1.0
    path = decisions_path(cohort, tmp_path / 'work')
    assert path.parent == tmp_path / 'work' / 'cleaning' and path.name.startswith('cohort') and path.suffix == '.csv'
    assert usable_series(table) == {11, 13}
    stored = path.read_text()
    path.write_text(stored.replace('windows', 'marked'))
    again = clean_cohort(str(cohort), tmp_path / 'work', workers=1, progress=False)
    assert again['causes'].tolist() == ['', 'unreadable', 'marked'] and again['reason'].iloc[0] == '', (
        'what is stored is used'
    )
    for options in ({'black': 0.97}, {'scan_black': 0.7}):
        assert (
            clean_cohort(cohort, tmp_path / 'work', workers=1, progress=False, **options)['causes'].iloc[2] == 'windows'
        )
        path.write_text(stored.replace('windows', 'marked'))
    clean_cohort(cohort, tmp_path / 'work', workers=1, progress=False)
    (cohort / 'train_images' / '1' / '11' / '1.dcm').unlink()
    assert clean_cohort(cohort, tmp_path / 'work', workers=1, progress=False)['slices'].iloc[0] == 11, (
        'another file, another look'
    )
    assert clean_cohort(cohort, None, workers=1, progress=False)['slices'].tolist() == [11, 0, 12]
    assert (
        clean_cohort(cohort, None, scan_black=0.0, workers=1, progress=False)['published'].tolist() == ['deleted'] * 3
    )
    key = json.loads(path.with_suffix('.json').read_text())
    assert key[:3] == [2, 0.98, 0.78] and len(key[3]) == 40


def test_one_reading_serves_decisions_and_stacks(cohort, tmp_path, monkeypatch):
    """Same decisions, same stacks, and every slice is decoded once."""
    how = StackPreprocessing(spacing=6.0, size=16)
    apart, together = tmp_path / 'apart', tmp_path / 'together'
    table = clean_cohort(cohort, apart, workers=1, progress=False)
    stacks = prepare(cohort, apart, how, workers=1, progress=False)
    decoded = []
    decode = dicom.read_stored_values
    monkeypatch.setattr(dicom, 'read_stored_values', lambda header: decoded.append(header.path) or decode(header))
    pd.testing.assert_frame_equal(
        clean_cohort(cohort, together, workers=1, progress=False, preprocessing=how), table, check_dtype=False
    )
    assert len(decoded) == len(set(decoded)) == 24, 'twelve slices of two series, once'
    both = prepare(cohort, together, how, workers=1, progress=False)
    assert len(decoded) == 24, 'there already'
    pd.testing.assert_frame_equal(both.table, stacks.table)
    for name in stacks.table['stack'][stacks.table['stack'] != '']:
        assert (np.load(both.folder / name) == np.load(stacks.folder / name)).all()
    again = clean_cohort(cohort, together, workers=1, progress=False, preprocessing=StackPreprocessing(size=8))
    assert again['decision'].tolist() == table['decision'].tolist() and len(decoded) == 24, 'decided already'


def test_a_shared_reading_keeps_no_more_than_it_may(series):
    reading = SharedReading(series(), 3 * 48 * 48 * 2 + 1)
    headers, bad = reading.headers
    first = [reading.keep(h) for h in headers]
    assert len(reading.kept) == 3 and not bad
    assert all((reading.take(h) == raw).all() for h, raw in zip(headers, first)) and not reading.kept


def test_a_series_whose_worker_dies_is_set_aside():
    row = cleaning._crashed_decision(({'patient_id': 1, 'series_id': 2, 'folder': 'x'}, 0.98, 0.78), 'the worker died')
    assert (row['decision'], row['reason'], row['causes']) == (
        'set aside',
        'the worker died; delete the list of decisions to have it examined again',
        'unreadable',
    )


def test_a_series_that_breaks_the_reader_is_set_aside(monkeypatch):
    def broken(folder, black, reading):
        raise ZeroDivisionError('odd')

    monkeypatch.setattr(cleaning, 'examine_series', broken)
    row = cleaning._examine_task(({'patient_id': 1, 'series_id': 2, 'folder': 'x'}, 0.98, 0.78))
    assert (row['decision'], row['reason'], row['slices'], row['published']) == (
        'set aside',
        'ZeroDivisionError: odd',
        0,
        'deleted',
    )


def test_flat_slices_become_what_lies_between(series):
    scan = body()
    flat = [0, 4, 5, 11]
    scan.array[flat] = 0
    volume = read_repaired(series(volume=scan))
    assert volume.meta['filled'] == flat and '4 slices of a single value interpolated' in volume.meta['warnings']
    assert np.array_equal(volume.array[0], scan.array[1]) and np.array_equal(volume.array[11], scan.array[10])
    before, after = scan.array[3].astype(float), scan.array[6].astype(float)
    for k, share in ((4, 1 / 3), (5, 2 / 3)):
        assert np.abs(volume.array[k] - (before + (after - before) * share)).max() <= 0.5
    assert np.array_equal(volume.array[7], scan.array[7])


def test_a_sound_series_is_as_read_and_an_empty_one_refused(tmp_path):
    folder = tmp_path / 'a'
    write_series(body(), folder)
    volume = read_repaired(folder)
    assert volume.meta['filled'] == [] and np.array_equal(volume.array, body().array)
    write_series(make_volume(np.zeros((4, 8, 8), np.int16)), tmp_path / 'b')
    with pytest.raises(DicomError) as error:
        read_repaired(tmp_path / 'b')
    assert str(error.value) == f'{tmp_path / "b"}: every slice holds a single value'

    def gone(k):
        return (tmp_path / 'a' / f'{k}.dcm').unlink()

    gone(5)
    assert read_repaired(folder).meta['filled'] == [4]


def test_which_series_may_be_used():
    table = pd.DataFrame({'series_id': [1, 2, 3], 'decision': ['keep', 'recovered', 'set aside']})
    assert usable_series(table) == {1, 2}
