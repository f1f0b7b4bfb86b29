"""NIfTI beside nibabel and SimpleITK: values, places, types, and what is refused, to the word."""

import gzip

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from ctlab.scans import nifti
from ctlab.scans.nifti import NiftiError, from_nibabel, is_nifti, nifti_stem, read, to_nibabel, write
from ctlab.scans.volume import make_volume


def scan(kind=np.int16, shape=(4, 5, 6)):
    values = np.random.default_rng(0).integers(-900, 900, shape)
    return make_volume(values.astype(kind), (3.0, 2.0, 1.0), (10, 20, -30), np.diag([1.0, -1, 1]))


@pytest.mark.parametrize(
    'name, yes, bare',
    [
        ('a.nii', True, 'a'),
        ('A.NII.GZ', True, 'A'),
        ('x/y.nii.gz', True, 'y'),
        ('a.nii.txt', False, 'a.nii.txt'),
        ('nii', False, 'nii'),
        ('a.b.Nii', True, 'a.b'),
    ],
)
def test_names(name, yes, bare):
    assert is_nifti(name) == yes and nifti_stem(name) == bare


@pytest.mark.parametrize('ending', ['.nii', '.nii.gz', '.NII', '.NII.GZ'])
@pytest.mark.parametrize('kind', [np.int16, np.uint8, np.float32, np.float64, np.int32])
def test_what_is_written_is_what_others_read(tmp_path, kind, ending):
    made, path = scan(kind), tmp_path / f'scan{ending}'
    assert write(made, path) == path
    back = read(path)
    assert back.array.dtype == kind and np.array_equal(back.array, made.array) and np.allclose(back.affine, made.affine)
    assert back.meta == {'file': str(path)}
    if ending.islower():
        image = sitk.ReadImage(str(path))
        assert np.array_equal(sitk.GetArrayFromImage(image), made.array)
        assert np.allclose(image.GetOrigin(), made.origin) and np.allclose(image.GetSpacing(), made.spacing[::-1])
        assert np.allclose(np.reshape(image.GetDirection(), (3, 3)), made.direction, atol=1e-6)
        assert nibabel.load(path).header.get_xyzt_units()[0] == 'mm'


def test_types_on_the_way(tmp_path):
    for kind, wanted in ((bool, np.uint8), (np.int64, np.int32)):
        made = scan(kind)
        assert to_nibabel(made).get_data_dtype() == wanted
        assert np.array_equal(read(write(made, tmp_path / 'a.nii')).array, made.array)
    write(scan(), tmp_path / 'b.nii')
    assert read(tmp_path / 'b.nii', np.float32).array.dtype == np.float32
    first, again = read(tmp_path / 'b.nii'), read(tmp_path / 'b.nii', np.int16)
    assert np.array_equal(first.array, again.array)


@pytest.mark.parametrize('slope, intercept', [(2.0, 0.0), (1.0, -1024.0), (0.5, 7.0), (1.0, 0.0)])
def test_scaled_files_hold_what_their_scale_says(tmp_path, slope, intercept):
    stored = np.random.default_rng(1).integers(0, 4000, (6, 5, 4)).astype(np.int16)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    nibabel.save(image, tmp_path / 'a.nii')
    raw = bytearray((tmp_path / 'a.nii').read_bytes())
    raw[112:120] = np.array([slope, intercept], '<f4').tobytes()
    (tmp_path / 'a.nii').write_bytes(raw)
    got = read(tmp_path / 'a.nii')
    assert np.allclose(got.array.transpose(2, 1, 0), stored * slope + intercept)
    assert got.array.dtype == (np.int16 if (slope, intercept) == (1, 0) else np.float32)


@pytest.mark.parametrize('shape', [(6, 5, 4, 1), (6, 5, 4, 1, 1)])
def test_empty_further_axes_are_left_out(tmp_path, shape):
    values = np.arange(120, dtype=np.int16).reshape(shape)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / 'a.nii')
    assert np.array_equal(read(tmp_path / 'a.nii').array.transpose(2, 1, 0), values.reshape(6, 5, 4))


def test_other_formats_of_nibabel(tmp_path):
    """MGH has no scale in its header; Analyze gives its own."""
    values = np.random.default_rng(2).integers(0, 99, (4, 5, 6)).astype(np.int16)
    got = from_nibabel(nibabel.MGHImage(values, np.diag([2.0, 3, 4, 1])))
    assert np.array_equal(got.array.transpose(2, 1, 0), values) and got.spacing == pytest.approx((4, 3, 2))


@pytest.mark.parametrize('shape', [(4, 5), (4, 5, 6, 2), (4, 5, 6, 1, 3)])
def test_what_is_no_volume(shape):
    with pytest.raises(NiftiError) as error:
        from_nibabel(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)))
    assert str(error.value) == f'expected a 3-D volume, found shape {shape}'


