"""The README's own commands in a checkout of one's own: they work, and `git status` is clean after each."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, free_port, wait_for

ELSEWHERE = {
    'ctlab run 13_start -p preset demo': 'half an hour; its form at preset tiny is run in tests/test_studies.py',
    'ctlab run 03_approach1 --folds all -p data_root /data/rsna -p preset full': 'needs the download',
    'ctlab report approach1 --preset full --data-root /data/rsna': 'needs the download',
    'ctlab echo PACS@192.168.0.7:104': 'needs a PACS; tests/test_network.py has some',
    'ctlab fetch PACS@192.168.0.7:104 data/ours --patient 4711 --anonymise': 'needs a PACS',
}  # of the README, and why not here


def commands():
    """List every command of the README: of the five ways in, and of the blocks, without its remark."""
    text = (ROOT / 'README.md').read_text()
    start = re.findall(r'`(ctlab [^`]+)`', text.partition('## Where to start')[2].partition('## Two commands')[0])
    blocks = re.findall(r'```bash\n(.*?)```', text, re.S)
    lines = [line.partition('#')[0].strip() for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys([*start, *(line for line in lines if line.startswith(('ctlab ', 'papermill ')))]))


@pytest.fixture(scope='module')
def checkout(tmp_path_factory, tiny):
    """Clone what git tracks, with the phantoms that were drawn already."""
    root = tmp_path_factory.mktemp('stranger') / 'ct lab'
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split('\0')):
        if not (ROOT / name).is_file():
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    git = ('git', '-c', 'user.name=a', '-c', 'user.email=a@b', '-c', 'init.defaultBranch=main')
    for command in (('init', '-q'), ('add', '-A'), ('commit', '-q', '-m', 'as it is')):
        subprocess.run([*git, *command], cwd=root, check=True, capture_output=True)
    shutil.copytree(tiny, root / 'data' / 'phantom' / 'tiny')
    return root


def status(checkout):
    return subprocess.run(
        ['git', 'status', '--porcelain', '--untracked-files=all'],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_every_command_leaves_nothing_behind(ctlab, checkout, tmp_path):
    import pandas as pd

    import ctlab as lab
    from ctlab.cohort.layout import list_series
    from ctlab.core.anatomy import LABEL_COLUMNS

    series = list_series(checkout / 'data' / 'phantom' / 'tiny')['folder'][0]
    lab.write(lab.read(series), checkout / 'scan.nii.gz')
    (checkout / '.git' / 'info' / 'exclude').write_text('/scan.nii.gz\n')  # what the reader brings along
    shutil.copytree(series, tmp_path / 'export' / 'disc')
    labels = pd.read_csv(checkout / 'data' / 'phantom' / 'tiny' / 'train_2024.csv')
    labels[['patient_id', *LABEL_COLUMNS]].to_csv(tmp_path / 'submission.csv', index=False)
    own = {
        '/path/to/series': series,
        'submission.csv': tmp_path / 'submission.csv',
        'train.csv': checkout / 'data' / 'phantom' / 'tiny' / 'train_2024.csv',
        '/path/to/export': tmp_path / 'export',
        '/data/ours': tmp_path / 'ours',
        '/data/rsna': checkout / 'data' / 'phantom' / 'tiny',
    }
    done, fails = [], {'audit': 1, 'doctor': None}  # approach 1's table is wrong, as the audit says
    for line in commands():
        words = [str(own.get(w, w)) for w in line.split()]
        if line in ELSEWHERE or words[1] in ('app', 'label', 'node') or words[0] == 'papermill':
            continue
        ended = ctlab(*words[1:], cwd=checkout)
        wanted = fails.get(words[1], 0)
        assert wanted is None or ended.returncode == wanted, (line, ended.stdout, ended.stderr)
        assert status(checkout) == '', line
        done.append(words[1])
    assert {'doctor', 'run', 'report', 'clean', 'view', 'segment', 'arrange', 'audit', 'verify', 'predict'} <= set(done)
    assert set(ELSEWHERE) <= set(commands()) and (checkout / 'predictions' / 'predictions.html').exists()


@pytest.mark.parametrize('line', [c for c in commands() if c.split()[1] in ('app', 'label', 'node')])
def test_what_listens_leaves_nothing_behind(checkout, line):
    port = free_port()
    more = ['--port', str(port)] + (['--no-browser'] if ' app' in line else [])
    command = [str(Path(sys.executable).with_name('ctlab')), *line.split()[1:], *more]
    process = subprocess.Popen(
        command,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    try:
        wait_for(port)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert status(checkout) == ''


def test_papermill_leaves_nothing_behind(checkout):
    line = next(c for c in commands() if c.startswith('papermill '))
    words = line.split()
    ended = subprocess.run(
        [str(Path(sys.executable).with_name('papermill')), *words[1:]], cwd=checkout, capture_output=True, text=True
    )
    assert ended.returncode == 0 and status(checkout) == '', ended.stderr[-2000:]
