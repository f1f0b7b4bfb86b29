"""Measure whether the tests would notice if the code were wrong.

`make mutants MODULE=judge.metrics` changes one thing at a time (mutmut) and runs the cells of the chapters and the
tests that reach it. Without a module: all that must not be wrong.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    'core.files': ['nbs/lib/core/02_files.ipynb', 'tests/test_files.py'],
    'scans.volume': ['nbs/lib/scans/00_volume.ipynb', 'tests/test_volume.py'],
    'scans.nifti': ['nbs/lib/scans/01_nifti.ipynb', 'tests/test_nifti.py'],
    'scans.dicom': ['nbs/01_dicom.ipynb', 'tests/test_dicom.py', 'tests/test_dicom_series.py'],
    'scans.dicom_header': ['nbs/lib/scans/06_dicom_header.ipynb', 'tests/test_dicom_header.py'],
    'scans.dicom_pixels': [
        'nbs/lib/scans/07_dicom_pixels.ipynb',
        'tests/test_dicom_pixels.py',
        'tests/test_dicom.py',
    ],
    'scans.dicom_geometry': [
        'nbs/lib/scans/08_dicom_geometry.ipynb',
        'tests/test_dicom_geometry.py',
        'tests/test_dicom.py',
    ],
    'scans.dicom_writer': ['nbs/lib/scans/09_dicom_writer.ipynb', 'tests/test_dicom_pixels.py'],
    'scans.deidentify': ['nbs/lib/scans/05_deidentify.ipynb', 'tests/test_deidentify.py'],
    'cohort.labels': ['nbs/lib/cohort/00_labels.ipynb', 'tests/test_labels.py'],
    'cohort.cleaning': ['nbs/02_cleaning.ipynb', 'tests/test_cleaning.py'],
    'judge.metrics': ['nbs/lib/judge/00_metrics.ipynb', 'tests/test_metrics.py'],
    'judge.audit': ['nbs/lib/judge/01_audit.ipynb', 'tests/test_audit.py'],
    'judge.comparison': ['nbs/lib/judge/02_comparison.ipynb', 'tests/test_comparison.py'],
    'reporting.verification': ['nbs/lib/reporting/04_verification.ipynb', 'tests/test_verification.py'],
    'network.store': ['nbs/lib/network/00_store.ipynb', 'tests/test_store.py'],
}  # module -> the chapters and tests that are to notice
WORDS = (r'^\s+"[^"]*"$', r'\blog\.')  # docstrings and log lines are left alone
NOTICED = ('killed', 'timeout', 'segfault')  # in mutmut's words


def laid_out(module, where):
    """Copy what the module's tests need, with mutmut's settings."""
    (where / 'mutants').mkdir(parents=True, exist_ok=True)
    for name in ('ctlab', 'tests', 'nbs', 'data/published', 'settings.ini', 'requirements.lock', 'reports/reference'):
        source, target = ROOT / name, where / name
        if source.is_dir():
            shutil.copytree(
                source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints')
            )
        else:
            shutil.copy(source, target)

    def lines(values):
        return '\n' + '\n'.join(f'    {v}' for v in values)

    (where / 'setup.cfg').write_text(f"""[mutmut]
