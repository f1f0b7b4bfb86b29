"""De-identification attribute by attribute: every row of PS3.15's table, every value representation, every refusal."""

import base64
import hashlib
import hmac
import os
import stat
import uuid
from collections import Counter

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag

from ctlab.scans import deidentify as d
from ctlab.scans.deidentify import (
    DeidentificationError,
    Pseudonyms,
    deidentify_dataset,
    deidentify_file,
    profile_action,
    read_key,
    shift_date,
)

NAMES = Pseudonyms(b'k' * 32)
DAYS = NAMES.date_shift('Jane')
CLASS = '1.2.840.10008.5.1.4.1.1'
SAMPLES = {
    'DA': '20200131',
    'DT': '20200131101112',
    'TM': '101112',
    'AS': '045Y',
    'UI': '1.2.3',
    'DS': '1.5',
    'IS': '7',
    'UR': 'http://jane.example',
    'PN': 'Jane^Doe',
    'FD': 1.5,
    'FL': 1.5,
    'SS': 3,
    'US': 3,
    'SL': 3,
    'UL': 3,
    'SV': 3,
    'UV': 3,
    'AT': 0x00100010,
    'OB': b'Jane',
    'OW': b'Jane',
    'OF': b'Jane',
    'OD': b'JaneJane',
    'OL': b'Jane',
    'OV': b'JaneJane',
    'UN': b'Jane',
}
ZEROES = ('FD', 'FL', 'SS', 'US', 'SL', 'UL', 'SV', 'UV', 'AT')
BYTES = ('OB', 'OW', 'OF', 'OD', 'OL', 'OV', 'UN')


def patient(**more):
    ds = Dataset()
    ds.PatientID, ds.PatientName, ds.StudyInstanceUID, ds.SOPClassUID = 'Jane', 'Jane^Doe', '1.2.9', f'{CLASS}.2'
    for name, value in more.items():
        setattr(ds, name, value)
    return ds


def with_element(tag, vr, value):
    ds = patient()
    ds.add_new(tag, vr, value)
    return ds


def after(tag, vr, value):
    """Return an element after de-identification (None where it is gone), and what was noted of it."""
    ds = with_element(tag, vr, value)
    changes = deidentify_dataset(ds, NAMES)
    return ds.get(tag), changes


def representation(tag):
    try:
        return dictionary_VR(tag).split(' or ')[0]
    except KeyError:
        return ''  # retired, without an entry


TABLE = {t: representation(t) for t in d.confidentiality_profile()[0] if representation(t)}
PLAIN = [t for t, vr in TABLE.items() if vr != 'SQ' and t not in (0x00100010, 0x00100020)]
SEQUENCES = [t for t, vr in TABLE.items() if vr == 'SQ' and keyword_for_tag(t) != 'ContentSequence']  # that is a report


def test_the_table_is_read_by_its_letters():
    exact, groups = d.confidentiality_profile()
    assert len(exact) > 300 and {a for _, _, a in groups} | set(exact.values()) == {'dummy', 'empty', 'remove', 'uid'}
    for keyword, action in {
        'PatientName': 'empty',
        'PatientID': 'dummy',
        'StudyInstanceUID': 'uid',
        'Rows': 'keep',
        'PatientAddress': 'remove',
        'InstitutionName': 'dummy',
        'StudyDate': 'empty',
        'Modality': 'keep',
        'OperatorsName': 'dummy',
    }.items():
        assert profile_action(int(Tag(keyword))) == action, keyword
    assert profile_action(0x50020010) == profile_action(0x50FE3000) == 'remove', 'repeating groups of curves'
    assert (
        profile_action(0x60004000) == 'remove'
        and profile_action(0x60003000) == 'remove'
        and profile_action(0x60000010) == 'keep'
    )
    assert profile_action(0x00190010) == 'remove' or profile_action(0x00190010) == 'keep'


