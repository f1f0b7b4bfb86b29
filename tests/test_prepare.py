"Preparing a folder full of hostile files."
import hashlib, resource
import numpy as np
import pandas as pd
import pytest
from ctlab import dicom
from ctlab.prepare import Recipe, prepare


def mutate(data, rng):
    "Damage a DICOM file in one of the ways that archives and attackers do."
    data, kind = bytearray(data), rng.integers(7)
    if kind == 0: data[int(rng.integers(132, len(data)))] ^= int(rng.integers(1, 256))
    elif kind == 1: del data[int(rng.integers(0, len(data))):]
    elif kind == 2:
        for k in rng.integers(132, min(len(data), 1500), 8): data[int(k)] = int(rng.integers(256))
    elif kind == 3:  # sizes that lie
        at = data.find(b'\x28\x00\x10\x00US')
        if at > 0: data[at+8:at+10] = b'\xff\xff'
        at = data.find(b'\x28\x00\x11\x00US')
        if at > 0: data[at+8:at+10] = b'\xff\xff'
    elif kind == 4:  # another value representation
        at = data.find(b'\x20\x00\x32\x00DS')
        if at > 0: data[at+4:at+6] = b'SQ'
    elif kind == 5:  # a UID that is a path
        at = data.find(b'\x20\x00\x0e\x00UI')
        if at > 0:
            n = int.from_bytes(data[at+6:at+8], 'little')
            data[at+8:at+8+n] = (b'../../../../etc/passwd' + b'\0'*n)[:n]
    else: data[200:200] = bytes(rng.integers(0, 256, int(rng.integers(1, 300)), dtype=np.uint8))
    return bytes(data)


@pytest.fixture(scope='module')
def hostile(tiny, tmp_path_factory):
    "A cohort of 40 series of 10 files, all but two files of each damaged."
    root, rng = tmp_path_factory.mktemp('hostile'), np.random.default_rng(0)
    (root/'train_images').mkdir()
    truth = pd.read_csv(tiny/'truth'/'scans.csv', keep_default_na=False)
    sources = truth[truth['fault'] == '']
    for k in range(40):
        row = sources.iloc[k % len(sources)]
        files = sorted((tiny/'train_images'/str(row['patient_id'])/str(row['series_id'])).glob('*.dcm'), key=lambda p: int(p.stem))[20:30]
        folder = root/'train_images'/str(100 + k)/str(1000 + k)
        folder.mkdir(parents=True)
        for n, path in enumerate(files): (folder/path.name).write_bytes(path.read_bytes() if n in (3, 4) else mutate(path.read_bytes(), rng))
    return root


def digests(folder): return {p.relative_to(folder).as_posix(): hashlib.sha1(p.read_bytes()).hexdigest() for p in folder.rglob('*') if p.is_file()}


def test_hostile_files_are_set_aside_and_counted(hostile, tmp_path):
    before, outside = digests(hostile), set(tmp_path.parent.iterdir())
    stacks = prepare(hostile, tmp_path/'work', Recipe(5., 32), workers=2, progress=False)
    assert len(stacks) == 40 and set(stacks.table['status']) <= {'prepared', 'set aside'}
    assert (stacks.table.loc[stacks.table['status'] == 'set aside', 'reason'] != '').all()
    assert digests(hostile) == before
    assert set(tmp_path.parent.iterdir()) == outside and [p.name for p in tmp_path.iterdir()] == ['work']
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < 2_000_000  # kB
    for series in stacks.usable['series_id']: assert stacks.load(series).dtype == np.uint8


def test_a_second_call_changes_nothing(tiny, tmp_path):
    prepare(tiny, tmp_path, Recipe(5., 24), workers=2, progress=False)
    before = digests(tmp_path)
    prepare(tiny, tmp_path, Recipe(5., 24), workers=1, progress=False)
    assert digests(tmp_path) == before


@pytest.mark.parametrize('content', [b'', b'not an image', b'\0'*128 + b'DICM', b'\0'*128 + b'DICM' + b'\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff', b'\x1f\x8b' + b'\0'*400])
def test_a_file_that_is_no_image_has_a_reason(tmp_path, content):
    path = tmp_path/'1.dcm'
    path.write_bytes(content)
    with pytest.raises(dicom.DicomError, match='1.dcm|no readable'): dicom.read_series(tmp_path)
