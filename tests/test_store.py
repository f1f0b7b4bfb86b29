"""The store of objects: what is kept, refused, found and mended, to the word; each with objects of a few bytes."""

import errno
import hashlib
import io
import json
import os
import random
import sqlite3
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset

from ctlab.network import store as module
from ctlab.network.store import (
    COUNT_ATTRIBUTES,
    LEVELS,
    InvalidUidError,
    ObjectRefusedError,
    Store,
    describe_object,
    matches_key,
)
from ctlab.scans.deidentify import Pseudonyms

CT, SR = '1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.88.34'
PLAIN = '1.2.840.10008.1.2.1'


def item(patient='Jane', study='1.1', series='1.1.1', uid='1.1.1.1', sop=CT, syntax=PLAIN, pixels=b'\1\0\2\0', **more):
    """Make a DICOM file of one by two pixels."""
    ds = Dataset()
    ds.preamble = b'\0' * 128
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.file_meta.MediaStorageSOPClassUID = syntax, sop
    ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.SOPClassUID, ds.PatientID, ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = (
        sop,
        patient,
        study,
        series,
        uid,
    )
    ds.Modality, ds.InstanceNumber, ds.PatientName = 'CT' if sop == CT else 'SR', uid.split('.')[-1], f'{patient}^Doe'
    ds.StudyDate = '20261128'
    if pixels:
        ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 2, 16, 16, 15, 0
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelData = 1, 'MONOCHROME2', pixels
        ds['PixelData'].VR = 'OW'
    for name, value in more.items():
        setattr(ds, name, value)
    ds.save_as(raw := io.BytesIO())
    return raw.getvalue()


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / 'store', free=0)
    yield made
    made.close()


def refused(work, words, status):
    with pytest.raises(ObjectRefusedError) as error:
        work()
    assert str(error.value) == words and error.value.status == status
    return error.value


def test_what_the_index_knows_of_an_object():
    found, syntax = describe_object(
        item(InstanceNumber='7', PatientBirthDate='19700101', SliceThickness='2.5', PatientSex=' F ')
    )
    assert syntax == PLAIN and found == {
        'PatientID': 'Jane',
        'PatientName': 'Jane^Doe',
        'PatientBirthDate': '19700101',
        'PatientSex': 'F',
        'StudyInstanceUID': '1.1',
        'StudyDate': '20261128',
        'SeriesInstanceUID': '1.1.1',
        'Modality': 'CT',
        'SliceThickness': '2.5',
        'SOPInstanceUID': '1.1.1.1',
        'SOPClassUID': CT,
        'InstanceNumber': '7',
        'Rows': '1',
        'Columns': '2',
        'BitsAllocated': '16',
    }
    assert module._text(['a', 'b']) == module._text(('a', 'b')) == 'a\\b' and module._text(' x\0 ') == 'x'
    assert module._text('y' * 2000) == 'y' * 1024 and module._text(7) == '7'
    assert 'NumberOfFrames' not in found and describe_object(item(PatientID=''))[0].get('PatientID') is None
    many = pydicom.dcmread(io.BytesIO(item()))
    many.StudyDescription, many.PatientName = 'a\\b', 'Jäne'
    many.SpecificCharacterSet = 'ISO_IR 192'
    many.save_as(raw := io.BytesIO())
    assert describe_object(raw.getvalue())[0]['PatientName'] == 'Jäne'


@pytest.mark.parametrize('key', ['SOPInstanceUID', 'SOPClassUID', 'SeriesInstanceUID', 'StudyInstanceUID'])
@pytest.mark.parametrize('value', ['', '../../etc', '1..2', '1.2.', 'x', '1.' * 31 + '100'])
def test_an_object_has_an_identity(key, value):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        ds = pydicom.dcmread(io.BytesIO(item()))
        ds.add_new(key, 'UI', value)
        if key == 'SOPClassUID':
            ds.file_meta.MediaStorageSOPClassUID = value or '1'
        if key == 'SOPClassUID' and not value:
            del ds.file_meta.MediaStorageSOPClassUID
        ds.save_as(raw := io.BytesIO(), enforce_file_format=False)
        error = refused(lambda: describe_object(raw.getvalue()), f'{key} {value[:70]!r} is no UID', 0xA900)
    assert isinstance(error, InvalidUidError)


