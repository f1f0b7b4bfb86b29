"What the tests share: the checkout, the tiny cohort, and the command in a process of its own."
import os, shutil, socket, subprocess, sys, time
from pathlib import Path
import pytest

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get('CTLAB_REAL_DATA', ROOT.parent/'shared'/'real'))/'totalsegmentator'


def free_port():
    "A port that nobody listens on."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def wait_for(port, seconds=30.):
    "Until somebody listens on a port."
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try: socket.create_connection(('127.0.0.1', port), 1).close(); return
        except OSError: time.sleep(.1)
    raise TimeoutError(f'nobody listens on {port}')


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "The tests of a file share a worker and its fixtures; studies share nothing and go to whoever is free."
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.partition('::')[0]
            return nodeid if file.endswith('test_studies.py') else file

    return ByFile(config, log)


@pytest.fixture(scope='session')
def root(): return ROOT


@pytest.fixture(scope='session')
def tiny():
    "The tiny cohort, drawn on first use."
    from ctlab.cohort.layout import ensure_cohort
    from ctlab.core.settings import Settings
    return ensure_cohort(Settings())


@pytest.fixture(scope='session')
def finished_runs(tiny, ctlab, tmp_path_factory):
    "Both folds of approach 1 at preset tiny, as `ctlab run` makes them, by whichever worker needs them first."
    from filelock import FileLock
    folder = tmp_path_factory.getbasetemp()
    if 'PYTEST_XDIST_WORKER' in os.environ: folder = folder.parent
    with FileLock(folder/'finished.lock'):
        if not (folder/'finished').exists():
            ended = ctlab('run', 'approach1', '--folds', 'all', '--jobs', 2, '--out', folder/'notebooks',
                          '-p', 'out_dir', folder/'runs', '-p', 'n_folds', 2, env={'OMP_NUM_THREADS': '1'})
            assert ended.returncode == 0, ended.stdout + ended.stderr
            (folder/'finished').touch()
    return folder/'runs'


@pytest.fixture(scope='session')
def real():
    "Real test data, where it is at hand."
    if not REAL.is_dir(): pytest.skip(f'{REAL} is absent; set CTLAB_REAL_DATA to run against real scans')
    return REAL


@pytest.fixture(scope='session')
def ctlab():
    "Run the command; returns the finished process."
    def run(*arguments, **options):
        command = [str(Path(sys.executable).with_name('ctlab')), *map(str, arguments)]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=options.pop('cwd', ROOT),
            env=os.environ | {'COLUMNS': '200'} | options.pop('env', {}),
            **options,
        )
    return run


CHROMIUM = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p), None)


@pytest.fixture(scope='module')
def browser():
    "Chromium, where there is one."
    if CHROMIUM is None: pytest.skip('no Chromium on this machine; install Debian\'s package chromium')
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(scope='session')
def shots(root):
    "Where screenshots are kept."
    (root/'reports'/'test').mkdir(parents=True, exist_ok=True)
    return root/'reports'/'test'
