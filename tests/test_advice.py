"""What an error advises works, through the door at which a person meets the error."""

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ctlab as lab
from ctlab.scans.dicom import DicomError, write_series
from ctlab.scans.volume import Volume, make_volume


def scan(n=24, seed=0):
    values = np.random.default_rng(seed).integers(-500, 500, (n, 16, 20)).astype(np.int16)
    return make_volume(values, (3.0, 2.0, 2.0))


@pytest.fixture
def page(ctlab, tmp_path):
    """Look at something by the command."""
    return lambda source, *options: ctlab('view', source, tmp_path / 'page.html', *options)


def refused(told, *words):
    assert told.returncode == 1 and 'Traceback' not in told.stderr, told.stderr
    assert all(w in told.stderr for w in words), told.stderr


def test_several_series_one_is_chosen(page, tmp_path):
    for k in (1, 2):
        write_series(scan(seed=k), tmp_path / 'disk' / str(k), 'one', f'1.2.3.{k}')
    with pytest.raises(DicomError, match=r"choose one with series_uid='…' \(commands: --series …\)"):
        lab.read(tmp_path / 'disk')
    assert np.array_equal(lab.read(tmp_path / 'disk', series_uid='1.2.3.2').array, scan(seed=2).array)
    refused(page(tmp_path / 'disk'), '--series', '1.2.3.1', '1.2.3.2')
    assert page(tmp_path / 'disk', '--series', '1.2.3.1').returncode == 0
    with pytest.raises(DicomError, match='no series 1.2.4; found 1.2.3.1, 1.2.3.2'):
        lab.read(tmp_path / 'disk', series_uid='1.2.4')


def test_a_series_with_a_gap_is_read_all_the_same(page, tmp_path):
    whole = scan()
    for k, path in enumerate(write_series(whole, tmp_path / 'disk')):
        if 8 <= k < 17:
            path.unlink()
    with pytest.raises(DicomError, match=r"with gaps='mark' \(commands: --gaps mark\)"):
        lab.read(tmp_path / 'disk')
    read = lab.read(tmp_path / 'disk', gaps='mark')
    assert read.meta['gaps'] == list(range(8, 17)) and np.array_equal(read.array[17:], whole.array[17:])
    refused(page(tmp_path / 'disk'), '--gaps mark')
    assert page(tmp_path / 'disk', '--gaps', 'mark').returncode == 0


def test_slices_on_no_grid_are_left_out_by_a_list(tmp_path):
    from pydicom import dcmread

    paths = write_series(scan(), tmp_path / 'disk')
    for path in paths[20:]:
        slice_ = dcmread(path)
        slice_.ImagePositionPatient[2] += 1.3
        slice_.save_as(path)
    with pytest.raises(DicomError, match='give a list of files that do, or a folder with these alone'):
        lab.read(tmp_path / 'disk')
    assert lab.read(paths[:20]).shape[0] == 20
    (tmp_path / 'alone').mkdir()
    for path in paths[:20]:
        shutil.copy(path, tmp_path / 'alone')
    assert lab.read(tmp_path / 'alone').shape[0] == 20


def test_the_second_acquisition(page, tmp_path):
    first, second = scan(seed=1), scan(seed=2)
    write_series(first, tmp_path / 'disk' / 'a', series_uid='1.2.3', tags={'AcquisitionNumber': 1})
    for path in write_series(second, tmp_path / 'b', series_uid='1.2.3', tags={'AcquisitionNumber': 2}):
        path.rename(tmp_path / 'disk' / f'b{path.name}')
    read = lab.read(tmp_path / 'disk')
    assert np.array_equal(read.array, first.array)
    assert 'acquisition=2 (commands: --acquisition 2) gives the next' in ' '.join(read.meta['warnings'])
    assert np.array_equal(lab.read(tmp_path / 'disk', acquisition=2).array, second.array)
    assert page(tmp_path / 'disk', '--acquisition', '2').returncode == 0
    refused(page(tmp_path / 'disk', '--acquisition', '3'), 'acquisition 3 of 2')


def test_what_is_for_dicom_is_not_for_nifti(tmp_path):
    lab.write(scan(), tmp_path / 'scan.nii.gz')
    with pytest.raises(ValueError, match='gaps can be chosen for DICOM'):
        lab.read(tmp_path / 'scan.nii.gz', gaps='mark')
    with pytest.raises(TypeError, match='read takes series_uid, spacing, acquisition and gaps, not space'):
        lab.read(tmp_path / 'scan.nii.gz', space=1)


def test_archives_and_folders_in_place_of_them(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'disk' / 'DICOMDIR').write_bytes(b'nothing')
    write_series(scan(), tmp_path / 'disk' / 'series')
    with pytest.raises(ValueError, match='give the folder instead'):
        lab.read(tmp_path / 'disk' / 'DICOMDIR')
    assert lab.read(tmp_path / 'disk').shape == (24, 16, 20)
    for name in ('a', 'b'):
        lab.write(scan(), tmp_path / f'{name}.nii.gz')
    with zipfile.ZipFile(tmp_path / 'two.zip', 'w') as z:
        for name in ('a', 'b'):
            z.write(tmp_path / f'{name}.nii.gz', f'{name}.nii.gz')
    with pytest.raises(ValueError, match='holds 2 NIfTI files; unpack it and choose one'):
        lab.read(tmp_path / 'two.zip')
    zipfile.ZipFile(tmp_path / 'two.zip').extractall(tmp_path / 'unpacked')
    assert lab.read(tmp_path / 'unpacked' / 'b.nii.gz').shape == (24, 16, 20)


def test_a_folder_of_its_own(tmp_path):
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'something').touch()
    with pytest.raises(FileExistsError, match='a series gets a folder of its own'):
        lab.write(scan(), tmp_path / 'full')
    assert lab.read(lab.write(scan(), tmp_path / 'new')).shape == (24, 16, 20)


