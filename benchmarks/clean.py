"""Clean and prepare series of 300 slices (512², RLE lossless): one after the other, and both by one reading.

Cleaning decodes every slice, preparing a fifth of them; by one reading each is decoded once.

    python benchmarks/clean.py [series]
"""

import os
import sys
import tempfile
import warnings

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before numpy is loaded
warnings.simplefilter('ignore')

from clocks import note  # noqa: E402
from scans import best, cohort  # noqa: E402


def main(n=12):
    from ctlab.cohort.cleaning import clean_cohort
    from ctlab.cohort.stacks import StackPreprocessing, prepare

    root, how = cohort(n), StackPreprocessing()

    def clean(work, **options):
        clean_cohort(root, work, workers=1, progress=False, **options)

    def stacks(work):
        prepare(root, work, how, workers=1, progress=False)

    def both(work):
        clean(work, preprocessing=how)
        stacks(work)

    with tempfile.TemporaryDirectory() as folder:
        steps = {'clean': clean, 'prepare': stacks, 'both, one reading': both}
        least = {
            name: best(lambda step=step: step(tempfile.mkdtemp(dir=folder)))  # nothing there yet
            for name, step in steps.items()
        }
    print(f'{n} series of 300 slices, one process, best of three')
    for name, value in least.items():
        print(f'{name:<20} {value:6.2f} s   {value / least["clean"]:.2f} of cleaning alone')
    apart = least['clean'] + least['prepare']
    note(f'clean and prepare {n} series of 300 slices', least['both, one reading'], 'one after the other', apart)


if __name__ == '__main__':
    main(*map(int, sys.argv[1:]))