@pytest.mark.parametrize('tag', PLAIN, ids=keyword_for_tag)
def test_every_row_of_the_table(tag):
    """What the table says is what happens, by value representation; and it is noted once."""
    vr, word, action, birth = TABLE[tag], keyword_for_tag(tag), profile_action(tag), tag in d._BIRTH
    value = SAMPLES.get(vr, 'Jane')
    found, changes = after(tag, vr, value)
    dated = vr in ('DA', 'DT') and not birth
    if action == 'remove' and not dated:
        assert found is None and changes[word, 'removed'] == 1
        return
    if dated:
        assert str(found.value) == shift_date(value, DAYS) and changes[word, 'date moved'] == 1
    elif action == 'uid':
        assert found.value == (NAMES.uid('1.2.3') if vr == 'UI' else found.value)
    elif action == 'empty':
        assert changes[word, 'emptied'] == 1
        assert str(found.value) == value if vr == 'TM' and not birth else found.value in (None, '', b'')
    else:
        assert changes[word, 'replaced'] == 1
        wanted = {
            'UI': NAMES.uid('1.2.3'),
            'TM': '101112',
            'AS': '000Y',
            'UR': 'http://anonymised.invalid',
            'DS': 0,
            'IS': 0,
        }
        wanted |= dict.fromkeys(ZEROES, 0) | dict.fromkeys(BYTES, b'\0\0')
        assert found.value == wanted.get(vr, 'ANONYMISED')


@pytest.mark.parametrize('tag', SEQUENCES, ids=keyword_for_tag)
def test_every_sequence_of_the_table(tag):
    item = Dataset()
    item.PatientName, item.StudyDate, item.Rows, item.SOPInstanceUID, item.StudyTime = (
        'Jane^Doe',
        '20200131',
        7,
        '1.2.3',
        '1',
    )
    item.add_new(0x00190010, 'LO', 'CREATOR')
    found, changes = after(tag, 'SQ', Sequence([item]))
    action, word = profile_action(tag), keyword_for_tag(tag)
    if action == 'remove':
        assert found is None and changes[word, 'removed'] == 1
    elif action == 'empty':
        assert len(found.value) == 0 and changes[word, 'emptied'] == 1
    elif action == 'uid':
        assert found.value[0].SOPInstanceUID == NAMES.uid('1.2.3') and not found.value[0].PatientName
    else:
        made = found.value[0]
        assert (
            changes[word, 'replaced'] == 1
            and made.PatientName == 'ANONYMISED'
            and made.StudyDate == shift_date('20200131', DAYS)
        )
        assert (
            made.Rows == 0
            and made.SOPInstanceUID == NAMES.uid('1.2.3')
            and made.StudyTime == '1'
            and 0x00190010 not in made
        )


@pytest.mark.parametrize('vr', sorted(set(SAMPLES) - {'UN'}) + ['LO', 'SH', 'LT', 'ST', 'UT', 'UC', 'CS', 'AE'])
def test_every_value_representation_where_the_table_speaks(vr):
    """An attribute of the table with another representation than it should have."""
    value = SAMPLES.get(vr, 'Jane')
    dummy, empty, uid = (int(Tag(k)) for k in ('InstitutionName', 'AccessionNumber', 'SOPInstanceUID'))
    assert (profile_action(dummy), profile_action(empty), profile_action(uid)) == ('dummy', 'empty', 'uid')
    clean = d._Cleaner(NAMES, 'Jane')
    got = {}
    for name, tag in (('dummy', dummy), ('empty', empty), ('uid', uid)):
        ds = with_element(tag, vr, value)
        getattr(clean, f'_{name}')(ds[tag])
        got[name] = ds[tag].value
    assert (
        got['empty'] == (value if vr == 'TM' else b'' if vr in BYTES[:-1] else None)
        or vr not in (*BYTES[:-1], 'TM')
        and not got['empty']
    )
    if vr == 'UI':
        assert got['uid'] == got['dummy'] == NAMES.uid(value)
    else:
        assert got['uid'] == got['empty']
    if vr in ZEROES:
        assert got['dummy'] == 0
    if vr in BYTES:
        assert got['dummy'] == b'\0\0'


def test_several_values_of_an_element():
    found, _ = after(int(Tag('SOPInstanceUID')), 'UI', ['1.2', '', '1.3'])
    assert list(found.value) == [NAMES.uid('1.2'), '', NAMES.uid('1.3')]
    found, _ = after(int(Tag('CalibrationDate')), 'DA', ['20200131', '20190101'])
    assert list(found.value) == [shift_date('20200131', DAYS), shift_date('20190101', DAYS)]
    found, _ = after(int(Tag('StudyDate')), 'DA', '')
    assert not found.value
    found, _ = after(int(Tag('SOPInstanceUID')), 'UI', '')
    assert not found.value
    assert (
        d._as_list(None) == [] and d._as_list('') == [] and d._as_list('ab') == ['ab'] and d._as_list([1, 2]) == [1, 2]
    )
    assert d._as_list((1, 2)) == [1, 2] and d._as_list(7) == [7] and d._as_list(iter([1, 2])) == [1, 2]


