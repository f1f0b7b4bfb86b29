"""Segment 512 × 512 × 300 voxels on two cores: the organ model beside TotalSegmentator's two networks.

TotalSegmentator has random weights in their true sizes (the weights cannot be fetched everywhere; the arithmetic is
the same). One process each, so that memory is measured apart.

    python benchmarks/organ_model.py [slices]
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

SIZE = {'organ model': None, '--fast (3 mm)': 3.0, '1.5 mm, one of its five parts': 1.5}


def volume(slices):
    """Scan a phantom on a scanner's matrix."""
    import numpy as np

    from ctlab.phantoms.acquisition import ScanProtocol, acquire
    from ctlab.phantoms.body import draw_body
    from ctlab.scans.volume import resample

    hu, *_ = acquire(
        draw_body(4, 3.0),
        ScanProtocol(spacing=3.0, thickness=3.0, start=20, stop=420, matrix=128, field_of_view=380),
        4,
    )
    step = hu.shape[0] * hu.spacing[0] / slices
    fine = resample(hu, (step, 380 / 512, 380 / 512), antialias=False)
    return type(fine)(np.round(fine.array).astype(np.int16), fine.affine)


def organ_model(scan):
    from ctlab.organs.organ_model import segment_organs

    return segment_organs(scan)


def totalsegmentator(scan, spacing):
    """Run TotalSegmentator's arithmetic: its spacing, its network, its sliding window, its resampling back."""
    import numpy as np
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from monai.inferers import sliding_window_inference

    from ctlab.scans.volume import Volume, resample

    net = PlainConvUNet(
        1,
        6,
        [32, 64, 128, 256, 320, 320],
        torch.nn.Conv3d,
        3,
        [1] + [2] * 5,
        2,
        118 if spacing > 2 else 25,
        2,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={'affine': True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={'inplace': True},
    ).eval()
    small = resample(scan, spacing)
    with torch.inference_mode():
        logits = sliding_window_inference(
            torch.from_numpy(small.array)[None, None] / 500, (128,) * 3, 1, net, 0.5, 'gaussian'
        )
    return resample(Volume(logits[0].argmax(0).numpy().astype(np.uint8), small.affine), like=scan, labels=True)


def one(name, slices):
    import torch

    torch.set_num_threads(2)
    scan = volume(slices)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    spacing = SIZE[name]
    organ_model(scan) if spacing is None else totalsegmentator(scan, spacing)
    took = time.perf_counter() - start
    print(
        f'{name:<32} {took:8.1f} s   '
        f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:6.2f} GB peak'
        f'   ({before / 2**20:.2f} GB before)',
        flush=True,
    )


def main():
    from clocks import note

    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print(f'512 × 512 × {slices} voxels, two threads')
    seconds = {}
    for name in SIZE:
        command = [sys.executable, Path(__file__), str(slices), name]
        environment = os.environ | {'OMP_NUM_THREADS': '2'}
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end='', flush=True)
        seconds[name] = float(done.stdout.removeprefix(name).split()[0])
    peer = '--fast (3 mm)'
    note(f'organs in {slices} slices of 512 x 512', seconds['organ model'], f'TotalSegmentator {peer}', seconds[peer])


if __name__ == '__main__':
    one(sys.argv[2], int(sys.argv[1])) if len(sys.argv) > 2 else main()
