"""Run nbdev_test over all notebooks, the longest first, so that no core waits for the last one.

As nbdev_test: two processes, every cell that is not marked `eval: false`, and exit code 1 when one fails.
"""

import sys

from fastcore.parallel import parallel
from fastcore.xtras import working_directory
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb

LONGEST = (
    '05_gallery',
    '08_lowerlimb',
    '17_patients',
    '14_errata',
    '01_dicom',
    '07_patient_bodies',
    '27_judge',
    '18_network',
    '01_audit',
    '04_case_sets',
    '00_eda',
    '01_segment',
    '03_approach1',
    '04_cases',
)


def main(workers=2):
    rank = {name: k for k, name in enumerate(LONGEST)}
    config = get_config()
    with working_directory(config.nbs_path):
        files = sorted((p.absolute() for p in nbglob(as_path=True)), key=lambda p: (rank.get(p.stem, len(rank)), p))
        ended = parallel(
            test_nb,
            files,
            n_workers=workers,
            basepath=config.config_path,
            pause=0.01,
            skip_flags=config.tst_flags.split(),
            do_print=True,
        )
    for path, (_, seconds) in sorted(zip(files, ended), key=lambda row: -row[1][1])[:12]:
        print(f'{seconds:6.0f} s  {path.stem}')
    failed = [p.name for p, (passed, _) in zip(files, ended) if not passed]
    print(f'{len(files)} notebooks: ' + (f'FAILED {", ".join(failed)}' if failed else 'all passed'))
    sys.exit(bool(failed))


if __name__ == '__main__':
    main()
