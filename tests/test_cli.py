"""The command: what it says, and how it ends."""

import json
import re

import pandas as pd
import pytest
from conftest import ROOT, run_command

from ctlab.interfaces import setup_commands


@pytest.fixture(scope='module')
def ctlab():
    """Start the command as a shell starts it."""
    return run_command


def test_help_shows_every_command_and_examples(ctlab):
    shown = ctlab('--help')
    assert shown.returncode == 0
    names = re.findall(r'^│ (\w+) ', shown.stdout, re.M)
    assert {'doctor', 'phantom', 'run', 'report', 'audit', 'site'} <= set(names)
    for name in names:
        page = ctlab(name, '--help')
        assert page.returncode == 0 and 'For example' in page.stdout, name


def test_the_version_is_said(ctlab):
    import ctlab as package

    assert ctlab('--version').stdout.strip() == f'ctlab {package.__version__}'


def test_import_is_light():
    import subprocess
    import sys

    code = (
        'import ctlab, ctlab.interfaces.cli, sys; '
        'heavy = "torch", "monai", "SimpleITK", "matplotlib", "pandas", "numpy"; '
        'print([m for m in heavy if m in sys.modules])'
    )
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == '[]'


def test_doctor_finds_a_sound_environment(ctlab):
    ended = ctlab('doctor', '--json')
    found = json.loads(ended.stdout)
    assert ended.returncode == 0 and not found['advice'], found['advice']
    assert found['packages']['torch'] and set(found['data']) == {'tiny', 'demo', 'full'}


def test_doctor_advises_when_something_is_missing(ctlab, tmp_path):
    (tmp_path / 'settings.ini').write_text('')
    (tmp_path / 'nbs').mkdir()
    (tmp_path / 'requirements.lock').write_text('torch==0.0.1\nno-such-package==1.0\n')
    ended = ctlab('doctor', cwd=tmp_path)
    assert ended.returncode == 1
    assert 'no-such-package is not installed' in ended.stdout and '0.0.1' in ended.stdout


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (('run', 'nosuch'), 'no study is called'),
        (('run', '03_approach1', '-p', 'foo', '3'), 'has no parameter foo'),
        (('run', '03_approach1', '--folds', 'some'), "--folds is 'all' or numbers"),
        (('phantom', 'huge', 'anywhere'), 'there is no cohort or set'),
        (('audit', 'no/such.csv'), 'no/such.csv'),
        (('report', 'nosuch'), 'nosuch'),
    ],
)
def test_mistakes_are_named_and_end_in_failure(ctlab, arguments, expected):
    ended = ctlab(*arguments)
    assert ended.returncode in (1, 2) and expected in ended.stderr, ended
    assert 'Traceback' not in ended.stderr


def test_phantom_does_not_write_into_a_strange_folder(ctlab, tmp_path):
    (tmp_path / 'mine.txt').write_text('precious')
    ended = ctlab('phantom', 'tiny', tmp_path)
    assert ended.returncode == 1 and 'not empty' in ended.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['mine.txt']


def test_audit_of_the_published_tables(ctlab, root):
    wrong = {
        'approach1': 'accuracy, f1, precision, recall, auc_roc',
        'approach1_cleaned': 'accuracy, f1, precision, recall, auc_roc',
    }
    for path in sorted((root / 'data' / 'published').glob('approach*.csv')):
        ended = ctlab('audit', path, '--json')
        found = json.loads(ended.stdout)
        assert ended.returncode == (0 if path.stem == 'approach3' else 1)
        if path.stem in wrong:
            assert ', '.join(found['columns']) == wrong[path.stem]
        if path.stem in ('approach2', 'approach4'):
            swap = {'precision': 'recall', 'recall': 'precision'}
            assert found['columns'] == [swap.get(c, c) for c in found['printed']]


def test_audit_of_something_else(ctlab, tmp_path):
    path = tmp_path / 'table.csv'
    pd.DataFrame({'a': [1], 'b': ['x']}).to_csv(path, index=False)
    ended = ctlab('audit', path)
    assert ended.returncode == 2 and 'table.csv' in ended.stderr and 'Traceback' not in ended.stderr


def test_every_module_imports():
    import importlib
    import pkgutil

    import ctlab as package

    found = [m.name for m in pkgutil.walk_packages(package.__path__, 'ctlab.')]
    assert len(found) > 50
    for name in found:
        importlib.import_module(name)


