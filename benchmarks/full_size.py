"""The whole way at the size of the real cohort: time, memory and disk of every stage, and how they grow.

    ctlab phantom many /data/many --oddities           # 3,147 patients, 4,711 series, an hour
    python benchmarks/full_size.py /data/many /data/growth

Every size is a part of the same cohort: its first patients, linked. Each stage is a process of its own; its memory is
that of the largest process in it. What is there already is not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

PREPARE = (
    'from ctlab.cohort.stacks import StackPreprocessing, prepare; '
    'prepare(root, work, StackPreprocessing(5., 96), progress=False)'
)
CODE = {
    'catalogue': 'from ctlab.cohort.stacks import catalogue; catalogue(root, work, progress=False)',
    'catalogue again': 'from ctlab.cohort.stacks import catalogue; catalogue(root, work, progress=False)',
    'clean': 'from ctlab.cohort.cleaning import clean_cohort; clean_cohort(root, work, progress=False)',
    'prepare': PREPARE,
    'prepare again': PREPARE,
    'folds and one epoch of approach 1': 'from ctlab.core.settings import Settings; '
    'from ctlab.trauma.approach1 import run; '
    'run(Settings(root, work, out, epochs=1), "cleaned")',
    'predict': [
        'predict',
        '{root}',
        '--model',
        '{out}/approach1_cleaned/tiny',
        '--work',
        '{work}',
        '--out',
        '{out}/predictions',
    ],
    'report': ['report', 'approach1_cleaned', '--out-dir', '{out}', '--data-root', '{root}'],
}


def part(cohort, series, folder):
    """Select the first patients of a cohort until they have so many series."""
    if (folder / 'train_2024.csv').exists():
        return folder
    table = pd.read_csv(cohort / 'train_series_meta.csv').sort_values('patient_id', kind='stable')
    kept = set(table['patient_id'].iloc[:series])
    (folder / 'train_images').mkdir(parents=True, exist_ok=True)
    for patient in kept:
        link = folder / 'train_images' / str(patient)
        if not link.exists():
            link.symlink_to((cohort / 'train_images' / str(patient)).resolve())
    (folder / 'phantoms.json').write_text('{}')
    for name in ('train_series_meta.csv', 'image_level_labels.csv', 'train_2024.csv'):
        rows = pd.read_csv(cohort / name)
        rows[rows['patient_id'].isin(kept)].to_csv(folder / name, index=False)
    return folder


def size_of(folder):
    return sum(p.lstat().st_size for p in folder.rglob('*') if p.is_file() and not p.is_symlink())


def run_apart(command, log):
    """Run a command in a process of its own; returns (seconds, MB of the largest process)."""
    began = time.perf_counter()
    with open(log, 'w') as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        sys.exit(f'{" ".join(map(str, command))} failed:\n' + Path(log).read_text()[-2000:])
    return seconds, used.ru_maxrss / 1024


def print_growth(table, size):
    """Print for every stage the slopes of time over size, and how memory grew."""
    print(
        f'\n{"slope of log time over log " + size:<36}{"all sizes":>10}{"last step":>10}   {"memory, last/first":>10}'
    )
    for stage, own in table.groupby('stage', sort=False):
        x, y = np.log(own[size].to_numpy()), np.log(own['seconds'].to_numpy())
        grown = own['memory MB'].iloc[-1] / own['memory MB'].iloc[0]
        print(f'{stage:<36}{np.polyfit(x, y, 1)[0]:10.2f}{(y[-1] - y[-2]) / (x[-1] - x[-2]):10.2f}   {grown:10.2f}')


def measure(stage, places):
    """(seconds, MB of the largest process, MB written) of one stage."""
    what, before = CODE[stage], size_of(places['work']) + size_of(places['out'])
    python = Path(sys.executable)
    if isinstance(what, str):
        named = [str(places[k]) for k in ('root', 'work', 'out')]
        start = f"if __name__ == '__main__':\n    root, work, out = {named}\n    {what}\n"
        script = places['out'] / 'stage.py'
        script.write_text(start)
        command = [python, script]
    else:
        command = [python.with_name('ctlab'), *(word.format(**places) for word in what)]
    seconds, memory = run_apart(command, places['out'] / 'stage.log')
    return seconds, memory, (size_of(places['work']) + size_of(places['out']) - before) / 1e6


def main():
    options = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    options.add_argument('cohort', type=Path)
    options.add_argument('folder', type=Path, help='where parts, stacks and results go')
    options.add_argument('--sizes', type=int, nargs='+', default=[100, 400, 1600, 4711])
    options.add_argument(
        '--to', type=Path, default=Path(__file__).parents[1] / 'reports' / 'reference' / 'full-size.csv'
    )
    given = options.parse_args()
    rows = []
    for size in given.sizes:
        places = {k: given.folder / str(size) / k for k in ('root', 'work', 'out')}
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        part(given.cohort, size, places['root'])
        series = len(pd.read_csv(places['root'] / 'train_series_meta.csv'))
        for stage in CODE:
            kept = places['out'].parent / f'{stage}.json'
            if not kept.exists():
                kept.write_text(json.dumps(measure(stage, places)))
            rows.append((stage, series, *json.loads(kept.read_text())))
            print(
                f'{series:5d} series  {stage:<34} {rows[-1][2]:8.1f} s {rows[-1][3]:7.0f} MB '
                f'{rows[-1][4]:8.1f} MB written',
                flush=True,
            )
    table = pd.DataFrame(rows, columns=['stage', 'series', 'seconds', 'memory MB', 'written MB'])
    table.round(2).to_csv(given.to, index=False)
    print_growth(table, 'series')


if __name__ == '__main__':
    main()