@pytest.mark.parametrize(
    'affine', [np.diag([1.0, 1, 0, 1]), np.diag([1.0, 1, np.inf, 1]), np.diag([1e-4, 1e-4, 9e-2, 1])]
)
def test_voxels_without_a_size(affine):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), None)
    image._affine = affine
    with pytest.raises(NiftiError) as error:
        from_nibabel(image)
    assert str(error.value) == 'its affine gives the voxels no size: where they lie in the patient cannot be known'
    image._affine = np.diag([0.1, 0.1, 0.1, 1.0])
    assert from_nibabel(image).spacing == pytest.approx((0.1, 0.1, 0.1)), 'small voxels are voxels'


def test_numbers_that_are_none(tmp_path):
    values = np.zeros((3, 4, 5), np.float32)
    values[0, 0, :2], values[1, 1, 1] = np.nan, np.inf
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / 'a.nii')
    with pytest.raises(NiftiError) as error:
        read(tmp_path / 'a.nii')
    assert str(error.value) == (
        f'{tmp_path / "a.nii"}: 3 of 60 voxels are not numbers (NaN or infinite); write what they '
        'stand for, for example -1024, in their place'
    )
    colours = np.zeros((3, 4, 5), [('R', 'u1'), ('G', 'u1'), ('B', 'u1')])
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / 'b.nii')
    with pytest.raises(NiftiError, match='where one number per voxel is expected$'):
        read(tmp_path / 'b.nii')
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.complex64), np.eye(4)), tmp_path / 'c.nii')
    with pytest.raises(NiftiError, match='holds complex64 where one number per voxel is expected$'):
        read(tmp_path / 'c.nii')


def test_promises_are_held_against_the_file(tmp_path, monkeypatch):
    write(scan(), tmp_path / 'a.nii')
    whole = (tmp_path / 'a.nii').read_bytes()
    assert len(whole) == 352 + 240
    (tmp_path / 'a.nii').write_bytes(whole[: 200 + 39])
    with pytest.raises(NiftiError, match='not readable as NIfTI'):
        read(tmp_path / 'a.nii')
    (tmp_path / 'b.nii').write_bytes(whole[:-1])
    with pytest.raises(NiftiError, match=r'(?s)not readable as NIfTI \(.+\); is the file complete\?$'):
        read(tmp_path / 'b.nii')
    long = bytearray(whole)
    long[42:44] = np.array([200], '<i2').tobytes()
    for name, content in (('c.nii', bytes(long)), ('c.NII', bytes(long))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NiftiError) as error:
            read(tmp_path / name)
        assert str(error.value) == (
            f'{tmp_path / name}: promises 8000 bytes of voxels, which cannot come from a file of '
            '592: it is cut off, or its header is wrong'
        )
    (tmp_path / 'd.nii.gz').write_bytes(gzip.compress(bytes(352) and whole[:352] + bytes(240)))
    assert (read(tmp_path / 'd.nii.gz').array == 0).all(), 'packed, it may promise more than it weighs'
    long[42:48] = np.array([2000, 2000, 100], '<i2').tobytes()
    (tmp_path / 'e.nii.gz').write_bytes(gzip.compress(bytes(long)))
    with pytest.raises(NiftiError, match='promises 800000000 bytes of voxels, which cannot come from a file of'):
        read(tmp_path / 'e.nii.gz')
    monkeypatch.setattr(nifti, 'MAX_BYTES', 1 << 30)
    long[42:48] = np.array([2000, 2000, 1000], '<i2').tobytes()
    (tmp_path / 'f.nii').write_bytes(bytes(long))
    with pytest.raises(NiftiError) as error:
        read(tmp_path / 'f.nii')
    assert str(error.value) == (
        f'{tmp_path / "f.nii"}: promises (2000, 2000, 1000) voxels, 7 GiB, more than is read (1 GiB)'
    )
    monkeypatch.setattr(nifti, 'MAX_BYTES', 240)
    (tmp_path / 'g.nii').write_bytes(whole)
    assert read(tmp_path / 'g.nii').shape == (4, 5, 6), 'exactly as much as is read'


def test_what_is_not_there_and_what_is_none(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        read(tmp_path / 'a.nii')
    assert str(error.value) == f'{tmp_path / "a.nii"}: no such file; expected a .nii or .nii.gz volume'
    with pytest.raises(ValueError) as error:
        write(scan(), tmp_path / 'a.txt')
    assert str(error.value) == f'{tmp_path / "a.txt"}: a NIfTI file is named .nii or .nii.gz'
    assert not list(tmp_path.iterdir())
