"""What the tests share: the checkout, the tiny cohort, and the command in a process of its own."""

import collections
import gc
import itertools
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import forks
import pytest

from ctlab.core.parallel import LIBRARIES, process_context, settle_fork
from ctlab.interfaces.kernels import KERNEL_MODULES, TRAINING_MODULES

ROOT = Path(__file__).resolve().parents[1]
if 'CTLAB_TEST_HOME' not in os.environ:  # tests see nobody's settings, and need no home that can be written
    os.environ['CTLAB_TEST_HOME'] = os.environ['HOME'] = tempfile.mkdtemp(prefix='ctlab-home-')
    for name in [n for n in os.environ if n.startswith('XDG_')]:
        del os.environ[name]
REAL = Path(os.environ.get('CTLAB_REAL_DATA', ROOT.parent / 'shared' / 'real')) / 'totalsegmentator'


PATIENCE = 300.0  # s that a test waits for what takes a second where nothing else runs


def free_port():
    """Find a port that nobody listens on."""
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(port, seconds=PATIENCE):
    """Until somebody listens on a port."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection(('127.0.0.1', port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f'nobody listens on {port}')


def eventually(read, wanted, pause=time.sleep):
    """Read until what is read twice running is as wanted: a busy machine answers late, and in parts."""
    until, last = time.monotonic() + PATIENCE, None
    while True:
        value = read()
        if wanted(value) and value == last:
            return value
        assert time.monotonic() < until, f'still {value!r}'
        last = value
        pause(0.25)


def waits(page):
    """Wait so that the page goes on meanwhile."""
    return lambda seconds: page.wait_for_timeout(1000 * seconds)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the tests of a file one worker and its fixtures; studies share nothing and go to whoever is free."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition('::')[0]
            return nodeid if file.endswith('test_studies.py') else file

    config.option.loadscopereorder = False  # the order is `pytest_collection_modifyitems`'s
    return ByFile(config, log)


LONGEST = (
    'test_app',
    'test_segmentation',
    'test_network',
    'test_label',
    'test_viewer',
    'test_totalsegmentator',
    'test_readme',
    'test_studies',
    'test_hostile',
    'test_advice',
)  # begun first, so that no worker is left with one of them


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Mark tests that ask for real data (-m 'not real' leaves them out), and start long files first."""
    for item in items:
        if 'real' in getattr(item, 'fixturenames', ()):
            item.add_marker('real')
    rank = {name: k for k, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_terminal_summary(terminalreporter, config):
    """One line: what was skipped, why, and what would run it; kept for the last line of `make test`."""
    why = collections.Counter(
        str(r.longrepr[2]).removeprefix('Skipped: ') for r in terminalreporter.stats.get('skipped', ())
    )
    line = '; '.join(f'{n} test{"s" if n > 1 else ""}: {reason}' for reason, n in why.most_common())
    line = f'skipped: {line}' if line else 'nothing was skipped'
    seed = getattr(config.option, 'randomly_seed', None)
    terminalreporter.write_line(f'{line} (order by -p randomly, seed {seed})' if seed is not None else line)
    (ROOT / 'reports' / 'test').mkdir(parents=True, exist_ok=True)
    (ROOT / 'reports' / 'test' / 'skipped.txt').write_text(line + '\n')


def pytest_unconfigure(config):
    if not hasattr(config, 'workerinput'):
        shutil.rmtree(os.environ['CTLAB_TEST_HOME'], ignore_errors=True)


@pytest.fixture(scope='session')
def root():
    return ROOT


@pytest.fixture(scope='session')
def tiny():
    """Draw the tiny cohort on first use."""
    from ctlab.cohort.layout import ensure_cohort
    from ctlab.core.settings import Settings

    return ensure_cohort(Settings())


@pytest.fixture(scope='session')
def finished_runs(tiny, ctlab, tmp_path_factory):
    """Both folds of approach 1 at preset tiny, as `ctlab run` makes them, by whichever worker needs them first."""
    from filelock import FileLock

    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ:
        folder = folder.parent
    with FileLock(folder / 'finished.lock'):
        if not (folder / 'finished').exists():
            ended = ctlab(
                'run',
                'approach1',
                '--folds',
                'all',
                '--jobs',
                2,
                '--out',
                folder / 'notebooks',
                '-p',
                'out_dir',
                folder / 'runs',
                '-p',
                'n_folds',
                2,
                env={'OMP_NUM_THREADS': '1'},
            )
            assert ended.returncode == 0, ended.stdout + ended.stderr
            (folder / 'finished').touch()
    return folder / 'runs'


@pytest.fixture(scope='session')
def real():
    """Real test data, where it is at hand: an addition, no other test needs it."""
    if not REAL.is_dir():
        pytest.skip(
            "real scans are not beside the checkout; set CTLAB_REAL_DATA to a folder with TotalSegmentator's "
            'test files (totalsegmentator/) to run them'
        )
    return REAL


def run_command(*arguments, cwd=ROOT, env=None):
    """Run the command as a shell starts it; returns the finished process."""
    command = [str(Path(sys.executable).with_name('ctlab')), *map(str, arguments)]
    env = os.environ | {'COLUMNS': '200'} | (env or {})
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env)


