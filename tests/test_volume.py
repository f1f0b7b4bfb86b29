"""Geometry by properties and beside SimpleITK and nibabel: where a voxel lies, whatever was done to its volume."""

import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.affines import apply_affine
from nibabel.orientations import aff2axcodes

from ctlab.scans.volume import (
    Volume,
    average_to_grid,
    bounding_box,
    count_by_plane,
    crop,
    from_sitk,
    grid_around,
    make_volume,
    oblique_plane,
    orientation,
    reorient,
    resample,
    sample_nearest,
    to_index,
    to_patient,
    to_sitk,
)

RNG = np.random.default_rng(7)


def turned(degrees, axis=2):
    """Rotate a direction matrix about an axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    i, j = [k for k in range(3) if k != axis]
    made = np.eye(3)
    made[[i, j, i, j], [i, j, j, i]] = c, c, -s, s
    return made


def oblique(shape=(6, 8, 10)):
    return make_volume(
        RNG.normal(size=shape).astype(np.float32), (3.0, 1.5, 0.75), (10, -20, 30), turned(25, 0) @ turned(10)
    )


def same_places(a, b, tolerance=1e-6):
    """Check whether each voxel of b lies where a has the same value."""
    for index in np.argwhere(np.ones(b.shape, bool))[::7]:
        there = np.round(to_index(a, to_patient(b, index)), 4)
        assert np.allclose(there, np.round(there), atol=1e-3)
        if ((there >= 0) & (there < a.shape)).all():
            assert abs(float(a.array[tuple(there.astype(int))]) - float(b.array[tuple(index)])) < tolerance


@pytest.mark.parametrize(
    'array, affine, words',
    [
        (np.zeros((3, 3)), np.eye(4), r'a volume has three axes (z, y, x), got shape (3, 3)'),
        (
            np.zeros((2, 3, 3)),
            np.eye(3),
            'the affine must be a finite 4×4 matrix from index (x, y, z) to LPS millimetres',
        ),
        (
            np.zeros((2, 3, 3)),
            np.diag([1, 1, np.nan, 1.0]),
            'the affine must be a finite 4×4 matrix from index (x, y, z) to LPS millimetres',
        ),
        (np.zeros((2, 3, 3)), np.diag([1, 1, 0, 1.0]), 'the affine is singular: an axis has no length'),
        (np.zeros((2, 3, 3)), np.diag([9e-5, 9e-5, 9e-5, 1.0]), 'the affine is singular: an axis has no length'),
    ],
)
def test_what_is_no_volume(array, affine, words):
    with pytest.raises(ValueError) as error:
        Volume(array, affine)
    assert str(error.value) == words


def test_a_volume_says_what_it_is():
    made = Volume(np.zeros((2, 3, 4), np.int16), [[0, 0, 2, 5], [1, 0, 0, 0], [0, -3, 0, 0], [0, 0, 0, 1]])
    assert made.affine.dtype == float and made.meta == {} and made.origin.tolist() == [5, 0, 0]
    assert str(made) == 'Volume(2 × 3 × 4 of int16, spacing 2 × 3 × 1 mm (z, y, x), PIL)'
    assert Volume(np.zeros((1, 1, 1)), np.diag([1e-3, 1e-3, 1e-3, 1.0])).spacing == pytest.approx((1e-3,) * 3)


@pytest.mark.parametrize('seed', range(8))
def test_orientation_is_nibabel_s(seed):
    """Nibabel's axes are of RAS, ours of LPS; the letters are the same."""
    rng = np.random.default_rng(seed)
    direction = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    made = make_volume(np.zeros((3, 4, 5)), (3.0, 2.0, 1.0), direction=direction @ turned(12, seed % 3))
    assert orientation(made) == ''.join(aff2axcodes(np.diag([-1, -1, 1, 1]) @ made.affine))


def test_indices_and_places_are_simpleitk_s():
    made = oblique()
    image = to_sitk(made)
    for index in ((0, 0, 0), (5, 7, 9), (2, 3, 4)):
        place = image.TransformIndexToPhysicalPoint([int(i) for i in index[::-1]])
        assert np.allclose(to_patient(made, index), place) and np.allclose(to_index(made, place), index)
        assert np.allclose(apply_affine(made.affine, index[::-1]), place)
    assert np.allclose(to_index(made, to_patient(made, RNG.normal(size=(4, 5, 3)))).shape, (4, 5, 3))