def test_numbers_that_are_none_are_written_in_their_place(tmp_path):
    import nibabel

    values = np.full((5, 6, 7), np.nan, np.float32)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / 'nan.nii')
    with pytest.raises(ValueError, match='write what they stand for, for example -1024'):
        lab.read(tmp_path / 'nan.nii')
    nibabel.save(nibabel.Nifti1Image(np.nan_to_num(values, nan=-1024), np.eye(4)), tmp_path / 'air.nii')
    assert (lab.read(tmp_path / 'air.nii').array == -1024).all()


def test_labels_are_filled_in(ctlab, tmp_path):
    import pandas as pd

    from ctlab.cohort.labels import read_labels

    write_series(scan(), tmp_path / 'export')
    assert ctlab('arrange', tmp_path / 'export', tmp_path / 'ours').returncode == 0
    with pytest.raises(FileNotFoundError, match='fill in labels_to_fill.csv and save it as train.csv'):
        read_labels(tmp_path / 'ours')
    table = pd.read_csv(tmp_path / 'ours' / 'labels_to_fill.csv')
    healthy = [c for c in table.columns if c.endswith('_healthy')]
    table.assign(**{c: int(c in healthy) for c in table.columns[1:]}).to_csv(
        tmp_path / 'ours' / 'train.csv', index=False
    )
    assert len(read_labels(tmp_path / 'ours')) == 1


def test_a_mask_is_resampled_to_its_series(tmp_path):
    from ctlab.cohort.masks import write_dicom_seg
    from ctlab.core.anatomy import STRUCTURE_CODES
    from ctlab.scans.volume import resample

    whole = scan()
    write_series(whole, tmp_path / 'series')
    mask = np.zeros(whole.shape, np.uint8)
    mask[5:9, 4:9, 4:12] = STRUCTURE_CODES['liver']
    coarse = resample(Volume(mask, whole.affine), 4.0, labels=True)
    with pytest.raises(ValueError, match='resample the mask to the series first'):
        write_dicom_seg(coarse, tmp_path / 'series', tmp_path / 'seg.dcm')
    read = lab.read(tmp_path / 'series')
    assert write_dicom_seg(resample(coarse, like=read, labels=True), tmp_path / 'series', tmp_path / 'seg.dcm') == [
        'liver'
    ]


def test_windows_and_the_viewer_s_food(tmp_path):
    from ctlab.core.anatomy import window

    with pytest.raises(ValueError, match=r'or give \(centre, width\)'):
        window('pink')
    assert window((50, 400)) == (-150, 250)
    with pytest.raises(TypeError, match='read one with ctlab.read'):
        lab.view(np.zeros((3, 3, 3)))
    lab.write(scan(), tmp_path / 'scan.nii.gz')
    assert lab.view(lab.read(tmp_path / 'scan.nii.gz')) is not None


def test_derived_data_goes_elsewhere_and_is_made_again(tiny, tmp_path):
    from ctlab.cohort.stacks import StackPreprocessing, prepare, read_slices

    with pytest.raises(ValueError, match='choose another folder for derived data'):
        prepare(tiny, tiny / 'train_images' / 'derived', StackPreprocessing(5.0, 16), progress=False)
    stacks = prepare(tiny, tmp_path / 'work', StackPreprocessing(5.0, 16), progress=False)
    path = Path(stacks.folder) / stacks.usable['stack'].iloc[0]
    whole, n = path.read_bytes(), len(np.load(path))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(OSError, match='delete it and prepare again'):
        read_slices(path, [n - 1])
    path.unlink()
    again = prepare(tiny, tmp_path / 'work', StackPreprocessing(5.0, 16), progress=False)
    assert path.read_bytes() == whole and len(again.usable) == len(stacks.usable)


def test_packages_that_an_extra_brings(root):
    import configparser

    from ctlab.interfaces.cli import _EXTRAS

    settings = configparser.ConfigParser(delimiters=['='], interpolation=None)
    settings.read(root / 'settings.ini')
    assert {f'{e}_requirements' for e in _EXTRAS.values()} <= set(settings['DEFAULT'])


def test_the_workbench_shows_a_series_with_a_gap_and_its_root_opens_a_folder(tmp_path):
    from ctlab.interfaces.workbench import Workspace

    for k, path in enumerate(write_series(scan(), tmp_path / 'there' / 'disk')):
        if 8 <= k < 17:
            path.unlink()
    with pytest.raises(PermissionError, match='start the workbench with --root to allow it'):
        Workspace(tmp_path / 'work', (tmp_path / 'elsewhere',)).resolve_allowed(tmp_path / 'there' / 'disk')
    work = Workspace(tmp_path / 'work', (tmp_path / 'there',))
    work.import_files(work.resolve_allowed(tmp_path / 'there' / 'disk'))
    assert work.read(work.scans()[0]).meta['gaps'] == list(range(8, 17))


def test_a_report_without_proof_is_written_with_one(ctlab, finished_runs, tmp_path):
    shutil.copytree(finished_runs, tmp_path / 'runs')
    folder = tmp_path / 'runs' / 'approach1' / 'tiny'
    (folder / 'approach1-tiny.csv').write_text('a\n1\n')
    for name in ('approach1-tiny.parquet', 'approach1-tiny.json'):
        (folder / name).unlink(missing_ok=True)
    refused(ctlab('verify', folder / 'approach1-tiny.csv'), 'write the report with ctlab report')
    assert ctlab('report', 'approach1', '--out-dir', tmp_path / 'runs').returncode == 0
    assert ctlab('verify', folder / 'approach1-tiny.csv').returncode == 0
