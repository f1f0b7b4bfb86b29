"""Make training samples from a label map: the lab's synthesis beside the same steps made of MONAI's transforms.

Affine and elastic warp by nearest neighbour, HU by label, blur, noise; one body of 3 mm, samples of 64 × 80 × 96
voxels, one thread.

    python benchmarks/synthesis.py
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')
import time

import numpy as np

SHAPE, N = (64, 80, 96), 20


def ours(body):
    from ctlab.phantoms.synthesis import Synthesis

    maker, rng = Synthesis([body], SHAPE), np.random.default_rng(0)
    return lambda: maker.sample(rng)


def monai(body):
    import torch
    from monai import transforms as T

    from ctlab.phantoms.synthesis import normalise_hu, sample_tissue_hu, tissue_classes

    turn, rng, classes = np.deg2rad(4), np.random.default_rng(0), tissue_classes()
    room = [int(1.4 * n) for n in SHAPE]
    warp = T.Compose(
        [
            T.RandSpatialCrop(room, random_size=False),
            T.SpatialPad(room),
            T.Rand3DElastic((5, 7), (50, 100), 1.0, (turn,) * 3, None, None, (0.15,) * 3, SHAPE, 'nearest', 'zeros'),
        ]
    )
    look = T.Compose([T.RandGaussianSmooth((0.2, 0.8), (0.2, 0.8), (0.2, 1.2), 1.0), T.RandGaussianNoise(1.0, 0, 25)])
    label = torch.from_numpy(body)[None].float()

    def sample():
        tissue = warp(label)[0].round().long()
        hu, _ = sample_tissue_hu(rng)
        return normalise_hu(torch.as_tensor(look(hu[tissue][None]))), classes[tissue]

    return sample


def main():
    import torch
    from clocks import note

    from ctlab.phantoms.synthesis import varied_body

    torch.set_num_threads(1)
    body, seconds = varied_body(1000), {}
    for name, make in (('ctlab.phantoms.synthesis', ours), ('MONAI transforms', monai)):
        sample = make(body)
        sample()
        start = time.perf_counter()
        for _ in range(N):
            sample()
        seconds[name] = (time.perf_counter() - start) / N
    lab, peer = seconds.values()
    note('a training sample from a label map', lab, 'MONAI', peer)
    for name, s in seconds.items():
        print(
            f'{name:<28} {1000 * s:8.0f} ms per sample {1 / s:8.1f} per second '
            f'{s / seconds["ctlab.phantoms.synthesis"]:8.1f}×'
        )


if __name__ == '__main__':
    main()