def test_there_and_back_through_simpleitk():
    made = oblique()
    back = from_sitk(to_sitk(made), {'files': 3})
    assert (
        np.array_equal(back.array, made.array) and np.allclose(back.affine, made.affine) and back.meta == {'files': 3}
    )
    assert from_sitk(to_sitk(made)).meta == {}
    image = to_sitk(Volume(made.array > 0, made.affine))
    assert image.GetPixelID() == sitk.sitkUInt8 and image.GetSpacing() == pytest.approx((0.75, 1.5, 3.0))


@pytest.mark.parametrize('codes', ['LPS', 'RAS', 'SLP', 'AIR', 'PSL'])
def test_turned_voxels_stay_where_they_are(codes):
    made = Volume(oblique().array, oblique().affine, {'files': 2})
    done = reorient(made, codes)
    assert orientation(done) == codes and done.meta == {'files': 2} and done.array.dtype == made.array.dtype
    assert sorted(done.array.ravel()) == sorted(made.array.ravel())
    same_places(made, done)


def test_turning_copies_and_keeps_booleans():
    made = Volume(RNG.random((3, 4, 5)) > 0.5, np.eye(4))
    assert orientation(made) == 'LPS'
    same = reorient(made)
    same.array[:] = False
    assert made.array.any(), 'a copy'
    flipped = reorient(made, 'RPS')
    assert flipped.array.dtype == bool and np.array_equal(flipped.array, made.array[:, :, ::-1])
    assert np.array_equal(reorient(flipped).array, made.array), 'LPS where nothing is said'


def test_a_part_stays_where_it_is():
    made = Volume(oblique().array, oblique().affine, {'files': 2})
    part = crop(made, (1, 2, 3), (4, 8, 9))
    assert part.shape == (3, 6, 6) and part.meta == {'files': 2} and np.shares_memory(part.array, made.array)
    assert np.array_equal(part.array, made.array[1:4, 2:8, 3:9])
    same_places(made, part)
    assert crop(made, (0, 0, 0), made.shape).shape == made.shape and crop(made, (5, 7, 9), (6, 8, 10)).shape == (
        1,
        1,
        1,
    )
    for low, high in (
        ((-1, 0, 0), (3, 3, 3)),
        ((0, 0, 0), (7, 3, 3)),
        ((2, 0, 0), (2, 3, 3)),
        ((0, 5, 0), (3, 3, 3)),
    ):
        with pytest.raises(ValueError) as error:
            crop(made, low, high)
        assert str(error.value) == f'cannot crop {list(low)} to {list(high)} from a volume of [6, 8, 10]'


def test_planes_and_boxes_of_a_mask():
    mask = np.zeros((5, 6, 7), bool)
    mask[1:4, 2:4, 3:6] = mask[2, 5, 3] = True
    assert [c.tolist() for c in count_by_plane(mask)] == [[0, 6, 7, 6, 0], [0, 0, 9, 9, 0, 1], [0, 0, 0, 7, 6, 6, 0]]
    assert bounding_box(mask) == ((1, 2, 3), (4, 6, 6))
    assert bounding_box(mask, 1) == ((0, 1, 2), (5, 6, 7)) and bounding_box(mask, (0, 2, 1)) == ((1, 0, 2), (4, 6, 7))
    assert bounding_box(mask, 9) == ((0, 0, 0), mask.shape) and bounding_box(mask[2]) == ((2, 3), (6, 6))
    with pytest.raises(ValueError, match='^the mask is empty: it has no bounding box$'):
        bounding_box(mask & False)


def ramp(shape=(12, 14, 16), spacing=(3.0, 2.0, 1.5), direction=None):
    """Make a volume whose value is x + 10 y - 4 z."""
    made = make_volume(np.zeros(shape, np.float32), spacing, (-7, 11, 5), direction)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing='ij'), -1)
    return Volume((to_patient(made, index) @ (1, 10, -4)).astype(np.float32), made.affine, {'files': 1})


@pytest.mark.parametrize('spacing', [1.0, (3.0, 2.0, 1.5), (1.5, 1.0, 3.0), (4, 4, 4)])
@pytest.mark.parametrize('direction', [None, turned(20, 1)], ids=['straight', 'oblique'])
def test_another_spacing_keeps_places_and_edges(spacing, direction):
    """A linear field stays the same field; the outer edges of both grids coincide."""
    old = ramp(direction=direction)
    done = resample(old, spacing, antialias=False)
    assert done.spacing == pytest.approx(tuple(np.broadcast_to(spacing, 3))) and done.meta == {'files': 1}
    assert np.allclose(to_patient(old, (-0.5,) * 3), to_patient(done, (-0.5,) * 3)), 'the outer corner stays'
    size = np.multiply(old.shape, old.spacing)
    assert (np.multiply(done.shape, done.spacing) >= size - 1e-3).all()
    assert (np.multiply(np.subtract(done.shape, 1), done.spacing) < size).all()
    index = np.argwhere(np.ones(done.shape, bool))
    at = to_index(old, to_patient(done, index))
    inner = ((at >= 0) & (at <= np.subtract(old.shape, 1))).all(1)
    wanted = to_patient(done, index) @ (1, 10, -4)
    assert inner.mean() > 0.5 and np.abs(done.array[tuple(index.T)] - wanted)[inner].max() < 1e-2