def test_a_plain_header_says_what_pydicom_reads(monkeypatch):
    """Damaged at random, an object is described as by pydicom, or left to it."""
    from pydicom.data import get_testdata_file

    names = 'CT_small.dcm', 'MR_small.dcm', 'J2K_pixelrep_mismatch.dcm', 'JPEG2000.dcm'
    whole, rng, plain = [Path(get_testdata_file(n)).read_bytes() for n in names], random.Random(0), 0
    common, by_pydicom = b'\0 \\=^\x1b0./', module._attributes_by_pydicom
    for k in range(1500):
        raw = bytearray(whole[k % len(whole)])
        for _ in range(k // len(whole) % 3):
            raw[rng.randrange(132, min(len(raw), 2000))] = rng.choice((rng.randrange(256), rng.choice(common)))
        found = module._plain_attributes(bytes(raw))
        if found is not None:
            plain += 1
            assert found == by_pydicom(bytes(raw)), raw[132:2000]
    assert plain > 300
    bare = pydicom.dcmread(io.BytesIO(item()))
    del bare.SOPClassUID, bare.Modality
    bare.save_as(raw := io.BytesIO(), enforce_file_format=False)
    monkeypatch.setattr(module, '_attributes_by_pydicom', lambda raw: 1 / 0)
    found, syntax = describe_object(raw.getvalue())
    assert (found['SOPClassUID'], found['Modality'], syntax) == (CT, 'CT', PLAIN), 'as a file of the RSNA cohort'


@pytest.mark.parametrize(
    'more',
    [
        {'SpecificCharacterSet': ['', 'ISO 2022 IR 87'], 'PatientName': 'Yamada'},
        {'PatientName': 'Yamada=x'},
        {'StudyDescription': ['a', 'b']},
    ],
)
def test_what_is_not_plain_is_read_by_pydicom(more):
    raw = item(**more)
    assert module._plain_attributes(raw) is None and describe_object(raw) == module._attributes_by_pydicom(raw)


def test_work_is_done_together_and_nobody_goes_before(tmp_path):
    """While one works, three wait; one of them works for all, and each hears of what stopped it."""
    done, begun, go_on, ended = [], threading.Event(), threading.Event(), []

    def work(items):
        done.append(sorted(items))
        begun.set()
        assert go_on.wait(60)
        if 'bad' in items:
            raise OSError(5, 'Input/output error')

    together = module.GroupWork(work)

    def ask(item):
        try:
            together(item)
        except OSError as error:
            ended.append((item, error.errno))
        else:
            ended.append((item, 0))

    threads = [threading.Thread(target=ask, args=(item,)) for item in ('a', 'b', 'c', 'bad')]
    threads[0].start()
    assert begun.wait(60)
    for thread in threads[1:]:
        thread.start()
    while len(together._gathering.items) < 3:
        time.sleep(0.01)
    assert done == [['a']] and not ended
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert done == [['a'], ['b', 'bad', 'c']]
    assert sorted(ended) == [('a', 0), ('b', 5), ('bad', 5), ('c', 5)], 'in doubt nobody is told that it is kept'
    together('d')
    assert done[-1] == ['d'], 'a failure is not remembered'


def test_a_turn_is_given_away_while_its_thread_waits():
    turn, seen = module.Turn(), []

    def other():
        with turn:
            seen.append('other')

    with turn:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        assert not seen and turn._lock.locked(), 'one at a time'
        with pytest.raises(OSError), turn.given_away():
            thread.join(60)
            assert seen == ['other'] and not turn._lock.locked()
            with turn.given_away():
                pass  # it is nobody's
            assert not turn._lock.locked()
            raise OSError
        assert turn._lock.locked(), 'it is ours again'
    assert not turn._lock.locked()
    with turn.given_away():
        assert not turn._lock.locked()
    assert not turn._lock.locked()


def arrived(store, sent):
    """Write objects where they wait for their places."""
    arrivals = []
    for k, raw in enumerate(sent):
        (store.incoming / str(k)).write_bytes(raw)
        arrivals.append(module._Arrival(raw, *describe_object(raw), {}, store.incoming / str(k)))
    return arrivals


def test_a_group_is_entered_in_one_transaction(store):
    told, places = [], [('1.1', '1.1.1'), ('1.1', '1.1.2'), ('1.2', '1.2.1')]
    arrivals = arrived(store, [item('', t, s, f'{s}.{n}') for t, s in places for n in (1, 2)])
    store.db.set_trace_callback(told.append)
    store._enter_all(arrivals)
    store.db.set_trace_callback(None)
    assert [line for line in told if line.split()[0] in ('BEGIN', 'COMMIT', 'ROLLBACK')] == [
        'BEGIN IMMEDIATE',
        'COMMIT',
    ]
    assert sum(line.startswith('UPDATE study') for line in told) == 2
    assert [a.stored.path.name for a in arrivals] == ['1.dcm', '2.dcm'] * 3 and len(store.paths()) == 6


def test_a_group_of_objects_of_which_some_are_refused(store, monkeypatch):
    """In one go: twice the same, another content, another patient's study, and a row that cannot be written."""
    store.add(item())
    enter = Store._enter

    def fails_once(self, db, found, *rest):
        enter(self, db, found, *rest)
        if found['SOPInstanceUID'] == '1.1.1.6':
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(Store, '_enter', fails_once)
    sent = [
        item(uid='1.1.1.5'),
        item(uid='1.1.1.5'),
        item(uid='1.1.1.5', PatientSex='F'),
        item('Joan', uid='1.1.1.7'),
        item(uid='1.1.1.6'),
        item(uid='1.1.1.8'),
    ]
    arrivals = arrived(store, sent)
    store._enter_all(arrivals)
    assert [a.stored and a.stored.new for a in arrivals] == [True, False, None, None, None, True]
    assert [type(a.error).__name__ for a in arrivals] == ['NoneType'] * 2 + ['ObjectRefusedError'] * 2 + [
        'OSError',
        'NoneType',
    ]
    totals = store.totals()
    assert (totals['patient'], totals['study'], totals['series'], totals['instance']) == (1, 1, 1, 3)
    assert sorted(store.folder.rglob('*.dcm')) == sorted(store.paths()) and len(store.paths()) == 3


def test_a_group_that_cannot_be_committed_leaves_nothing(store, monkeypatch):
    class Locked:
        """A connection whose transactions cannot be ended."""

        def __init__(self, db):
            self.db = db

        def execute(self, sql, *values):
            if sql == 'COMMIT':
                raise sqlite3.OperationalError('disk I/O error')
            return self.db.execute(sql, *values)

        def __getattr__(self, name):
            return getattr(self.db, name)

    store.add(item())
    whole = store.db
    monkeypatch.setattr(store._local, 'db', Locked(whole))
    refused(lambda: store.add(item(uid='1.1.1.2')), 'the index cannot be written (disk I/O error)', 0xA700)
    monkeypatch.setattr(store._local, 'db', whole)
    assert len(list(store.folder.rglob('*.dcm'))) == 1 == store.totals()['instance'] and not list(
        store.incoming.iterdir()
    )
    assert store.add(item(uid='1.1.1.2')).new


def test_a_long_uid_is_one():
    assert describe_object(item(uid='1.' + '2' * 62))[0]['SOPInstanceUID'] == '1.' + '2' * 62
    refused(lambda: describe_object(b'nothing'), 'not readable as DICOM (InvalidDicomError)', 0xC000)
    assert ObjectRefusedError('x').status == 0xC000


@pytest.mark.parametrize(
    'value, wanted, vr, yes',
    [
        ('a', '', 'LO', True),
        ('', '*', 'LO', True),
        ('1.2', '1.2', 'UI', True),
        ('1.2', '1.3\\1.2', 'UI', True),
        ('1.2.3', '1.2', 'UI', False),
        ('1.2', '1.*', 'UI', False),
        ('20260101', '20260101-20260201', 'DA', True),
        ('20251231', '20260101-', 'DA', False),
        ('20260101', '20260101-', 'DA', True),
        ('20260202', '-20260201', 'DA', False),
        ('20260201', '-20260201', 'DA', True),
        ('', '-20260201', 'DA', False),
        ('101112.5', '1011-1012', 'TM', True),
        ('101312', '1011-1012', 'TM', False),
        ('101112', '1011', 'TM', True),
        ('111112', '1011', 'TM', False),
        ('20260101101112', '20260101-20260102', 'DT', True),
        ('a-b', 'a-b', 'LO', True),
        ('Doe^Jane', 'DOE^JANE', 'PN', True),
        ('Doe^Jane', 'doe*', 'PN', True),
        ('Doe^Jane', 'do?^*', 'PN', True),
        ('Doe', 'doe', 'LO', False),
        ('Doe', 'D?e', 'LO', True),
        ('Doe', 'd*', 'LO', False),
        ('CT\\SR', 'SR', 'CS', True),
        ('CT\\SR', 'S*', 'CS', True),
        ('CT\\SR', 'MR', 'CS', False),
        ('a+b', 'a+*', 'LO', True),
        ('aab', 'a+*', 'LO', False),
        ('Doe^Jane^M', 'doe', 'PN', False),
        ('abc', '?', 'LO', False),
    ],
)
def test_queries_match_by_the_standard(value, wanted, vr, yes):
    assert matches_key(value, wanted, vr) == yes


def test_objects_lie_as_in_a_cohort_and_are_counted(store):
    first = store.add(item(), 'A@b')
    assert first == module.StoredObject(
        '1.1.1.1', '1.1.1', '1.1', store.folder / 'train_images' / '1' / '1' / '1.dcm', True
    )
    assert first.path.read_bytes() == item() and not list(store.incoming.iterdir())
    store.add(item(uid='1.1.1.2'))
    store.add(item(series='1.1.2', uid='1.1.2.1', sop=SR, pixels=b''))
    store.add(item('Joan', '1.2', '1.2.1', '1.2.1.1', sop='1.2.840.10008.5.1.4.1.1.4'))
    store.add(item('Joan', '1.3', '1.3.1', '1.3.1.1', sop=f'{CT}.1'))
    assert [p.relative_to(store.folder).as_posix() for p in store.paths()] == [
        'train_images/1/1/1.dcm',
        'train_images/1/1/2.dcm',
        'objects/1/2/1.dcm',
        'train_images/2/3/1.dcm',
        'train_images/2/4/1.dcm',
    ]
    total = store.totals()
    assert total == {
        'patient': 2,
        'study': 3,
        'series': 4,
        'instance': 5,
        'refused': 0,
        'bytes': sum(p.stat().st_size for p in store.paths()),
    }
    assert store.folder_of('1.1.2') == store.folder / 'objects' / '1' / '2'
    with pytest.raises(KeyError) as error:
        store.folder_of('9')
    assert error.value.args[0] == f'9: no such series in {store.folder}'
    row = store.db.execute('SELECT * FROM instance WHERE uid = ?', ('1.1.1.1',)).fetchone()
    assert row[:5] == ('1.1.1.1', 1, 'train_images/1/1/1.dcm', PLAIN, len(item()))
    assert json.loads(row[5])['InstanceNumber'] == '1' and 'PatientName' not in row[5]


def test_nobody_s_studies_are_not_one_person_s(store):
    a, b = store.add(item('', '1.1')), store.add(item('', '1.2', '1.2.1', '1.2.1.1'))
    assert (a.path.parts[-3], b.path.parts[-3]) == ('1', '2')
    assert [r for (r,) in store.db.execute('SELECT patient_id FROM patient')] == ['study 1.1', 'study 1.2']


def test_twice_is_once_and_another_content_is_refused(store):
    first = store.add(item())
    again = store.add(item())
    assert not again.new and again.path == first.path and (again.series_uid, again.study_uid) == ('1.1.1', '1.1')
    for change in ({'PatientSex': 'F'}, {'pixels': b'\1\0\3\0'}, {'pixels': b''}):
        refused(
            lambda change=change: store.add(item(**change), 'PEER@host'),
            '1.1.1.1 is here already, with other content',
            0x0111,
        )
    assert store.totals()['instance'] == 1 and len(list(store.folder.rglob('*.dcm'))) == 1
    at, peer, sha, words = store.db.execute('SELECT * FROM refused').fetchone()
    assert abs(at - time.time()) < 60 and peer == 'PEER@host' and words == '1.1.1.1 is here already, with other content'
    assert sha == hashlib.sha1(item(PatientSex='F')).hexdigest() and store.totals()['refused'] == 3
    packed = pydicom.dcmread(io.BytesIO(item()))
    packed.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    packed.save_as(raw := io.BytesIO())
    assert raw.getvalue() != item() and not store.add(raw.getvalue()).new, 'the same pixels, packed otherwise'


def test_studies_and_series_belong_to_one(store):
    store.add(item())
    refused(lambda: store.add(item('Joan', uid='1.1.1.9')), 'study 1.1 belongs to another patient here', 0xA900)
    refused(lambda: store.add(item(study='1.7', uid='1.1.1.9')), 'series 1.1.1 belongs to another study here', 0xA900)
    assert store.totals()['patient'] == store.totals()['study'] == 1, 'nothing of them stays'
    assert len(list(store.folder.rglob('*.dcm'))) == 1 and not list(store.incoming.iterdir())


def test_numbers_go_on(store):
    for n in range(1, 12):
        store.add(item(uid=f'1.1.1.{n}'))
    assert sorted(int(p.stem) for p in store.paths()) == list(range(1, 12))
    (store.folder / 'train_images' / '1' / '1' / '12.dcm').write_bytes(b'in the way')
    assert store.add(item(uid='1.1.1.99')).path.name == '13.dcm'


def filled(store):
    """Two patients, three series, four objects."""
    store.add(item())
    store.add(item(uid='1.1.1.2'))
    store.add(item(series='1.1.2', uid='1.1.2.1', sop=SR, pixels=b''))
    store.add(item('Joan', '1.2', '1.2.1', '1.2.1.1', StudyDate='20260101'))


def test_queries_by_level(store):
    filled(store)

    def find(level, keys=None, **more):
        return list(store.find(level, keys, **more))

    assert [f['PatientID'] for f in find('PATIENT')] == ['Jane', 'Joan'] and set(find('PATIENT')[0]) == {
        'PatientName',
        'PatientID',
    }
    every = find('STUDY', counts=tuple(COUNT_ATTRIBUTES))
    assert [
        (f['NumberOfPatientRelatedStudies'], f['NumberOfStudyRelatedSeries'], f['NumberOfStudyRelatedInstances'])
        for f in every
    ] == [('1', '2', '3'), ('1', '1', '1')] and 'NumberOfSeriesRelatedInstances' not in every[0]
    assert set(every[0]['ModalitiesInStudy'].split('\\')) == {'CT', 'SR'}
    assert [
        f['NumberOfSeriesRelatedInstances'] for f in find('SERIES', counts=('NumberOfSeriesRelatedInstances',))
    ] == ['2', '1', '1']
    assert [f['StudyInstanceUID'] for f in find('STUDY', {'ModalitiesInStudy': 'SR'})] == ['1.1']
    assert [f['StudyInstanceUID'] for f in find('STUDY', {'NumberOfStudyRelatedInstances': '1'})] == ['1.2']
    image = find('IMAGE', {'SOPInstanceUID': '1.1.1.2'})[0]
    assert image['path'] == str(store.folder / 'train_images' / '1' / '1' / '2.dcm') and image['syntax'] == PLAIN
    assert image['StudyDate'] == '20261128' and 'path' not in find('SERIES')[0]
    assert len(find('STUDY', {'SeriesInstanceUID': '1.1.2'})) == 2, 'a key of a lower level asks nothing'
    assert [f['SOPInstanceUID'] for f in find('IMAGE', limit=2, offset=1)] == ['1.1.1.2', '1.1.2.1']
    assert len(find('IMAGE', offset=3)) == 1 and len(find('IMAGE', limit=1)) == 1 and find('IMAGE', offset=9) == []
    assert [p.name for p in store.paths(StudyInstanceUID='1.1')] == ['1.dcm', '2.dcm', '1.dcm']


def test_queries_by_key(store):
    filled(store)
    for keys, uids in (
        ({'PatientID': 'Jane'}, 3),
        ({'PatientID': 'Ja*'}, 3),
        ({'PatientID': 'jane'}, 0),
        ({'PatientName': 'jane*'}, 3),
        ({'StudyInstanceUID': '1.2\\1.1'}, 4),
        ({'SeriesInstanceUID': '1.1.2'}, 1),
        ({'Modality': 'CT'}, 3),
        ({'StudyDate': '20260101-20260601'}, 1),
        ({'StudyInstanceUID': '1.1', 'Modality': 'SR'}, 1),
        ({'StudyInstanceUID': ''}, 4),
        ({'InstanceNumber': '1'}, 3),
        ({'Rows': '1'}, 3),
        ({'NoSuchThing': 'x'}, 4),
        (None, 4),
    ):
        assert len(list(store.find('IMAGE', keys))) == uids, keys


def test_studies_that_have_gone_quiet(store):
    store.add(item())
    store.db.execute('UPDATE study SET changed = changed - 100')
    store.add(item('Joan', '1.2', '1.2.1', '1.2.1.1'))
    assert (
        store.quiet_studies(50) == ['1.1']
        and store.quiet_studies(200) == []
        and store.quiet_studies(-5) == ['1.1', '1.2']
    )
    store.add(item(uid='1.1.1.2'))
    assert store.quiet_studies(50) == [], 'something was added'


def test_no_room(tmp_path):
    full = Store(tmp_path / 'full', free=1 << 60)
    refused(lambda: full.add(item()), f'less than {1 << 40} MiB of the disk are free', 0xA700)
    assert not full.has_space() and full.totals()['instance'] == 0 and full.totals()['refused'] == 1
    assert not list(full.folder.rglob('*.dcm')) and not list(full.incoming.iterdir())
    assert Store(tmp_path / 'usual').free == 1 << 30 and Store(tmp_path / 'usual').has_space()


def test_a_disk_that_fails_and_an_index_that_fails(store, monkeypatch):
    def broken(self, target):
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', broken)
        refused(lambda: store.add(item()), 'the store cannot write (No space left on device)', 0xA700)

    def silent(self, target):
        raise OSError('odd')

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'replace', silent)
        refused(lambda: store.add(item()), 'the store cannot write (odd)', 0xA700)

    def locked(*a):
        raise sqlite3.OperationalError('database is locked')

    with monkeypatch.context() as patch:
        patch.setattr(Store, '_enter', locked)
        refused(lambda: store.add(item()), 'the index cannot be written (database is locked)', 0xA700)
    assert not list(store.folder.rglob('*.dcm')) and not list(store.incoming.iterdir()) and store.totals()['study'] == 0
    assert store.add(item()).new