def test_what_the_table_does_not_name_stays_and_is_searched():
    item = Dataset()
    item.PatientName, item.Rows = 'Jane^Doe', 7
    ds = patient(Rows=5, KVP='120', ReferencedImageSequence=Sequence([item]), Modality='CT')
    ds.PixelData = b'\1\2'
    ds['PixelData'].VR = 'OW'
    changes = deidentify_dataset(ds, NAMES)
    assert ds.Rows == 5 and ds.KVP == 120 and ds.PixelData == b'\1\2' and changes['PatientName', 'emptied'] >= 1
    assert not any('Jane' in str(e.value) for e in ds)
    ds = with_element(0x00091234, 'LO', 'Jane')
    ds.add_new(0x00231001, 'LO', 'Jane')
    changes = deidentify_dataset(ds, NAMES)
    assert 0x00091234 not in ds and 0x00231001 not in ds and changes['private attribute', 'removed'] == 2
    ds = with_element(0x00200BAD, 'LO', 'Jane')
    changes = deidentify_dataset(ds, NAMES)
    assert 0x00200BAD not in ds and changes['(0020,0bad)', 'removed'] == 1, 'what no dictionary knows goes'


@pytest.mark.parametrize('creator, group, element', sorted(d.SAFE_PRIVATE))
def test_private_numbers_that_name_nobody_stay(creator, group, element):
    def made(value, owner=creator, block=0x10):
        ds = patient()
        ds.add_new(group << 16 | block, 'LO', owner)
        ds.add_new(group << 16 | block << 8 | element, 'LO' if value == 'Jane' else 'DS', value)
        return ds, group << 16 | block << 8 | element, group << 16 | block

    for block in (0x10, 0xFF):
        ds, tag, reservation = made('1.5', block=block)
        deidentify_dataset(ds, NAMES)
        assert tag in ds and ds[reservation].value == creator
        codes = [c.CodeValue for c in ds.DeidentificationMethodCodeSequence]
        assert codes == ['113100', '113107', '113111']
    ds, tag, reservation = made(['1.5', '-2'])
    deidentify_dataset(ds, NAMES)
    assert tag in ds
    for ds, tag, reservation in (made('Jane'), made('1.5', 'STRANGER')):
        changes = deidentify_dataset(ds, NAMES)
        assert tag not in ds and reservation not in ds and changes['private attribute', 'removed'] == 1
        assert [c.CodeValue for c in ds.DeidentificationMethodCodeSequence] == ['113100', '113107']
    ds = patient()
    ds.add_new(group << 16 | 0x1000 | element, 'DS', '1.5')
    deidentify_dataset(ds, NAMES)
    assert group << 16 | 0x1000 | element not in ds, 'whose it is, nobody says'


@pytest.mark.parametrize(
    'change, words',
    [
        ({'BurnedInAnnotation': 'YES'}, 'annotation is burned into the picture'),
        ({'BurnedInAnnotation': 'yes'}, 'annotation is burned into the picture'),
        ({'SOPClassUID': f'{CLASS}.104.1'}, 'an encapsulated document, whose text is not looked at'),
        ({'SOPClassUID': f'{CLASS}.88.33'}, 'a report, whose text is not looked at'),
        ({'ContentSequence': Sequence([])}, 'a report, whose text is not looked at'),
        ({'ImageType': ['DERIVED', 'SCREEN SAVE']}, 'a picture of a screen (SCREEN SAVE)'),
        ({'ImageType': ['DERIVED', 'dose_info']}, 'a picture of a screen (DOSE_INFO)'),
        (
            {'SOPClassUID': f'{CLASS}.7'},
            'secondary capture often has names burned in, and it does not say that it has none',
        ),
        ({'SOPClassUID': f'{CLASS}.7.2', 'BurnedInAnnotation': 'no'}, ''),
        ({'ImageType': ['ORIGINAL', 'PRIMARY']}, ''),
        ({'ImageType': 'ORIGINAL'}, ''),
        ({'Modality': 'CT'}, ''),
        ({}, ''),
    ]
    + [
        ({'Modality': kind}, f'{kind} often has names burned in, and it does not say that it has none')
        for kind in ('US', 'SC', 'OT', 'XC', 'ES', 'GM', 'XA', 'RF', 'DG')
    ],
)
def test_what_a_program_must_not_promise(change, words):
    ds = patient(**change)
    assert d.burned_in_risk(ds) == words
    if words:
        with pytest.raises(DeidentificationError) as error:
            deidentify_dataset(ds, NAMES)
        assert str(error.value) == words and ds.PatientID == 'Jane'
        assert d.burned_in_risk(patient(**change | {'BurnedInAnnotation': 'NO'})) == (
            '' if 'often' in words or 'burned' in words else words
        )