source_paths = ctlab
only_mutate = ctlab/{module.replace('.', '/')}.py
also_copy ={lines(['nbs', 'data', 'settings.ini', 'reports'])}
pytest_add_cli_args ={lines(['-p', 'chapters', '-p', 'no:randomly', '-p', 'no:cacheprovider', '-p', 'no:xdist'])}
pytest_add_cli_args_test_selection ={lines(TESTS[module])}
do_not_mutate_patterns ={lines(WORDS)}
use_git_change_detection = false
timeout_constant = 5
""")


def verdicts(module, where):
    """Name of a mutant -> what became of it."""
    from mutmut.stats import status_by_exit_code

    meta = json.loads((where / 'mutants' / 'ctlab' / f'{module.replace(".", "/")}.py.meta').read_text())
    return {name: status_by_exit_code[code] for name, code in meta['exit_code_by_key'].items()}


def _loose(line):
    """Write a line without the difference between less and at most."""
    return re.sub(r'([<>])=', r'\1', line)


SAME = (  # what a mutant changed, as its lines before and after; and why nobody could notice
    (
        lambda a, b: (
            a.lower() == b.lower() and re.search(r"['\"](SELECT|INSERT|DELETE|UPDATE|BEGIN|ROLLBACK|CREATE)", a)
        ),
        'SQL knows no upper and lower case',
    ),
    (
        lambda a, b: (
            a.lower() == b.lower() and re.search(r"^\('\w+', '\w+', '\w+'\),$|'i\.\w+'|key = 'uid'|' AND '", a)
        ),
        'names of tables and columns, which SQL knows in any case',
    ),
    (
        lambda a, b: (
            'str(' in a
            and re.sub(r"\.get\(('\w+'), ''\)", r'.get(\1)', a)
            == re.sub(r"\.get\(('\w+'), (None|'XXXX'|)\)", r'.get(\1)', b)
        ),
        'a default that is compared with other words',
    ),
    (
        lambda a, b: re.sub(r', (float|int)\)', ')', a) == re.sub(r', (None)?\)', ')', b),
        'numbers that are of that kind',
    ),
    (
        lambda a, b: re.search(r'slack|blur|step', a) and _loose(a) == _loose(b),
        'a tolerance that no printed number meets to the last bit',
    ),
    (
        lambda a, b: re.sub(r'(isnan\(.*?)[+-]', r'\1', a) == re.sub(r'(isnan\(.*?)[+-]', r'\1', b),
        'what is no number stays none, added or taken away',
    ),
    (lambda a, b: a.replace(', None)', ', )') == b, 'what is missing is None without being said'),
    (
        lambda a, b: a.startswith('if stored == width or not signed and high_bit == stored - 1'),
        'a shortcut that is not taken; the long way gives the same',
    ),
    (
        lambda a, b: re.sub(r', copy=\w+|, (?=\))', '', a) == re.sub(r', copy=\w+|, (?=\))', '', b),
        'a copy holds the same numbers',
    ),
)


def diffs(where, names):
    """Name of a mutant -> its lines before and after."""
    from mutmut.configuration import reset_config
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    here, found = os.getcwd(), {}
    os.chdir(where)
    reset_config()  # it keeps the module before
    try:
        for name in names:
            lines = get_diff_for_mutant(name).splitlines()[2:]
            found[name] = [' '.join(line[1:].strip() for line in lines if line[:1] == sign) for sign in '-+']
    finally:
        os.chdir(here)
    return found


def why_the_same(before, after):
    """Why a mutant changes nothing that anybody could notice; empty when somebody should."""
    return next((reason for rule, reason in SAME if rule(before, after)), '')


def run_mutants(where, jobs):
    """Run mutmut in a folder."""
    environment = os.environ | {
        'PYTHONPATH': f'{where / "mutants"}:{where / "tests"}',
        'OMP_NUM_THREADS': '1',
        'MPLBACKEND': 'Agg',
        'PYTHONWARNINGS': 'ignore',
    }
    mutmut = str(Path(sys.executable).with_name('mutmut'))
    with open(where / 'log.txt', 'w') as log:
        subprocess.run(
            [mutmut, 'run', '--max-children', str(jobs)],
            cwd=where,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def main():
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument('module', nargs='*', help=', '.join(TESTS))
    ask.add_argument('--jobs', type=int, default=2)
    ask.add_argument('--show', action='store_true', help='print what the survivors changed')
    asked = ask.parse_args()
    for module in asked.module or TESTS:
        where = ROOT / 'work' / 'mutants' / module
        laid_out(module, where)
        run_mutants(where, asked.jobs)
        found = verdicts(module, where)
        left = diffs(where, [n for n, v in found.items() if v not in NOTICED])
        reasons = {name: why_the_same(*lines) for name, lines in left.items()}
        same = sum(bool(r) for r in reasons.values())
        noticed, counted = len(found) - len(left), len(found) - same
        share = f'{100 * noticed / max(1, counted):.0f} %'
        row = (f'`{module}`', len(found), noticed, same, counted - noticed, share)
        print('|', ' | '.join(map(str, row)), '|', flush=True)
        if asked.show:
            told = {name: change for name, change in left.items() if not reasons[name]}
            for name, (before, after) in told.items():
                print(f'    {name.rpartition(".")[2]}\n        - {before}\n        + {after}', flush=True)


if __name__ == '__main__':
    main()