def test_what_is_acknowledged_was_flushed(store, monkeypatch):
    flushed, fsync = [], os.fsync

    def noted(number):
        flushed.append(os.readlink(f'/proc/self/fd/{number}'))
        fsync(number)

    monkeypatch.setattr(os, 'fsync', noted)
    kept = store.add(item())
    assert any('.incoming' in f for f in flushed) and str(kept.path.parent) in flushed


def test_without_its_owner(tmp_path):
    private = Store(tmp_path / 'private', Pseudonyms(b'k' * 32), free=0)
    kept = private.add(item())
    assert kept.uid == Pseudonyms(b'k' * 32).uid('1.1.1.1') and b'Jane' not in kept.path.read_bytes()
    private.add(item(uid='1.1.1.2'))
    cleaned = private.deidentification_counts()
    assert ('PatientName', 'emptied', 2) in cleaned and cleaned == sorted(cleaned)
    refused(
        lambda: private.add(item(BurnedInAnnotation='YES')),
        'not de-identified: annotation is burned into the picture',
        0xA900,
    )
    refused(lambda: private.add(b'nothing'), 'not readable as DICOM (InvalidDicomError)', 0xC000)
    assert not private.add(item()).new and private.deidentification_counts() == cleaned


def test_an_object_that_cannot_be_cleaned(tmp_path, monkeypatch):
    private = Store(tmp_path / 'private', Pseudonyms(b'k' * 32), free=0)

    def fails(ds, names):
        raise ZeroDivisionError

    monkeypatch.setattr(module, 'deidentify_dataset', fails)
    refused(lambda: private.add(item()), 'not de-identified: ZeroDivisionError', 0xA900)


