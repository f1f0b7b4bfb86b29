"""Time a training step in 32-bit numbers and in bfloat16, one thread: what `fit(…, precision='half')` saves.

python benchmarks/steps.py
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import torch
from gpu import seconds_of, training_step


def kinds():
    """Name -> (network, loss, shape of a batch), as preset demo trains them."""
    from ctlab.core.settings import Settings
    from ctlab.organs import liver3d, lowerlimb
    from ctlab.organs.organ_model import PRESET_CONFIGS, DiceCrossEntropyLoss, make_organ_net

    blocks, bones = liver3d.make_plan(Settings(preset='demo')), lowerlimb.make_plan(Settings(preset='demo'), 'unet25')
    block = blocks.batch, 1, blocks.depth, blocks.window, blocks.window
    slices = bones.batch, 1 + 2 * bones.context, bones.preprocessing.size, bones.preprocessing.size
    return {
        'liver in blocks, 3-D U-Net': (blocks.net(), blocks.loss(), block),
        'bones, 2.5-D U-Net': (bones.net(), bones.loss(), slices),
        'organ model, DynUNet': (make_organ_net(), DiceCrossEntropyLoss(), (1, 1, *PRESET_CONFIGS['demo'].shape)),
    }


def seconds(net, loss, shape, half, steps=5):
    """Median of a few steps."""
    rng = torch.Generator().manual_seed(0)
    image, mask = torch.randn(shape, generator=rng), torch.randint(0, 2, (shape[0], *shape[2:]), generator=rng)
    return seconds_of(training_step(net, loss, image, mask, half), 'cpu', steps)


def main():
    from clocks import note

    from ctlab.learn.devices import supports_bfloat16

    torch.set_num_threads(1)
    if not supports_bfloat16():
        print('this processor does not multiply in bfloat16; training stays at 32 bits on it')
    print(f'{"one step, one thread":<28}{"32 bits":>10}{"16 bits":>10}{"ratio":>8}')
    for name, (net, loss, shape) in kinds().items():
        full, half = (seconds(net, loss, shape, h) for h in (False, True))
        print(f'{name:<28}{full:8.2f} s{half:8.2f} s{full / half:8.1f}')
        ours = half if supports_bfloat16() else full
        why = 'small layers gain nothing from 16 bits'
        note(f'a training step: {name}', ours, 'the same in 32 bits', full, reason=why)


if __name__ == '__main__':
    main()
