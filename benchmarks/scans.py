"""Scans that the benchmarks share: a 512² phantom series of 1 mm slices, RLE lossless, drawn once."""

import os
from pathlib import Path

import numpy as np

HOME = Path(os.environ.get('CTLAB_BENCH', Path(__file__).resolve().parents[1] / 'work' / 'bench'))


def series(slices=300, syntax='rle'):
    """Write a folder with one series."""
    folder = HOME / f'{syntax}{slices}' / 'train_images' / '1' / '1'
    if folder.exists() and len(list(folder.glob('*.dcm'))) == slices:
        return folder
    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body
    from ctlab.scans.dicom import write_series
    from ctlab.scans.volume import Volume

    hu, _, _ = acquire(
        draw_body(1, 2.5),
        ScanProtocol(
            start=60, stop=60 + 1.4 * slices, spacing=1.0, thickness=1.0, matrix=512, field_of_view=400, noise=10
        ),
        1,
    )
    write_series(Volume(np.ascontiguousarray(hu.array[:slices]), hu.affine), folder, 'bench', syntax=syntax)
    return folder


def cohort(n=40):
    """N series that share the files of one by hard links."""
    files, root = list(series().iterdir()), HOME / f'cohort{n}'
    for k in range(n):
        link_series(files, root / 'train_images' / str(100 + k) / str(1000 + k))
    return root


def link_series(files, folder):
    """Make a series of another's files by hard links, where there is none yet."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    for path in files:
        os.link(path, folder / path.name)


def drawn_case(folder, seed, shape, spacing, change=None):
    """Draw a patient's scan with its true mask of the organs, as a site would hand it over, once; gives both files."""
    from ctlab.phantoms.synthesis import CLASSES, ORGANS, Synthesis, varied_body
    from ctlab.scans import nifti
    from ctlab.scans.volume import Volume, make_volume

    image, outline = folder / 'ct.nii.gz', folder / 'mask.nii.gz'
    if not outline.is_file():
        rng = np.random.default_rng(seed)
        maker = Synthesis([varied_body(seed)], shape)
        tissue = maker.warp(rng)
        hu, mask = maker.render(tissue, rng), maker.classes[tissue].numpy().astype(np.uint8)
        hu = change(hu, rng) if change else hu
        scan = make_volume(hu.numpy().round().astype(np.int16), (spacing,) * 3)
        nifti.write(scan, image)
        names = {k: n for k, n in enumerate(CLASSES, 1) if n in ORGANS}
        mask[~np.isin(mask, list(names))] = 0
        nifti.write(Volume(mask, scan.affine, {'names': names}), outline)
    return image, outline


def best(work, times=3):
    """Time the shortest of a few runs, seconds; the first also warms the caches."""
    import time

    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
