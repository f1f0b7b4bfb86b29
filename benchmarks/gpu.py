"""What a GPU gives: feeding, training and segmenting on one, beside peers and beside the card's own limits.

    python benchmarks/gpu.py [--slices 300] [--steps 20] [--device cuda]

The limits are measured: a product of two large matrices in bfloat16, and a copy from pinned memory. Nothing here was
tuned to a card. `--device cpu` takes the same way on a processor, with small sizes, to see that it is open.
"""

import argparse
import sys
import time
from statistics import median

import numpy as np
import torch

from ctlab.learn.devices import network_on, prefetched, sample_loader, supports_bfloat16, to_channels_last


def seconds_of(work, device, times=5):
    """Median of some calls after one that warms up, each until the device is done."""
    found = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        if device == 'cuda':
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return median(found[1:])


def limits(device):
    """Operations a second of a matrix product, and bytes a second of a copy to the device."""
    n, number = (8192, torch.bfloat16) if device == 'cuda' else (1024, torch.float32)
    a, batch = torch.randn(n, n, device=device, dtype=number), torch.empty(64 << 20, dtype=torch.uint8)
    batch = batch.pin_memory() if device == 'cuda' else batch
    copied = seconds_of(lambda: batch.to(device, non_blocking=True, copy=True), device)
    return 2 * n**3 / seconds_of(lambda: a @ a, device), len(batch) / copied


def feeding(device, batches=40):
    """Seconds of sending eight pictures at a time to a network, each during the one before, and one after the other."""
    data = [torch.zeros(4, 256, 256) for _ in range(8 * batches)]
    net = torch.nn.Sequential(torch.nn.Conv2d(4, 32, 7, 4), torch.nn.ReLU(), torch.nn.Conv2d(32, 64, 7, 4))
    with network_on(net, device) as ready:
        plain, ours = torch.utils.data.DataLoader(data, 8), sample_loader(data, 8)
        waited = seconds_of(lambda: [ready(batch.to(device)) for batch in plain], device, 3)
        return seconds_of(lambda: [ready(batch) for batch in prefetched(ours, device)], device, 3), waited


def training_step(net, loss, image, mask, half):
    """Make a step of training that can be called again and again."""
    optimiser = torch.optim.AdamW(net.train().parameters(), 1e-4)

    def step():
        optimiser.zero_grad()
        with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
            total = loss(net(image), {'mask': mask})['total']
        total.backward()
        optimiser.step()

    return step


def training_steps(device, small):
    """Seconds and operations of a step of the organ model: as it is trained, and in 32 bits with channels first."""
    from torch.utils.flop_counter import FlopCounterMode

    from ctlab.organs.organ_model import PRESET_CONFIGS, DiceCrossEntropyLoss, make_organ_net

    shape, loss = (32, 32, 32) if small else PRESET_CONFIGS['full'].shape, DiceCrossEntropyLoss()
    image, mask = torch.randn(1, 1, *shape, device=device), torch.randint(0, 15, (1, *shape), device=device)

    half, net = supports_bfloat16(device), to_channels_last(make_organ_net()).to(device)
    ours = training_step(net, loss, to_channels_last(image), mask, half)
    plain = training_step(make_organ_net().to(device), loss, image, mask, False)
    with FlopCounterMode(display=False) as counted:
        plain()
    return seconds_of(ours, device), seconds_of(plain, device), counted.get_total_flops()


def segmenting(device, slices):
    """Seconds of outlining a scan: the organ model, and the arithmetic of TotalSegmentator --fast."""
    from organ_model import organ_model, totalsegmentator, volume

    scan = volume(slices)
    return tuple(
        seconds_of(lambda work=work: work(scan), device, 1)
        for work in (lambda s: organ_model(s, device), lambda s: totalsegmentator(s, 3.0, device))
    )


def main():
    from clocks import note
    from training import compare_loops

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--slices', type=int, default=300)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--device', default='cuda', choices=('cuda', 'cpu'))
    asked = parser.parse_args()
    device = asked.device
    if device == 'cuda' and not torch.cuda.is_available():
        sys.exit('torch sees no GPU; --device cpu takes the same way on a processor')
    most, copied = limits(device)
    print(f'limits: {most / 1e12:.2f} TFLOPS in a matrix product, {copied / 1e9:.1f} GB a second from pinned memory')
    ours, waited = feeding(device)
    print(f'feeding: {ours:.3f} s, {waited:.3f} s where each batch is awaited: {waited / ours:.2f} times')
    note(
        f'feeding a network on {device}', ours, 'a loop that waits for each batch', waited, reason='nothing to overlap'
    )
    step, plain, operations = training_steps(device, device == 'cpu')
    print(
        f'a step of the organ model: {step:.3f} s, {plain:.3f} s in 32 bits with channels first: {plain / step:.2f} '
        f'times; {operations / step / most:.0%} of the limit'
    )
    note(f'a training step of the organ model on {device}', step, '32 bits, channels first', plain)
    outlined, peer = segmenting(device, asked.slices)
    print(f'{asked.slices} slices: {outlined:.1f} s, TotalSegmentator --fast {peer:.1f} s: {peer / outlined:.2f} times')
    note(f'organs in {asked.slices} slices on {device}', outlined, 'TotalSegmentator --fast (3 mm)', peer)
    compare_loops(asked.steps, 1, device)


if __name__ == '__main__':
    np.random.seed(0)
    main()