def test_what_is_said_in_the_end():
    ds = patient(Rows=3)
    changes = deidentify_dataset(ds, NAMES)
    assert isinstance(changes, Counter) and ds.PatientID == ds.PatientName == NAMES.name('Jane')
    assert (ds.PatientIdentityRemoved, ds.LongitudinalTemporalInformationModified) == ('YES', 'MODIFIED')
    assert ds.DeidentificationMethod == f'ctlab, PS3.15 {d.EDITION}'
    assert [(c.CodeValue, c.CodingSchemeDesignator, c.CodeMeaning) for c in ds.DeidentificationMethodCodeSequence] == [
        ('113100', 'DCM', 'Basic Application Confidentiality Profile'),
        ('113107', 'DCM', 'Retain Longitudinal Temporal Information Modified Dates Option'),
    ]
    assert ds.StudyInstanceUID == NAMES.uid('1.2.9') and ds.SOPClassUID == f'{CLASS}.2'
    assert changes['StudyInstanceUID', 'UID replaced'] == 1
    nobody = Dataset()
    nobody.StudyInstanceUID, nobody.SOPClassUID, nobody.StudyDate = '1.2.9', f'{CLASS}.2', '20200131'
    deidentify_dataset(nobody, NAMES)
    assert nobody.PatientID == NAMES.name('1.2.9') and nobody.StudyDate == shift_date(
        '20200131', NAMES.date_shift('1.2.9')
    )
    spaced = patient(PatientID=' Jane ')
    deidentify_dataset(spaced, NAMES)
    assert spaced.PatientID == NAMES.name('Jane')


def test_files_and_their_meta(tmp_path):
    ds = patient(SOPInstanceUID='1.2.3', Modality='CT')
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = f'{CLASS}.2', '1.2.3'
    ds.file_meta.TransferSyntaxUID, ds.file_meta.SourceApplicationEntityTitle = '1.2.840.10008.1.2.1', 'JANES'
    ds.preamble = b'Jane'.ljust(128)
    pydicom.dcmwrite(tmp_path / 'a.dcm', ds, enforce_file_format=True)
    changes = deidentify_file(tmp_path / 'a.dcm', tmp_path / 'out' / 'b.dcm', NAMES)
    made, raw = pydicom.dcmread(tmp_path / 'out' / 'b.dcm'), (tmp_path / 'out' / 'b.dcm').read_bytes()
    assert b'Jane' not in raw and b'JANES' not in raw and changes['SOPInstanceUID', 'UID replaced'] == 1
    assert made.file_meta.MediaStorageSOPInstanceUID == made.SOPInstanceUID == NAMES.uid('1.2.3')
    assert (
        made.file_meta.MediaStorageSOPClassUID == f'{CLASS}.2'
        and made.file_meta.TransferSyntaxUID == '1.2.840.10008.1.2.1'
    )
    assert made.preamble == b'\0' * 128 and [p.name for p in (tmp_path / 'out').iterdir()] == ['b.dcm']
    (tmp_path / 'c.dcm').write_bytes(b'nothing')
    with pytest.raises(DeidentificationError) as error:
        deidentify_file(tmp_path / 'c.dcm', tmp_path / 'd.dcm', NAMES)
    assert str(error.value) == 'cannot be read as DICOM (InvalidDicomError)' and not (tmp_path / 'd.dcm').exists()


def test_names_days_and_uids_follow_from_the_key():
    def digest(kind, value):
        return hmac.new(b'k' * 32, f'{kind}\0{value}'.encode(), hashlib.sha256).digest()

    assert NAMES.name('Jane') == 'P-' + base64.b32encode(digest('patient', 'Jane')).decode()[:10]
    assert NAMES.uid('1.2') == f'2.25.{uuid.UUID(bytes=digest("uid", "1.2")[:16], version=4).int}'
    assert NAMES.date_shift('Jane') == 1 + int.from_bytes(digest('days', 'Jane')[:8], 'big') % 3650
    many = {NAMES.date_shift(f'p{k}') for k in range(4000)}
    assert 1 <= min(many) < 20 and 3630 < max(many) <= 3650 and len(NAMES.uid('x')) <= 64
    assert Pseudonyms(b'l' * 32).name('Jane') != NAMES.name('Jane') != NAMES.name('Joan')


