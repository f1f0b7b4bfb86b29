"""A cohort in an S3 store on loopback: the same stacks as from the disk, and how much of it crossed the line."""

import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from ctlab.cohort.cleaning import clean_cohort
from ctlab.cohort.labels import read_labels
from ctlab.cohort.stacks import StackPreprocessing, catalogue, prepare

sys.path.append(str(ROOT / 'benchmarks'))
from remote import serving

RECIPE = StackPreprocessing(20.0, 32, normalise='none')


@pytest.fixture(scope='module')
def line():
    """Provide an object store and a client."""
    with serving() as line:
        yield line


@pytest.fixture(scope='module')
def both(line, tmp_path_factory):
    """Make a small cohort here and in the store: three odd scans, one scan of wide slices, a file that is none."""
    import fsspec

    from ctlab.phantoms.cohorts import Preset, make_cohort

    here = tmp_path_factory.mktemp('far') / 'rsna'
    make_cohort(
        here, Preset(2, 256, 7.0, (5.0,), True, True), 1, {'multiframe': 0.3, 'localiser': 0.3}, 1, progress=False
    )
    series = sorted((here / 'train_images').glob('*/*'))
    (series[0] / 'broken.dcm').write_bytes(b'no DICOM at all')
    shutil.rmtree(here / 'truth')
    (here / 'README.txt').unlink()
    store = fsspec.filesystem('s3', skip_instance_cache=True)
    store.mkdir('hospital')
    store.put(str(here), 'hospital/', recursive=True)
    assert len(store.find('hospital/rsna')) == sum(p.is_file() for p in here.rglob('*'))
    return here, 's3://hospital/rsna'


def test_a_cohort_in_a_store_is_the_same_cohort(both, line, tmp_path):
    here, url = both
    line.bytes = 0
    there = prepare(url, tmp_path / 'there', RECIPE, 1, progress=False)
    crossed = line.bytes
    near = prepare(here, tmp_path / 'near', RECIPE, 1, progress=False)
    pd.testing.assert_frame_equal(there.table.drop(columns='reason'), near.table.drop(columns='reason'))
    for s in near.usable['series_id']:
        assert np.array_equal(near.load(s), there.load(s))
    line.bytes = 0
    prepare(url, tmp_path / 'there', RECIPE, 1, progress=False)
    assert line.bytes < 0.05 * crossed, 'the second time nothing is fetched but lists'
    a, b = catalogue(url, tmp_path / 'there', 1, False), catalogue(here, tmp_path / 'near', 1, False)
    pd.testing.assert_frame_equal(a.series.drop(columns='reason'), b.series.drop(columns='reason'))
    pd.testing.assert_frame_equal(a.instances().drop(columns='reason'), b.instances().drop(columns='reason'))
    assert a.series['unreadable'].sum() == 1
    pd.testing.assert_frame_equal(
        clean_cohort(url, None, workers=1, progress=False).drop(columns='reason'),
        clean_cohort(here, None, workers=1, progress=False).drop(columns='reason'),
    )
    pd.testing.assert_frame_equal(read_labels(url), read_labels(here))


def test_a_series_costs_its_headers_and_the_slices_that_are_kept(both, line, tmp_path):
    from ctlab.cohort.stacks import make_stack

    here, url = both
    folder = max(
        (p for p in (here / 'train_images').glob('*/*') if len(list(p.iterdir())) > 50),
        key=lambda p: sum(f.stat().st_size for f in p.iterdir()),
    )
    line.bytes = 0
    stack, _ = make_stack(f'{url}/{folder.relative_to(here).as_posix()}', RECIPE)
    files = list(folder.iterdir())
    whole = sum(f.stat().st_size for f in files)
    kept = whole / len(files) * len(stack)
    assert line.bytes < kept + len(files) * (4096 + 1500) + 100_000 and line.bytes < 0.6 * whole, (
        line.bytes,
        kept,
        whole,
    )


def test_masks_and_a_whole_study_from_a_store(both, line, tmp_path):
    from ctlab.cohort.masks import RsnaMasks
    from ctlab.core.settings import Settings
    from ctlab.trauma.approach1 import load_data

    here, url = both
    row = {'series_id': int(next((here / 'segmentations').glob('*.nii')).stem)}
    assert np.array_equal(RsnaMasks(url)(row).array, RsnaMasks(str(here))(row).array)
    data = load_data(Settings(url, str(tmp_path / 'work'), str(tmp_path / 'out'), n_folds=2), 'cleaned')
    assert len(data.table) and set(data.table['fold']) <= {0, 1} and not Settings(url).phantom


def test_what_is_not_there_is_told(line, ctlab, tmp_path):
    with pytest.raises(FileNotFoundError, match='train_images'):
        prepare('s3://hospital/nothing', tmp_path, progress=False)
    told = ctlab('prepare', 'file:///etc', tmp_path)
    assert told.returncode == 1 and 'a URL begins with' in told.stdout + told.stderr