def test_another_grid_is_simpleitk_s():
    old, new = ramp(), make_volume(np.zeros((5, 6, 7)), (2.0, 3.0, 4.0), (0, 15, 10), turned(15, 2))
    noise = Volume(RNG.normal(size=old.shape).astype(np.float32), old.affine)
    done = resample(noise, like=new, antialias=False, outside=-77.0)
    theirs = sitk.Resample(to_sitk(noise), to_sitk(new), sitk.Transform(), sitk.sitkLinear, -77.0)
    assert np.allclose(done.array, sitk.GetArrayFromImage(theirs)) and np.allclose(done.affine, new.affine)
    assert (resample(noise, like=make_volume(np.zeros((2, 2, 2)), origin=(500, 0, 0))).array == noise.array.min()).all()


def test_shrinking_smooths_first_and_growing_does_not():
    noise = make_volume(RNG.normal(size=(24, 24, 24)).astype(np.float32), (1.0, 1.0, 1.0))
    wanted = sitk.DiscreteGaussian(to_sitk(noise), [1.0, 1.0, 2.25])
    done = resample(noise, (3.0, 2.0, 2.0))
    grid = to_sitk(Volume(np.zeros(done.shape, np.float32), done.affine))
    low = float(noise.array.min())
    theirs = sitk.GetArrayFromImage(sitk.Resample(wanted, grid, sitk.Transform(), sitk.sitkLinear, low))
    assert np.allclose(done.array, theirs, atol=1e-5) and done.array.std() < 0.3 * noise.array.std()
    one = resample(noise, (1.0, 1.0, 2.0))
    theirs = sitk.Resample(sitk.DiscreteGaussian(to_sitk(noise), [1.0, 0, 0]), to_sitk(one), sitk.Transform())
    assert np.allclose(one.array, sitk.GetArrayFromImage(theirs), atol=1e-5), 'only along the axis that shrinks'
    for spacing in (0.5, 1.0, 1.005):
        assert np.allclose(resample(noise, spacing).array, resample(noise, spacing, antialias=False).array)


def test_labels_are_never_mixed():
    numbers = make_volume(RNG.integers(1, 9, (8, 8, 8)).astype(np.int16), (2.0, 2.0, 2.0))
    for spacing in (0.7, 3.0, 5.0):
        done = resample(numbers, spacing, labels=True)
        assert done.array.dtype == np.int16 and set(np.unique(done.array)) <= set(range(9))
    beyond = resample(numbers, like=make_volume(np.zeros((4, 4, 4)), origin=(-40, 0, 0)), labels=True)
    assert (beyond.array == 0).all()
    mask = resample(Volume(numbers.array > 4, numbers.affine), 1.0, labels=True)
    assert mask.array.dtype == bool
    assert resample(numbers, 1.0).array.dtype == np.float32


@pytest.mark.parametrize('given', [{}, {'spacing': 2.0, 'like': oblique()}])
def test_one_grid_is_asked_for(given):
    with pytest.raises(ValueError, match='^give either a spacing or a volume to be like$'):
        resample(oblique(), **given)


@pytest.mark.parametrize('spacing', [0, -1, (1, 0, 1)])
def test_spacing_is_positive(spacing):
    with pytest.raises(ValueError) as error:
        resample(oblique(), spacing)
    assert str(error.value) == f'spacing must be positive, got {spacing}'


def test_a_flat_volume_has_one_slice_at_any_spacing():
    flat = make_volume(np.zeros((1, 4, 4), np.float32), (1.0, 1.0, 1.0))
    assert resample(flat, (9.0, 1.0, 1.0)).shape == (1, 4, 4) and resample(flat, 2.0).shape == (1, 2, 2)
    assert resample(make_volume(np.zeros((9, 4, 4), np.float32), (1 / 3, 1.0, 1.0)), 1.0).shape == (3, 4, 4)


