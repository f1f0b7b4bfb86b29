"""Read damaged files of every kind: an error in words within five seconds and a gigabyte, and nothing outside.

CTLAB_HOSTILE=5000 makes it a long night.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest

COUNT = int(os.environ.get('CTLAB_HOSTILE', 160))  # of each kind
READ = """
import json, logging, sys, time, warnings
warnings.simplefilter('ignore'); logging.disable(logging.CRITICAL)
import ctlab
from ctlab.scans.dicom import silence_decoders
ctlab.read(sys.argv[2])  # what is loaded once is not counted
told = {'read': 0, 'refused': 0, 'slowest': 0., 'wrong': []}
for line in open(sys.argv[1]):
    start = time.process_time()  # of this program, whatever else the machine does
    try:
        with silence_decoders(): ctlab.read(line.strip())
        told['read'] += 1
    except (ValueError, FileNotFoundError) as error:
        told['refused'] += 1
        if not str(error): told['wrong'].append(line + 'no words')
    except BaseException as error: told['wrong'].append(f'{line.strip()}: {type(error).__name__}: {error}')
    told['slowest'] = max(told['slowest'], time.process_time() - start)
peak = next(l for l in open('/proc/self/status') if l.startswith('VmHWM'))  # of this program, not of who started it
told['megabytes'] = int(peak.split()[1])/1024
print(json.dumps(told))
"""


def damaged(data, rng, head=4096):
    """Change, cut, repeat or truncate the bytes of a file, mostly in its header."""
    data, span = bytearray(data), min(len(data), head)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        at, how = rng.randrange(span if rng.random() < 0.8 else len(data)), rng.random()
        if how < 0.5:
            data[at] = rng.randrange(256)
        elif how < 0.65:
            data[at : at + 4] = rng.choice((b'\xff' * 4, b'\0' * 4, b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f'))
        elif how < 0.78:
            del data[at : at + rng.randint(1, 64)]
        elif how < 0.9:
            data[at:at] = data[at : at + rng.randint(1, 64)]
        else:
            del data[at:]
        if len(data) < 8:
            break
        span = min(len(data), head)
    return bytes(data)


TAGS = {
    'StudyInstanceUID': '1.2.3',
    'FrameOfReferenceUID': '1.2.3.9',
    'ImageType': ['ORIGINAL', 'PRIMARY', 'AXIAL'],
}
TAGS |= dict.fromkeys(('PatientName', 'PatientBirthDate', 'PatientSex', 'AccessionNumber', 'Manufacturer'), '')
TAGS |= {
    'StudyDate': '20260101',
    'StudyTime': '101112',
    'StudyID': '1',
    'SeriesNumber': '1',
    'AcquisitionNumber': '1',
    'ReferringPhysicianName': '',
}


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    """One sound file of each kind, with how it is called when it is damaged."""
    import warnings

    import highdicom
    import pydicom
    from pydicom.fileset import FileSet

    import ctlab
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import make_volume

    root = tmp_path_factory.mktemp('sources')
    scan = make_volume(np.random.default_rng(0).integers(-900, 900, (9, 24, 20)).astype(np.int16), (2.0, 1.0, 1.0))
    slices = write_series(scan, root / 'in', syntax='plain', tags=TAGS)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        frames = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            [pydicom.dcmread(f) for f in slices], '1.2.5', 1, '1.2.5.1', 1
        )
        frames.save_as(root / 'frames.dcm')
    disk = FileSet()
    for f in slices:
        disk.add(f)
    disk.write(root / 'disk')
    for name in ('scan.nii', 'scan.nii.gz'):
        ctlab.write(scan, root / name)
    with zipfile.ZipFile(root / 'scan.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        for f in slices:
            z.write(f, f.name)
    with tarfile.open(root / 'scan.tar.gz', 'w:gz') as t:
        for f in slices:
            t.add(f, f.name)
    return {
        'frames': (root / 'frames.dcm', 8192),
        'DICOMDIR': (root / 'disk' / 'DICOMDIR', 1 << 20),
        'nii': (root / 'scan.nii', 400),
        'nii.gz': (root / 'scan.nii.gz', 1 << 20),
        'zip': (root / 'scan.zip', 1 << 20),
        'tar.gz': (root / 'scan.tar.gz', 1 << 20),
    }


@pytest.mark.parametrize('kind', ('frames', 'DICOMDIR', 'nii', 'nii.gz', 'zip', 'tar.gz'))
def test_damaged_files_get_an_answer(sources, tmp_path, kind):
    import gzip

    source, head = sources[kind]
    rng, raw, paths = random.Random(kind), source.read_bytes(), []
    for k in range(COUNT):
        folder = tmp_path / 'in' / str(k)
        folder.mkdir(parents=True)
        inner = kind == 'nii.gz' and rng.random() < 0.7  # what is in it, rather than its packing
        data = gzip.compress(damaged(gzip.decompress(raw), rng, 400)) if inner else damaged(raw, rng, head)
        path = folder / {'frames': 'one.dcm', 'DICOMDIR': 'DICOMDIR'}.get(kind, f'scan.{kind}')
        path.write_bytes(data)
        if kind == 'DICOMDIR':  # with the files that it names beside it
            shutil.copytree(source.parent / 'PT000000', folder / 'PT000000', copy_function=os.link)
        paths.append(folder if kind == 'frames' else path)
    (tmp_path / 'list').write_text('\n'.join(map(str, paths)))
    before = set(tmp_path.rglob('*'))
    scratch = tmp_path.parent / f'{tmp_path.name}-scratch'
    scratch.mkdir()
    done = subprocess.run(
        [sys.executable, '-c', READ, tmp_path / 'list', source if kind != 'frames' else source.parent / 'in'],
        capture_output=True,
        text=True,
        env=os.environ | {'TMPDIR': str(scratch)},
        timeout=60 + 2 * COUNT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert not told['wrong'], told['wrong'][:5]
    assert told['read'] + told['refused'] == COUNT and told['refused'] > COUNT / 20, told
    assert told['slowest'] < 5 and told['megabytes'] < 1000, told
    assert set(tmp_path.rglob('*')) == before and not list(scratch.iterdir()), 'nothing outside, nothing left'


def test_a_folder_of_damaged_files_through_the_commands(ctlab, sources, tmp_path):
    """Series with damaged slices, a damaged multi-frame file and rubbish, cleaned, arranged and segmented."""
    rng, export = random.Random(0), tmp_path / 'export'
    slices = sorted((sources['frames'][0].parent / 'in').iterdir())
    for k in range(max(6, COUNT // 30)):
        (export / str(k)).mkdir(parents=True)
        for f in slices:
            (export / str(k) / f.name).write_bytes(
                f.read_bytes() if rng.random() < 0.5 else damaged(f.read_bytes(), rng, 1500)
            )
        (export / str(k) / 'frames').write_bytes(damaged(sources['frames'][0].read_bytes(), rng, 8192))
        (export / str(k) / 'notes').write_bytes(rng.randbytes(3000))
    done = ctlab('arrange', export, tmp_path / 'out', '--least', '3', '--modality', '', '--json')
    assert done.returncode == 0 and 'Traceback' not in done.stderr, done.stderr[-2000:]
    facts = json.loads(done.stdout)
    assert facts['set_aside'] > 0
    if facts['series']:
        done = ctlab('clean', tmp_path / 'out', tmp_path / 'work')
        assert 'Traceback' not in done.stderr + done.stdout, done.stderr[-2000:]
    for folder in sorted(export.iterdir())[:4]:
        done = ctlab('segment', folder, tmp_path / 'masks' / folder.name, '--mesh', 'none')
        assert 'Traceback' not in done.stderr, done.stderr[-2000:]
        assert done.returncode in (0, 1)
    done = ctlab('segment', export / '0' / 'notes', tmp_path / 'masks' / 'notes')
    assert done.returncode == 1 and 'notes' in done.stderr and 'Traceback' not in done.stderr