@pytest.mark.parametrize(
    'value, days, wanted',
    [
        ('20200131', 31, '20191231'),
        ('2020.01.31', 1, '20200130'),
        ('20200131101112.5', 1, '20200130101112.5'),
        ('20200301', 1, '20200229'),
        ('20201301', 1, ''),
        ('20200131 Jane', 1, ''),
        ('20200131Jane', 1, ''),
        (' 20200131 ', 1, '20200130'),
        ('20200131101112.123456+0100', 1, '20200130101112.123456+0100'),
        ('x', 1, ''),
        ('', 1, ''),
        ('00010101', 400, ''),
    ],
)
def test_dates_move_back(value, days, wanted):
    assert shift_date(value, days) == wanted


def test_keys(tmp_path):
    path = tmp_path / 'very' / 'deep' / 'key'
    key = read_key(path)
    assert len(key) == 32 and read_key(str(path)) == key and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(tmp_path / 'other') != key
    for n in (15, 16):
        (tmp_path / 'short').write_bytes(b'x' * n)
        if n == 16:
            assert read_key(tmp_path / 'short') == b'x' * 16
            continue
        with pytest.raises(ValueError) as error:
            read_key(tmp_path / 'short')
        assert str(error.value) == f'{tmp_path / "short"}: a key has at least 16 bytes, this one 15'


def test_a_key_that_somebody_else_makes_meanwhile(tmp_path, monkeypatch):
    path, opened = tmp_path / 'key', os.open

    def late(name, flags, mode=0o777):
        if str(name) == str(path) and flags & os.O_CREAT:
            path.write_bytes(b'y' * 32)
            raise FileExistsError
        return opened(name, flags, mode)

    monkeypatch.setattr(os, 'open', late)
    assert read_key(path) == b'y' * 32


def test_sequences_that_the_table_does_not_name_are_searched():
    item = Dataset()
    item.PatientName, item.Rows, item.StudyDate = 'Jane^Doe', 7, '20200131'
    ds = patient(CTExposureSequence=Sequence([item, Dataset()]))
    assert profile_action(int(Tag('CTExposureSequence'))) == 'keep'
    changes = deidentify_dataset(ds, NAMES)
    assert not item.PatientName and item.Rows == 7 and item.StudyDate == shift_date('20200131', DAYS)
    assert changes['StudyDate', 'date moved'] == 1 and len(ds.CTExposureSequence) == 2


def test_three_values():
    found, _ = after(int(Tag('SOPInstanceUID')), 'UI', ['1.2', '1.3', '1.4'])
    assert list(found.value) == [NAMES.uid(u) for u in ('1.2', '1.3', '1.4')]
    found, _ = after(int(Tag('SOPInstanceUID')), 'UI', ['1.2', '1.3'])
    assert list(found.value) == [NAMES.uid(u) for u in ('1.2', '1.3')]
    found, _ = after(int(Tag('SOPInstanceUID')), 'UI', '1.2')
    assert found.value == NAMES.uid('1.2') and isinstance(found.value, str)


def test_what_a_dummy_does_to_dates_within():
    item = Dataset()
    item.ScheduledProcedureStepStartDateTime, item.StudyDate = '20200131101112', '20200131'
    sequence = next(t for t in SEQUENCES if profile_action(t) == 'dummy')
    ds = with_element(sequence, 'SQ', Sequence([item]))
    deidentify_dataset(ds, NAMES)
    made = ds[sequence].value[0]
    assert made.ScheduledProcedureStepStartDateTime == shift_date(
        '20200131101112', DAYS
    ) and made.StudyDate == shift_date('20200131', DAYS)


def test_a_file_that_cannot_be_written(tmp_path, monkeypatch):
    ds = patient(SOPInstanceUID='1.2.3')
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID, ds.preamble = '1.2.840.10008.1.2.1', bytes(128)
    ds.save_as(tmp_path / 'a.dcm')

    def fails(self, *a, **k):
        raise ZeroDivisionError

    monkeypatch.setattr(Dataset, 'save_as', fails)
    with pytest.raises(DeidentificationError) as error:
        deidentify_file(tmp_path / 'a.dcm', tmp_path / 'b.dcm', NAMES)
    assert str(error.value) == 'cannot be written again (ZeroDivisionError)'