def test_the_index_is_made_again_from_the_files(store):
    for n in (1, 2, 10):
        store.add(item(uid=f'1.1.1.{n}'))
    store.add(item('Joan', '1.2', '1.2.1', '1.2.1.1'))
    store.add(item('', '1.3', '1.3.1', '1.3.1.1', sop=SR, pixels=b''))
    before = [(f['SOPInstanceUID'], f['path'], f.get('PatientID')) for f in store.find('IMAGE')]
    store.close()
    for path in store.folder.glob('index*'):
        path.unlink()
    (store.incoming / 'half').write_bytes(b'of an object')
    again = Store(store.folder, free=0)
    assert again.rebuild_index() == {'entered': 5, 'forgotten': 0, 'set aside': 0} and not list(
        again.incoming.iterdir()
    )
    assert sorted((f['SOPInstanceUID'], f['path'], f.get('PatientID')) for f in again.find('IMAGE')) == sorted(before)
    assert again.rebuild_index() == {'entered': 0, 'forgotten': 0, 'set aside': 0}
    assert again.add(item(uid='1.1.1.11')).path.name == '4.dcm' and not again.add(item()).new
    row = again.db.execute('SELECT size FROM instance WHERE uid = ?', ('1.1.1.1',)).fetchone()
    assert row == (len(item()),)
    again.close()


