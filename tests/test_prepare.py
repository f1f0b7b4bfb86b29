"""Preparing a folder full of hostile files."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from ctlab.cohort.stacks import StackPreprocessing, prepare
from ctlab.scans import dicom


def mutate(data, rng):
    """Damage a DICOM file in one of the ways that archives and attackers do."""
    data, kind = bytearray(data), rng.integers(8)
    if kind == 0:
        data[int(rng.integers(132, len(data)))] ^= int(rng.integers(1, 256))
    elif kind == 1:
        del data[int(rng.integers(0, len(data))) :]
    elif kind == 2:
        for k in rng.integers(132, min(len(data), 1500), 8):
            data[int(k)] = int(rng.integers(256))
    elif kind == 3:  # sizes that lie
        at = data.find(b'\x28\x00\x10\x00US')
        if at > 0:
            data[at + 8 : at + 10] = b'\xff\xff'
        at = data.find(b'\x28\x00\x11\x00US')
        if at > 0:
            data[at + 8 : at + 10] = b'\xff\xff'
    elif kind == 4:  # another value representation
        at = data.find(b'\x20\x00\x32\x00DS')
        if at > 0:
            data[at + 4 : at + 6] = b'SQ'
    elif kind == 5:  # a UID that is a path
        at = data.find(b'\x20\x00\x0e\x00UI')
        if at > 0:
            n = int.from_bytes(data[at + 6 : at + 8], 'little')
            data[at + 8 : at + 8 + n] = (b'../../../../etc/passwd' + b'\0' * n)[:n]
    elif kind == 6:  # sequences within sequences within sequences
        at = data.find(b'\x08\x00\x16\x00UI')
        if at > 0:
            data[at:at] = (b'\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff' + b'\xfe\xff\x00\xe0\xff\xff\xff\xff') * int(
                rng.integers(1, 5000)
            )
    else:
        data[200:200] = bytes(rng.integers(0, 256, int(rng.integers(1, 300)), dtype=np.uint8))
    return bytes(data)


@pytest.fixture(scope='module')
def hostile(tiny, tmp_path_factory):
    """Series of 10 files, all but two files of each damaged: 40 of them, or as many as CTLAB_HOSTILE says."""
    root, rng = tmp_path_factory.mktemp('hostile'), np.random.default_rng(0)
    (root / 'train_images').mkdir()
    truth = pd.read_csv(tiny / 'truth' / 'scans.csv', keep_default_na=False)
    sources = truth[truth['fault'] == '']
    for k in range(int(os.environ.get('CTLAB_HOSTILE', 40))):
        row = sources.iloc[k % len(sources)]
        files = sorted(
            (tiny / 'train_images' / str(row['patient_id']) / str(row['series_id'])).glob('*.dcm'),
            key=lambda p: int(p.stem),
        )[20:30]
        folder = root / 'train_images' / str(100 + k) / str(1000 + k)
        folder.mkdir(parents=True)
        for n, path in enumerate(files):
            (folder / path.name).write_bytes(path.read_bytes() if n in (3, 4) else mutate(path.read_bytes(), rng))
    return root


def digests(folder):
    return {
        p.relative_to(folder).as_posix(): hashlib.sha1(p.read_bytes()).hexdigest()
        for p in folder.rglob('*')
        if p.is_file()
    }


def test_hostile_files_are_set_aside_and_counted(hostile, tmp_path):
    before, outside = digests(hostile), set(tmp_path.parent.iterdir())
    code = (
        'import resource, sys; from ctlab.cohort.stacks import StackPreprocessing, prepare; '
        'prepare(*sys.argv[1:], StackPreprocessing(5., 32), workers=2, progress=False); '
        'from multiprocessing import forkserver; forkserver._forkserver._stop(); '  # whose children the workers are
        'print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(hostile), str(tmp_path / 'work')], capture_output=True, text=True, check=True
    )
    assert 50_000 < int(done.stdout) < 1_000_000  # kB, of the largest worker
    stacks = prepare(hostile, tmp_path / 'work', StackPreprocessing(5.0, 32), workers=2, progress=False)
    assert len(stacks) == len(list(hostile.glob('train_images/*/*'))) and set(stacks.table['status']) <= {
        'prepared',
        'set aside',
    }
    assert (stacks.table.loc[stacks.table['status'] == 'set aside', 'reason'] != '').all()
    assert digests(hostile) == before
    assert set(tmp_path.parent.iterdir()) == outside and [p.name for p in tmp_path.iterdir()] == ['work']
    for series in stacks.usable['series_id']:
        assert stacks.load(series).dtype == np.uint8


def test_a_second_call_changes_nothing(tiny, tmp_path):
    prepare(tiny, tmp_path, StackPreprocessing(5.0, 24), workers=2, progress=False)
    before = digests(tmp_path)
    prepare(tiny, tmp_path, StackPreprocessing(5.0, 24), workers=1, progress=False)
    assert digests(tmp_path) == before


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'not an image',
        b'\0' * 128 + b'DICM',
        b'\0' * 128 + b'DICM' + b'\x02\x00\x00\x00UL\x04\x00\xff\xff\xff\xff',
        b'\x1f\x8b' + b'\0' * 400,
    ],
)
def test_a_file_that_is_no_image_has_a_reason(tmp_path, content):
    path = tmp_path / '1.dcm'
    path.write_bytes(content)
    with pytest.raises(dicom.DicomError, match='1.dcm|no readable'):
        dicom.read_series(tmp_path)


CALL = (
    'import sys; from ctlab.cohort.stacks import StackPreprocessing, prepare; '
    'prepare(sys.argv[1], sys.argv[2], StackPreprocessing(5., 24), workers=2, progress=False)'
)


def test_killed_at_random_moments_then_run_again_gives_the_same_bytes(tiny, tmp_path):
    subprocess.run([sys.executable, '-c', CALL, str(tiny), str(tmp_path / 'whole')], check=True)
    rng = np.random.default_rng(0)
    for _ in range(int(os.environ.get('CTLAB_KILLS', 6))):
        process = subprocess.Popen(
            [sys.executable, '-c', CALL, str(tiny), str(tmp_path / 'killed')], start_new_session=True
        )
        time.sleep(float(rng.uniform(1, 6)))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([sys.executable, '-c', CALL, str(tiny), str(tmp_path / 'killed')], check=True)
    assert digests(tmp_path / 'killed') == digests(tmp_path / 'whole')


def test_changed_input_is_prepared_anew(tiny, tmp_path):
    import shutil

    source = next(
        p
        for p in sorted((tiny / 'train_images').glob('*/*'))
        if p.name
        == str(
            pd.read_csv(tiny / 'truth' / 'scans.csv', keep_default_na=False).query("fault == ''")['series_id'].iloc[0]
        )
    )
    target = tmp_path / 'data' / 'train_images' / '1' / '2'
    shutil.copytree(source, target)
    before = prepare(tmp_path / 'data', tmp_path / 'work', StackPreprocessing(5.0, 24), progress=False).info(2)
    for path in sorted(target.glob('*.dcm'), key=lambda p: int(p.stem))[:20]:
        path.unlink()
    after = prepare(tmp_path / 'data', tmp_path / 'work', StackPreprocessing(5.0, 24), progress=False).info(2)
    assert after['slices'] == before['slices'] - 20


def test_work_inside_the_raw_data_is_refused(tiny):
    with pytest.raises(ValueError, match='never written to'):
        prepare(tiny, tiny / 'train_images' / 'work')


def test_a_dask_cluster_in_trouble_gives_the_same_result(tiny, tmp_path):
    """A real scheduler, three worker processes on loopback, one killed in the middle, one that cannot write a stack."""
    sys.path.append(str(ROOT / 'benchmarks'))
    from cluster import cluster

    with cluster(3, tmp_path, limited=1) as (address, hands):
        threading.Timer(1.5, hands[1].kill).start()
        stacks = prepare(tiny, tmp_path / 'cluster', StackPreprocessing(5.0, 24), progress=False, scheduler=address)
        assert len(stacks.usable) == len(stacks)
    here = prepare(tiny, tmp_path / 'here', StackPreprocessing(5.0, 24), workers=2, progress=False)
    pd.testing.assert_frame_equal(here.table, stacks.table)

    def strip(d):
        return {k: v for k, v in d.items() if k.endswith('.npy')}

    assert strip(digests(tmp_path / 'cluster')) == strip(digests(tmp_path / 'here'))


def test_folds_as_tasks_of_a_cluster(ctlab, tmp_path):
    """A study's folds go to Dask workers that stand in another folder."""
    import json

    from distributed import LocalCluster

    def cell(source, *tags):
        return {
            'cell_type': 'code',
            'id': f'c{len(source)}',
            'source': source,
            'outputs': [],
            'metadata': {'tags': list(tags)} if tags else {},
            'execution_count': None,
        }

    kernel = {'kernelspec': {'name': 'python3', 'display_name': 'python3', 'language': 'python'}}
    study = tmp_path / 'study.ipynb'
    study.write_text(
        json.dumps(
            {
                'cells': [cell('fold = 0', 'parameters'), cell('assert fold < 2, fold')],
                'metadata': kernel,
                'nbformat': 4,
                'nbformat_minor': 5,
            }
        )
    )
    place = str(tmp_path / 'dask')
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=place) as cluster:
        told = ctlab(
            'run', study, '--folds', '0,1,2', '--scheduler', cluster.scheduler_address, '--out', tmp_path / 'out'
        )
    assert told.returncode == 1, told.stdout + told.stderr
    assert told.stdout.count('done in') == 2 and told.stdout.count('failed in') == 1, told.stdout + told.stderr
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'study-fold0.ipynb',
        'study-fold1.ipynb',
        'study-fold2.failed.ipynb',
    ]