FORKS = process_context(
    'forks',
    'ctlab.interfaces.cli',
    'ctlab.learn.training',
    'ctlab.organs.organ_model',
    'ctlab.trauma.predict',
    'monai',
    'papermill',
    'highdicom',
    *LIBRARIES,
    *KERNEL_MODULES,
    *TRAINING_MODULES,
)  # slow to import


if 'CTLAB_TEST_FORKS' in os.environ:
    forks.attach(os.environ['CTLAB_TEST_FORKS'])


def pytest_configure(config):
    if getattr(config.option, 'numprocesses', None) and not hasattr(config, 'workerinput'):
        os.environ['CTLAB_TEST_FORKS'] = forks.share()


def pytest_collection_finish():
    gc.freeze()  # what is imported by now stays; a training looks for garbage when it ends


def _as_command(arguments, cwd, env, out, err):
    """Run the command in a process that has imported the heavy packages."""
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.stdout, sys.stderr = (open(n, 'w', buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115, they live on
    os.chdir(cwd)
    settle_fork(env)
    sys.argv = ['ctlab', *arguments]
    from ctlab.interfaces.cli import main

    main()


@pytest.fixture(scope='session')
def ctlab(tmp_path_factory):
    """Run the command in a process of its own, forked from one that has the heavy imports."""
    folder, count = tmp_path_factory.mktemp('said'), itertools.count()

    def run(*arguments, cwd=ROOT, env=None):
        out, err = (folder / f'{next(count)}.{name}' for name in ('out', 'err'))
        arguments, env = list(map(str, arguments)), dict(os.environ) | {'COLUMNS': '200'} | (env or {})
        forks.share()
        process = FORKS.Process(target=_as_command, args=(arguments, str(cwd), env, str(out), str(err)))
        process.start()
        process.join()
        return subprocess.CompletedProcess(['ctlab', *arguments], process.exitcode, out.read_text(), err.read_text())

    return run


def _as_script(path, arguments):
    """Run a script as the main program of a session of its own, and say nothing."""
    os.setsid()
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    gc.freeze()
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name='__main__')


def start_script(path, *arguments):
    """Start a script in a process that has imported the heavy packages; its number is that of its group."""
    forks.share()
    process = FORKS.Process(target=_as_script, args=(str(path), list(map(str, arguments))))
    process.start()
    return process


@pytest.fixture(scope='session')
def scanner_series(tmp_path_factory):
    """Five slices of a CT series as a scanner wrote them, from pydicom's own test files (16 × 16 pixels)."""
    import pydicom.data

    there = Path(pydicom.data.__file__).parent / 'test_files' / 'dicomdirtests' / '98892001' / 'CT5N'
    folder = tmp_path_factory.mktemp('scanner') / 'CT5N'
    shutil.copytree(there, folder)
    return folder


CHROMIUM = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p), None)


@pytest.fixture(scope='module')
def browser():
    """Chromium, where there is one."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='session')
def shots(root):
    """Where screenshots are kept."""
    (root / 'reports' / 'test').mkdir(parents=True, exist_ok=True)
    return root / 'reports' / 'test'