def test_what_has_lost_its_file_is_taken_again(store):
    """A sender that hears "success" deletes its copy: a row without a file must not say that the object is here."""
    gone = store.add(item()).path
    gone.unlink()
    again = store.add(item())
    assert again.new and again.path.read_bytes() == item() and store.totals()['instance'] == 1


def test_an_index_of_an_earlier_version_goes_on(tmp_path):
    """It kept a hash of every object."""
    (tmp_path / 'store').mkdir()
    with sqlite3.connect(tmp_path / 'store' / 'index.sqlite') as db:
        db.execute(
            'CREATE TABLE instance (uid TEXT PRIMARY KEY, series INTEGER, path TEXT, syntax TEXT, size INTEGER, '
            'sha TEXT, attributes TEXT)'
        )
    store = Store(tmp_path / 'store', free=0)
    assert store.add(item()).new and not store.add(item()).new and len(list(store.find('IMAGE'))) == 1
    store.close()


def test_what_is_gone_is_forgotten_with_all_that_hung_on_it(store):
    gone = store.add(item()).path
    store.add(item('Joan', '1.2', '1.2.1', '1.2.1.1'))
    gone.unlink()
    assert store.rebuild_index() == {'entered': 0, 'forgotten': 1, 'set aside': 0}
    assert {k: v for k, v in store.totals().items() if k != 'bytes'} == {
        'patient': 1,
        'study': 1,
        'series': 1,
        'instance': 1,
        'refused': 0,
    }
    assert store.add(item()).new


