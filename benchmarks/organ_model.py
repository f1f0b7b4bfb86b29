"""Segment 512 × 512 × 300 voxels on two cores: the organ model beside TotalSegmentator's two networks.

TotalSegmentator has random weights in their true sizes (the weights cannot be fetched everywhere; the arithmetic is
the same). One process each, so that memory is measured apart. At last `ctlab segment` from beginning to end, with DICOM
in, and masks, SEG, surfaces, statistics and picture out.

    python benchmarks/organ_model.py [slices]
"""

import os
import resource
import subprocess
import sys
import tempfile
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


def organ_model(scan, device='cpu'):
    from ctlab.organs.organ_model import segment_organs

    return segment_organs(scan, device=device)


def totalsegmentator(scan, spacing, device='cpu'):
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
    )
    net, small = net.to(device).eval(), resample(scan, spacing)
    with torch.inference_mode(), torch.autocast(device, enabled=device == 'cuda'):  # as nnU-Net predicts
        logits = sliding_window_inference(
            torch.from_numpy(small.array)[None, None].to(device) / 500, (128,) * 3, 1, net, 0.5, 'gaussian'
        )
    return resample(Volume(logits[0].argmax(0).cpu().numpy().astype(np.uint8), small.affine), like=scan, labels=True)


def draw(slices, folder):
    """Draw the scan in a process of its own, whose memory is not counted; as DICOM and as an array."""
    import numpy as np

    from ctlab.scans.dicom import write_series

    scan = volume(slices)
    np.savez(folder / 'scan.npz', array=scan.array, affine=scan.affine)
    write_series(scan, folder / 'dicom', patient_id='drawn')


def one(name, folder):
    """Run one competitor, and print its seconds and memory."""
    import numpy as np
    import torch

    from ctlab.scans.volume import Volume

    torch.set_num_threads(2)
    stored = np.load(folder / 'scan.npz')
    scan = Volume(stored['array'], stored['affine'])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    spacing = SIZE[name]
    organ_model(scan) if spacing is None else totalsegmentator(scan, spacing)
    took, most = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(took, most / 2**20, before / 2**20)


def measured(command):
    """Run a command in a process of its own; gives what it printed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def whole_way(folder):
    """Seconds and GB of `ctlab segment` from a folder of DICOM."""
    from full_size import run_apart

    command = Path(sys.executable).with_name('ctlab'), 'segment', folder / 'dicom', folder / 'out'
    seconds, memory = run_apart(command, folder / 'segment.log')
    return seconds, memory / 1024


def main():
    from clocks import note

    slices = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    print(f'512 × 512 × {slices} voxels, two threads')
    os.environ['OMP_NUM_THREADS'] = '2'
    with tempfile.TemporaryDirectory() as where:
        folder, seconds = Path(where), {}
        measured([sys.executable, __file__, str(slices), 'draw', folder])
        for name in SIZE:
            seconds[name], most, before = map(float, measured([sys.executable, __file__, '0', name, folder]).split())
            print(f'{name:<32} {seconds[name]:8.1f} s   {most:6.2f} GB peak   ({before:.2f} GB before)', flush=True)
        print('{:<32} {:8.1f} s   {:6.2f} GB peak'.format('ctlab segment, DICOM to SEG', *whole_way(folder)))
    peer = '--fast (3 mm)'
    note(f'organs in {slices} slices of 512 x 512', seconds['organ model'], f'TotalSegmentator {peer}', seconds[peer])


if __name__ == '__main__':
    if len(sys.argv) < 3:
        main()
    elif sys.argv[2] == 'draw':
        draw(int(sys.argv[1]), Path(sys.argv[3]))
    else:
        one(sys.argv[2], Path(sys.argv[3]))
