"""Load ten random slices of random series: ours, one array file, one JPEG per slice, zarr and blosc2."""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
import shutil

import numpy as np
from clocks import note
from scans import HOME, best, series


def write_stores(home, stack, n_series, stores):
    """Write the same stacks in each form of storage."""
    import blosc2
    import zarr
    from PIL import Image

    for k in range(n_series):
        mine = np.roll(stack, k, axis=0)
        for kind in stores:
            (home / kind).mkdir(parents=True, exist_ok=True)
        np.save(home / 'npy' / f'{k}.npy', mine)
        array = zarr.create_array(
            store=str(home / 'zarr' / f'{k}.zarr'), shape=mine.shape, chunks=(1, 256, 256), dtype='u1'
        )
        array[:] = mine
        blosc2.asarray(
            mine, chunks=(1, 256, 256), blocks=(1, 256, 256), urlpath=str(home / 'blosc2' / f'{k}.b2nd'), mode='w'
        )
        (home / 'jpeg' / str(k)).mkdir()
        for i, picture in enumerate(mine):
            Image.fromarray(picture).save(home / 'jpeg' / str(k) / f'{i}.jpg')


def make_readers(home):
    """Name the ways to read slices: the kind of storage, and a function of a series and its slices."""
    import blosc2
    import zarr
    from PIL import Image

    from ctlab.cohort.stacks import read_slices

    return {
        'slices of one .npy (ctlab)': ('npy', lambda k, at: read_slices(home / 'npy' / f'{k}.npy', at)),
        'zarr v3, one chunk per slice': (
            'zarr',
            lambda k, at: zarr.open_array(str(home / 'zarr' / f'{k}.zarr'), mode='r').oindex[at],
        ),
        'blosc2, one chunk per slice': (
            'blosc2',
            lambda k, at: np.stack([blosc2.open(str(home / 'blosc2' / f'{k}.b2nd'), mode='r')[int(i)] for i in at]),
        ),
        'one JPEG per slice': (
            'jpeg',
            lambda k, at: np.stack([np.asarray(Image.open(home / 'jpeg' / str(k) / f'{i}.jpg')) for i in at]),
        ),
    }


def main(n_series=40, reads=400):
    from ctlab.cohort.stacks import StackPreprocessing, make_stack

    stack, _ = make_stack(series(), StackPreprocessing())
    home = HOME / 'loading'
    shutil.rmtree(home, ignore_errors=True)
    rng, stores = np.random.default_rng(0), ('npy', 'zarr', 'blosc2', 'jpeg')
    write_stores(home, stack, n_series, stores)
    picks = [(int(rng.integers(n_series)), np.sort(rng.choice(len(stack), 10, replace=False))) for _ in range(reads)]
    readers = make_readers(home)

    def size(kind):
        return sum(p.stat().st_size for p in (home / kind).rglob('*') if p.is_file()) / n_series / 1e6

    def all_picks(read):
        for k, at in picks:
            assert read(k, at).shape == (10, 256, 256)

    rows = {
        name: (best(lambda read=read: all_picks(read)) / reads * 1e3, size(kind))
        for name, (kind, read) in readers.items()
    }
    ours = rows['slices of one .npy (ctlab)'][0]
    peer = min((n for n in rows if 'ctlab' not in n), key=lambda n: rows[n][0])
    note('ten random slices of a prepared series', ours, peer, rows[peer][0], 'ms')
    print(f'ten random slices of one of {n_series} stacks of {len(stack)} × 256²; files in the page cache, one core')
    print(f'{"":<32}{"ms per read":>12}{"against ours":>14}{"MB per stack":>14}')
    for name, (ms, mb) in rows.items():
        print(f'{name:<32}{ms:12.3f}{ms / ours:13.1f}×{mb:14.1f}')


if __name__ == '__main__':
    main()