@pytest.mark.parametrize(
    'content, place',
    [
        (b'nothing', 'train_images/1/1/9.dcm'),
        (item('Joan', '1.2', '1.2.1', '1.2.1.1'), 'train_images/1/1/9.dcm'),  # another patient's
        (item(series='1.1.2', uid='1.1.2.1'), 'train_images/1/1/9.dcm'),  # another series'
        (item(uid='1.1.1.2'), 'train_images/1/7/9.dcm'),  # of a series that has another number
        (item(uid='1.1.1.2'), 'train_images/7/1/9.dcm'),  # of a patient who has another number
        (item(study='1.2', series='1.2.1', uid='1.1.1.1'), 'train_images/1/7/9.dcm'),  # an object that is there
        (item('Joan', '1.1', '1.2.1', '1.2.1.1'), 'train_images/7/7/9.dcm'),  # of a study that is another patient's
    ],
)
def test_what_does_not_belong_there_is_set_aside(store, content, place):
    store.add(item())
    path = store.folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    assert store.rebuild_index() == {'entered': 0, 'forgotten': 0, 'set aside': 1}
    assert not path.exists() and [p.read_bytes() for p in (store.folder / 'set_aside').iterdir()] == [content]
    assert store.totals()['instance'] == 1 and store.rebuild_index()['set aside'] == 0


