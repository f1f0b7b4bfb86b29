"""Run the test stage again and again while the machine does other work, and keep what happened.

`make stability RUNS=5` appends a row a run to reports/reference/stability.csv: the order's seed, how many processes
were busy beside it, what passed, and the names of what failed. A run that fails is a finding; it stays in the table.
"""

import argparse
import contextlib
import datetime
import os
import random
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
TABLE = ROOT / 'reports' / 'reference' / 'stability.csv'


@contextlib.contextmanager
def other_work(processes):
    """Keep some processes busy, as somebody else's work would."""
    command = [sys.executable, '-c', 'while True: sum(range(100_000))']
    busy = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def run_once(seed, workers, what):
    """Run the tests in the order of a seed; returns counts and what failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        command = [sys.executable, '-m', 'pytest', '-q', '-n', str(workers), '-p', 'randomly']
        command += [f'--randomly-seed={seed}', f'--junitxml={report}', *what]
        env = os.environ | {'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'OMP_NUM_THREADS': '1'}
        subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        cases = list(xml.parse(report).iter('testcase'))
    ended = {k: [c for c in cases if c.find(k) is not None] for k in ('failure', 'error', 'skipped')}
    failed = [f'{c.get("classname").split(".")[-1]}::{c.get("name")}' for c in ended['failure'] + ended['error']]
    passed = len(cases) - len(failed) - len(ended['skipped'])
    return {'passed': passed, 'skipped': len(ended['skipped']), 'failed': ' '.join(sorted(set(failed)))}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=1)
    parser.add_argument('--busy', type=int, default=3, help='processes that do other work')
    parser.add_argument('--workers', type=int, default=3)
    parser.add_argument('--to', type=Path, default=TABLE)
    parser.add_argument('what', nargs='*', default=['tests'])
    asked, bad = parser.parse_args(), 0
    version = subprocess.run(['git', 'rev-parse', '--short=9', 'HEAD'], cwd=ROOT, capture_output=True, text=True)
    for _ in range(asked.runs):
        seed, start = random.SystemRandom().randrange(2**32), time.monotonic()
        day = datetime.datetime.now(datetime.UTC).strftime('%Y-%m-%d')
        with other_work(asked.busy):
            row = {'day': day, 'commit': version.stdout.strip(), 'seed': seed, 'busy': asked.busy}
            row |= run_once(seed, asked.workers, asked.what)
        row['minutes'] = round((time.monotonic() - start) / 60, 1)
        rows = [pd.read_csv(asked.to)] if asked.to.exists() else []
        pd.concat([*rows, pd.DataFrame([row])]).to_csv(asked.to, index=False)
        print(row, flush=True)
        bad += bool(row['failed'])
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
