"""Clean and prepare series of 300 slices (512², RLE lossless): one after the other, and both by one reading.

Cleaning decodes every slice, preparing a fifth of them, which the first has decoded already.

    python benchmarks/clean.py [series]
"""

import os
import sys
import tempfile
import time
import warnings

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before numpy is loaded
warnings.simplefilter('ignore')

from clocks import note  # noqa: E402
from scans import cohort  # noqa: E402


def seconds(work):
    """Time a call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main(n=12):
    from ctlab.cohort.cleaning import clean_cohort
    from ctlab.cohort.stacks import StackPreprocessing, prepare

    root, how = cohort(n), StackPreprocessing()

    def clean(work, **options):
        clean_cohort(root, work, workers=1, progress=False, **options)

    def stacks(work):
        prepare(root, work, how, workers=1, progress=False)

    found = {'clean': [], 'prepare': [], 'both, one reading': []}
    with tempfile.TemporaryDirectory() as folder:
        for k in range(3):
            apart, together = f'{folder}/apart{k}', f'{folder}/together{k}'
            found['clean'].append(seconds(lambda w=apart: clean(w)))
            found['prepare'].append(seconds(lambda w=apart: stacks(w)))
            found['both, one reading'].append(seconds(lambda w=together: (clean(w, preprocessing=how), stacks(w))))
    least = {name: min(values) for name, values in found.items()}
    print(f'{n} series of 300 slices, one process, best of three')
    for name, value in least.items():
        print(f'{name:<20} {value:6.2f} s   {value / least["clean"]:.2f} of cleaning alone')
    apart = least['clean'] + least['prepare']
    note(f'clean and prepare {n} series of 300 slices', least['both, one reading'], 'one after the other', apart)


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