def test_a_file_that_belongs_there_is_entered(store):
    store.add(item())
    for content, place in (
        (item(uid='1.1.1.2'), 'train_images/1/1/9.dcm'),
        (item(series='1.1.2', uid='1.1.2.1'), 'objects/1/5/1.dcm'),
        (item('Joan', '1.2', '1.2.1', '1.2.1.1'), 'train_images/6/8/3.dcm'),
    ):
        path = store.folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert store.rebuild_index() == {'entered': 3, 'forgotten': 0, 'set aside': 0}
    assert (
        store.folder_of('1.1.2') == store.folder / 'objects' / '1' / '5' and store.folder_of('1.2.1').parent.name == '6'
    )
    assert store.quiet_studies(50) == [] and len(store.quiet_studies(-5)) == 2


def test_a_transaction_that_fails_leaves_nothing(store):
    with pytest.raises(KeyError), store.writing() as db:
        db.execute('INSERT INTO patient VALUES (7, ?, ?)', ('x', '{}'))
        raise KeyError
    assert store.totals()['patient'] == 0
    with store.writing() as db:
        db.execute('INSERT INTO patient VALUES (7, ?, ?)', ('x', '{}'))
    assert store.totals()['patient'] == 1


def test_every_thread_has_its_own_connection(store):
    seen = [store.db]
    worker = threading.Thread(target=lambda: (seen.append(store.db), store.add(item()), store.close()))
    worker.start()
    worker.join()
    assert seen[0] is store.db is not seen[1] and store.totals()['instance'] == 1
    store.close()
    assert store.db is not seen[0] and store.db.execute('PRAGMA journal_mode').fetchone()[0] == 'wal'
    assert store.db.execute('PRAGMA synchronous').fetchone()[0] == 1
    store.close()
    store.close()


def test_small_things():
    assert module._vr('PatientName') == 'PN' and module._vr('StudyDate') == 'DA'
    assert module._by_number('train_images/2/10/3.dcm') == [0, 2, 10, 3]
    assert json.loads(module._index_row({'PatientID': 'ä', 'Rows': '1'}, 'PATIENT')) == {'PatientID': 'ä'}
    assert 'ä' in module._index_row({'PatientID': 'ä'}, 'PATIENT') and set(LEVELS) == {
        'PATIENT',
        'STUDY',
        'SERIES',
        'IMAGE',
    }


def test_the_same_object(tmp_path):
    (tmp_path / 'a.dcm').write_bytes(item())
    (tmp_path / 'b.dcm').write_bytes(b'nothing')

    def same(raw):
        return module._same_object(tmp_path / 'a.dcm', raw)

    assert (
        same(item())
        and not same(item(pixels=b'\1\0\3\0'))
        and not same(item(pixels=b''))
        and not same(item(PatientSex='F'))
    )
    assert not same(b'nothing') and not module._same_object(tmp_path / 'b.dcm', item())
    (tmp_path / 'c.dcm').write_bytes(item(pixels=b''))
    assert module._same_object(tmp_path / 'c.dcm', item(pixels=b'')) and not module._same_object(
        tmp_path / 'c.dcm', item()
    )


def test_a_number_goes_on_after_the_highest_not_into_a_gap(store):
    for n in range(1, 12):
        store.add(item(uid=f'1.1.1.{n}'))
    (store.folder / 'train_images' / '1' / '1' / '5.dcm').unlink()
    (store.folder / 'train_images' / '1' / '1' / '6.dcm').unlink()
    assert store.rebuild_index() == {'entered': 0, 'forgotten': 2, 'set aside': 0}
    assert store.add(item(uid='1.1.1.99')).path.name == '12.dcm'
    again = Store(store.folder, free=0)
    assert again.add(item(uid='1.1.1.100')).path.name == '13.dcm', 'a store that begins asks its index'
    again.close()


