"""Preparing a cohort on a Dask cluster of this machine: more workers, one killed, one slowed, one that cannot write.

    python benchmarks/cluster.py COHORT FOLDER

Every way must leave the same bytes as the map over local processes. On a machine of few cores more workers are not
faster; what is shown is that nothing is lost and what it costs.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from ctlab.cohort.stacks import StackPreprocessing, prepare

RECIPE = StackPreprocessing(5.0, 96)
DASK = str(Path(sys.executable).with_name('dask'))
ALONE = {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}


@contextmanager
def cluster(workers, folder, limited=0):
    """(address, worker processes) of a scheduler and its workers; the first so many may write no file over 30 kB."""
    quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL, 'env': os.environ | ALONE}
    found = folder / 'scheduler.json'
    head = subprocess.Popen(
        [DASK, 'scheduler', '--host', '127.0.0.1', '--port', '0', '--no-dashboard', '--scheduler-file', found], **quiet
    )
    hands = []
    try:
        while not found.exists():
            time.sleep(0.1)
        for k in range(workers):
            command = [
                DASK,
                'worker',
                '--scheduler-file',
                found,
                '--nthreads',
                '1',
                '--no-nanny',
                '--no-dashboard',
                '--local-directory',
                folder / f'worker{k}',
            ]
            hands.append(subprocess.Popen([*(['prlimit', '--fsize=30000'] if k < limited else []), *command], **quiet))
        address = json.loads(found.read_text())['address']
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(workers, timeout=180)
        yield address, hands
    finally:
        for process in (*hands, head):
            process.kill()
        for process in (*hands, head):
            process.wait()


def slowed(process, ended):
    """Let a process work a tenth of the time."""
    while not ended.wait(0.09):
        process.send_signal(signal.SIGSTOP)
        if ended.wait(0.8):
            break
        process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGCONT)


def bytes_of(folder):
    """One hash over the names and bytes of all stacks."""
    found = hashlib.sha1()
    for path in sorted(folder.rglob('*.npy')):
        found.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return found.hexdigest()[:12]


def prepared(root, work, **how):
    """(seconds, series prepared, hash)."""
    shutil.rmtree(work, ignore_errors=True)
    began = time.perf_counter()
    stacks = prepare(root, work, RECIPE, progress=False, **how)
    return time.perf_counter() - began, len(stacks.usable), bytes_of(stacks.folder)


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    options.add_argument('cohort', type=Path)
    options.add_argument('folder', type=Path, help='for what is prepared; emptied')
    options.add_argument('--to', type=Path, default=Path(__file__).parents[1] / 'reports' / 'reference' / 'cluster.csv')
    given = options.parse_args()
    rows = [('local, 2 processes', *prepared(given.cohort, given.folder, workers=2))]
    ways = [(f'Dask, {n} workers', n, '') for n in (2, 4, 8)]
    ways += [
        ('Dask, 4 workers, one killed', 4, 'kill'),
        ('Dask, 4 workers, one at a tenth of its speed', 4, 'slow'),
        ('Dask, 4 workers, one that cannot write', 4, 'full'),
    ]
    for name, workers, trouble in ways:
        full = int(trouble == 'full')
        with tempfile.TemporaryDirectory() as place, cluster(workers, Path(place), full) as (address, hands):
            ended = threading.Event()
            if trouble == 'kill':
                threading.Timer(rows[0][1] / 4, hands[0].kill).start()
            if trouble == 'slow':
                threading.Thread(target=slowed, args=(hands[0], ended)).start()
            rows.append((name, *prepared(given.cohort, given.folder, scheduler=address)))
            ended.set()
    print(f'{"":<46}{"seconds":>9}{"series":>8}   bytes')
    for name, seconds, series, found in rows:
        print(f'{name:<46}{seconds:9.1f}{series:8d}   {found}')
    with given.to.open('w', newline='') as file:
        told = ((n, round(t, 1), k, b) for n, t, k, b in rows)
        csv.writer(file).writerows([('way', 'seconds', 'series', 'bytes'), *told])
    assert len({found for *_, found in rows}) == 1, 'the bytes differ'


if __name__ == '__main__':
    main()