def test_an_oblique_plane():
    old = ramp((40, 40, 40), (2.0, 2.0, 2.0))
    middle = to_patient(old, (20, 20, 20))
    cut = oblique_plane(old, middle, (2, 1, 0), (1, 3, 1), (30, 20), 1.25)
    assert cut.shape == (1, 24, 16) and cut.spacing == pytest.approx((1.25,) * 3)
    right, down = cut.direction[:, 0], cut.direction[:, 1]
    assert np.allclose(right, np.array([2, 1, 0]) / 5**0.5) and abs(right @ down) < 1e-9
    assert np.linalg.norm(down) == pytest.approx(1) and np.dot(down, (1, 3, 1)) > 0
    assert np.allclose(np.cross(right, down), cut.direction[:, 2])
    assert np.allclose(to_patient(cut, (0, 11.5, 7.5)), middle), 'the point is in the middle'
    index = np.argwhere(np.ones(cut.shape, bool))
    assert np.abs(cut.array.ravel() - to_patient(cut, index) @ (1, 10, -4)).max() < 1e-2
    assert oblique_plane(old, middle).shape == (1, 300, 300) and oblique_plane(old, middle).spacing == pytest.approx(
        (1, 1, 1)
    )
    assert np.allclose(oblique_plane(old, middle).direction, np.eye(3)) and oblique_plane(
        old, middle, size=0.1
    ).shape == (1, 1, 1)
    assert set(
        np.unique(oblique_plane(Volume((old.array > 200).astype(np.int8), old.affine), middle, labels=True).array)
    ) <= {
        0,
        1,
    }
    with pytest.raises(ValueError, match='^right and down must not be parallel$'):
        oblique_plane(old, middle, (1, 0, 0), (2, 0, 0))


def test_cells_around_a_part():
    inside = np.zeros((10, 12, 14), bool)
    inside[2:6, 3:4, 5:9] = True
    places = [np.arange(n) * step + start for n, step, start in zip(inside.shape, (5.0, 2.0, 1.0), (100, -7, 3))]
    cells = grid_around(inside, places, (4, 3, 6), 2.5)
    assert [len(c) for c in cells] == [4, 3, 6] and all(np.allclose(np.diff(c), 2.5) for c in cells)
    assert [c.mean() for c in cells] == pytest.approx([117.5, -1.0, 9.5])
    assert grid_around(inside & False, places, (4, 3, 6), 2.5) is None


def test_averages_are_of_the_whole_neighbourhood_and_air_beyond():
    old = ramp((30, 30, 30), (2.0, 2.0, 2.0))
    cells = [np.arange(4) * 6.0 + start for start in (20.0, 30.0, 10.0)]
    got = average_to_grid(old, cells)
    wanted = np.add.outer(np.add.outer(-4 * cells[0], 10 * cells[1]), cells[2])
    assert got.shape == (4, 4, 4) and np.abs(got - wanted).max() < 0.5
    noise = Volume(RNG.normal(size=(30, 30, 30)).astype(np.float32), old.affine)
    whole = resample(noise, like=make_volume(np.zeros((4, 4, 4)), (6.0,) * 3, (10.0, 30.0, 20.0)), outside=-1000)
    assert np.allclose(average_to_grid(noise, cells), whole.array, atol=2e-2), 'as if nothing had been cut out'
    far = average_to_grid(old, [cells[0], cells[1], cells[2] + 30])
    assert (far[..., -1] == -1000).all() and (far[..., 0] > -1000).any()
    assert (
        average_to_grid(old, [c + 500 for c in cells]) is None
        and average_to_grid(old, [c - 500 for c in cells]) is None
    )


def test_nearest_values_and_nothing_beyond():
    array = RNG.integers(1, 99, (4, 5, 6))
    places = [np.arange(n) * step for n, step in zip(array.shape, (5.0, 2.0, 1.0))]
    assert np.array_equal(sample_nearest(array, places, places), array)
    wanted = [np.array([-3.9, -3.7, 2.0, 8.0]), np.array([3.3]), np.array([5.6, 5.8, 60.0])]
    got = sample_nearest(array, places, wanted)
    assert got.shape == (4, 1, 3) and (got[0] == 0).all() and (got[:, :, 1:] == 0).all()
    assert got[1:, 0, 0].tolist() == [array[0, 2, 5], array[0, 2, 5], array[2, 2, 5]]
    one = sample_nearest(array[:1], [np.array([7.0]), *places[1:]], [np.array([7.6, 7.8]), *places[1:]])
    assert (one[0] == array[0]).all() and (one[1] == 0).all(), 'a single slice is a millimetre thick'
    assert (
        sample_nearest(array[:2], [np.array([0.0, 4.0]), *places[1:]], [np.array([7.0, 6.9]), *places[1:]])[0] != 0
    ).all()