def test_files_are_entered_in_the_order_of_their_numbers(store):
    for n in range(1, 12):
        store.add(item(uid=f'1.1.1.{n}'))
    store.close()
    for path in store.folder.glob('index*'):
        path.unlink()
    again = Store(store.folder, free=0)
    again.rebuild_index()
    assert [f['SOPInstanceUID'].rsplit('.')[-1] for f in again.find('IMAGE')] == [str(n) for n in range(1, 12)]
    assert again.db.execute('SELECT DISTINCT syntax FROM instance').fetchall() == [(PLAIN,)]
    again.close()


@pytest.mark.parametrize(
    'known, place',
    [
        (('Joan', '1.2', '1.2.1', '1.2.1.1'), 'train_images/1/9/1.dcm'),  # the folder is another patient's
        (('Jane', '1.2', '1.2.1', '1.2.1.1'), 'train_images/7/9/1.dcm'),  # the patient has another folder
    ],
)
def test_a_folder_belongs_to_one_patient_and_a_patient_to_one_folder(store, known, place):
    store.add(item(*known))
    for name in ('1.dcm', '2.dcm'):
        path = (store.folder / place).with_name(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(item(uid=f'1.1.1.{name[0]}'))
    assert store.rebuild_index() == {'entered': 0, 'forgotten': 0, 'set aside': 2}


def test_what_is_there_already_says_where(store):
    first, again = store.add(item()), store.add(item())
    assert again.uid == first.uid == '1.1.1.1' and again.path == first.path
    assert first.new is True and again.new is False


def test_room_is_looked_up_when_it_is_asked_for(store, monkeypatch):
    free = [5]
    monkeypatch.setattr(module.shutil, 'disk_usage', lambda _: type('Usage', (), {'free': free[0]}))
    assert store.has_space()
    free[0] = 0
    assert not store.has_space(), 'the second that an answer is kept does not count here'
    free[0] = 1
    assert store.has_space()


def test_room_is_counted_between_two_looks_and_asked_for_when_it_gets_tight(store, monkeypatch):
    looks, free, now = [], [10 << 30], [100.0]

    def usage(_):
        looks.append(free[0])
        return type('Usage', (), {'free': free[0]})

    monkeypatch.setattr(module.shutil, 'disk_usage', usage)
    monkeypatch.setattr(module.time, 'monotonic', lambda: now[0])
    store.free = 0
    assert store._room(size=4 << 30) == 6 << 30 and len(looks) == 1
    assert store._room(size=4 << 30) == 2 << 30 and len(looks) == 1, 'counted'
    assert store._room(size=3 << 29) == 17 << 29 and len(looks) == 2, 'less than a gibibyte would be left'
    now[0] = 100.9
    assert store._room(size=1) == (17 << 29) - 1 and len(looks) == 2
    now[0] = 101.1
    assert store._room() == 10 << 30 and len(looks) == 3, 'a second later'


def test_who_stored_an_object_first_stays_its_author(store):
    assert store.author('1.1.1.1') == ''
    store.note_author('1.1.1.1', 'Ada')
    store.note_author('1.1.1.1', 'Bob')
    store.note_author('1.1.1.2', 'Bob')
    assert store.author('1.1.1.1') == 'Ada' and store.author('1.1.1.2') == 'Bob' and store.author('1.1.1.3') == ''


def test_a_series_of_several_objects_lies_in_one_folder_of_the_layout(store):
    paths = [store.add(item(uid=f'1.1.1.{k}')).path for k in (1, 2)]
    assert len({p.parent for p in paths}) == 1 and paths[0].parent.parent.parent == store.folder / 'train_images'


def test_a_patients_name_for_the_computer_may_hold_what_parts_other_values(store):
    store.add(item())
    store.add(item('Joan', '1.2', '1.2.1', '1.2.1.1'))
    assert [f['PatientID'] for f in store.find('PATIENT', {'PatientID': 'Jane'})] == ['Jane']
    assert list(store.find('PATIENT', {'PatientID': 'Jane\\Joan'})) == []
    both = store.find('STUDY', {'StudyInstanceUID': '1.1\\1.2'})
    assert sorted(f['StudyInstanceUID'] for f in both) == ['1.1', '1.2'], 'UIDs are a list'


def test_missing_values_are_empty_words(store):
    store.add(item(StudyDate=''))
    assert [f.get('StudyDate', '') for f in store.find('STUDY')] == ['']
    assert (
        list(store.find('STUDY', {'StudyDate': '20261128'})) == []
        and list(store.find('STUDY', {'StudyDate': '20*'})) == []
    )
    assert module._matches_value(None, '', 'DA') and not module._matches_value(None, 'None', 'LO')
    assert not module._matches_value(None, 'X*', 'LO') and module._matches_value(None, '*', 'LO')