def test_prepare_and_clean_tell_scripts_what_they_found(ctlab, tiny, tmp_path):
    ended = ctlab('prepare', tiny, tmp_path, '--size', 24, '--json')
    found = json.loads(ended.stdout)
    assert ended.returncode == 0 and found['series'] == found['prepared'] == 27 and found['slices'] > 1000
    assert (tmp_path / 'catalogue' / 'tiny' / 'series.parquet').exists()
    ended = ctlab('clean', tiny, tmp_path, '--json')
    found = json.loads(ended.stdout)
    assert ended.returncode == 0 and found['set aside'] == 2 and found['causes']['sign'] == 1
    assert ctlab('prepare', tmp_path / 'nowhere', tmp_path).returncode == 1
    assert ctlab('prepare', tiny, tmp_path, '--window', 'pink').returncode == 1


def test_segmentation_sets_are_drawn(ctlab, tmp_path):
    ended = ctlab('phantom', 'ircad', tmp_path / 'ircad')
    assert ended.returncode == 0, ended.stderr
    assert (
        len(list((tmp_path / 'ircad').glob('*_orig.nii.gz')))
        == len(list((tmp_path / 'ircad').glob('*_liver.nii.gz')))
        == 6
    )


def test_arrange_makes_a_cohort_and_says_what_it_left(ctlab, tiny, tmp_path):
    import json
    import shutil

    from ctlab.cohort.labels import read_labels

    series = next(p for p in sorted((tiny / 'train_images').glob('*/*')) if len(list(p.iterdir())) > 30)
    export = tmp_path / 'export' / 'disc'
    shutil.copytree(series, export)
    (export / 'README').write_text('no image')
    done = ctlab('arrange', tmp_path / 'export', tmp_path / 'ours', '--json')
    facts = json.loads(done.stdout)
    assert done.returncode == 0 and facts['series'] == 1 and facts['set_aside'] >= 1
    assert (tmp_path / 'ours' / 'train_images' / '1' / '1' / '1.dcm').exists() and 'README' in (
        tmp_path / 'ours' / 'set_aside.csv'
    ).read_text()
    with pytest.raises(FileNotFoundError, match='fill in labels_to_fill.csv'):
        read_labels(tmp_path / 'ours')
    again = ctlab('arrange', tmp_path / 'export', tmp_path / 'ours')
    assert again.returncode == 1 and 'not empty' in again.stderr and 'Traceback' not in again.stderr


def code_cells(notebook):
    return [''.join(c['source']) for c in json.loads(notebook.read_text())['cells'] if c['cell_type'] == 'code']


def test_the_demo_runs_no_recording():
    """What was recorded once, with a browser and by hand, is not run by a command."""
    chapters = sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))
    recorded = [n.stem for n in chapters if all('#| eval: false' in c for c in code_cells(n))]
    assert recorded and set(recorded) <= set(setup_commands._NOT_IN_THE_DEMO) <= {n.stem for n in chapters}


def test_no_cell_needs_real_data():
    """A command runs every cell, also what `nbdev_test` leaves out; a stranger has no real data."""
    asked = {n: [c for c in code_cells(n) if 'real_data_folder() /' in c] for n in (ROOT / 'nbs').rglob('*.ipynb')}
    assert sum(map(len, asked.values())) > 5
    for notebook, cells in asked.items():
        for cell in cells:
            assert re.search(r'\b(if|and)\b.*real_data_folder\(\)', cell), f'{notebook.name}: {cell[:200]}'


def test_the_demo_runs_a_chapter_again_when_the_package_changes(tmp_path, monkeypatch):
    from ctlab.interfaces.setup_commands import _fingerprint

    monkeypatch.setattr('ctlab.core.settings.project_root', lambda: tmp_path)
    (tmp_path / 'ctlab' / 'room').mkdir(parents=True)
    notebook, module = tmp_path / 'one.ipynb', tmp_path / 'ctlab' / 'room' / 'module.py'
    notebook.write_text('{"cells": [{"cell_type": "code", "source": ["1"]}]}')
    module.write_text('a = 1')
    before = _fingerprint(notebook, 'tiny')
    assert before == _fingerprint(notebook, 'tiny') != _fingerprint(notebook, 'demo')
    module.write_text('a = 2')
    assert _fingerprint(notebook, 'tiny') != before
