"""Time a training step in our loop, in nnU-Net's and in MONAI's: the same network, patches, batch, threads and scans.

The network is the one that nnU-Net plans for the scans, with a quarter of its channels and without deep supervision.
Each loop cuts and augments its samples as it always does, in one process beside the training, and runs in a process of
its own: `fit` with `PatchDataset`, `nnUNetTrainer.run_training`, and the loop of MONAI's tutorials (CacheDataset,
RandCropByPosNegLabeld, DiceCELoss). What is timed is from the begin of one step to the begin of the next, samples
awaited included. Ours is timed in 32 bits, in bfloat16 and compiled; MONAI's in bfloat16, too.

    python benchmarks/training.py [--steps 20] [--rounds 1] [--device cuda]

Loops in bfloat16 are left out where a processor does not multiply in it: there they take ten times as long.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from ctlab.learn.devices import supports_bfloat16

SHAPE, SPACING, PATCH, BATCH, SCANS, WARM = (96, 112, 144), 2.5, (48, 96, 96), 2, 4, 4
STRUCTURES = ('liver', 'spleen', 'kidney_left', 'kidney_right')
LOOPS = ('ours', 'ours bfloat16', 'ours compiled', 'nnU-Net', 'MONAI', 'MONAI bfloat16')
CORES = len(os.sched_getaffinity(0))


def make_scans(root):
    """Draw the scans in the layout of a case set, and let nnU-Net plan and preprocess them."""
    from ctlab.cohort.cases import find_cases, write_nnunet
    from ctlab.phantoms.synthesis import CLASSES, Synthesis, varied_body
    from ctlab.scans import nifti
    from ctlab.scans.volume import Volume, make_volume

    for k in range(SCANS):
        rng, maker = np.random.default_rng(k), Synthesis([varied_body(k)], SHAPE, 3.0)
        tissue = maker.warp(rng)
        scan = make_volume(maker.render(tissue, rng).numpy().round().astype(np.int16), (SPACING,) * 3)
        nifti.write(scan, root / 'cases' / f'scan{k}' / 'image.nii.gz')
        numbers = maker.classes[tissue].numpy()
        for name in STRUCTURES:
            mask = (numbers == list(CLASSES).index(name) + 1).astype(np.uint8)
            nifti.write(Volume(mask, scan.affine), root / 'cases' / f'scan{k}' / 'masks' / f'{name}.nii.gz')
    data = write_nnunet(find_cases(root / 'cases'), root / 'nnUNet_raw', 1, 'clocks', STRUCTURES)
    planner = Path(sys.executable).with_name('nnUNetv2_plan_and_preprocess')
    subprocess.run([planner, '-d', '1', '-c', '3d_fullres', '-np', '1', '-npfp', '1'], check=True, capture_output=True)
    path = root / 'nnUNet_preprocessed' / data.name / 'nnUNetPlans.json'
    plans = json.loads(path.read_text())
    planned = plans['configurations']['3d_fullres']
    planned |= {'patch_size': list(PATCH), 'batch_size': BATCH}
    network = planned['architecture']['arch_kwargs']
    for key, value in network.items():
        if isinstance(value, list) and len(value) == network['n_stages']:
            network[key] = value[:5]
    network['n_conv_per_stage_decoder'] = network['n_conv_per_stage_decoder'][:4]
    network['strides'] = [[1, 1, 1], *[[2, 2, 2]] * 4]
    network |= {'n_stages': 5, 'features_per_stage': [n // 4 for n in network['features_per_stage']]}
    path.write_text(json.dumps(plans))
    names = [f'scan{k}' for k in range(SCANS)]
    path.with_name('splits_final.json').write_text(json.dumps([{'train': names[1:], 'val': names[:1]}]))


def trainer(root, device):
    """Build nnU-Net's trainer for the plan."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    data = root / 'nnUNet_preprocessed' / 'Dataset001_clocks'
    plans, dataset = (json.loads((data / n).read_text()) for n in ('nnUNetPlans.json', 'dataset.json'))
    made = nnUNetTrainer(plans | {'continue_training': False}, '3d_fullres', 0, dataset, torch.device(device))
    made.enable_deep_supervision, made.disable_checkpointing = False, True
    made.initialize()
    return made


def watch(net):
    """Note when each training step begins."""
    times = []
    net.register_forward_pre_hook(lambda module, _: times.append(time.perf_counter()) if module.training else None)
    return times


def run_nnunet(root, steps, own, how, device):
    """Train in nnU-Net's loop."""
    own.num_iterations_per_epoch, own.num_val_iterations_per_epoch, own.num_epochs = steps, 1, 1
    times = watch(own.network)
    own.run_training()
    return times


def run_ours(root, steps, own, how, device):
    """Train in our loop."""
    from ctlab.cohort.cases import CasePreprocessing, find_cases, prepare_cases
    from ctlab.learn.losses import SegmentationLoss
    from ctlab.learn.patches import PatchDataset, make_augmentation, patch_loader
    from ctlab.learn.training import Learner, fit

    cases, _ = prepare_cases(find_cases(root / 'cases'), root, CasePreprocessing(STRUCTURES, 144), 1)
    data = PatchDataset(cases[1:], PATCH[0], augment=make_augmentation(volume=True), window=PATCH[1])
    valid = PatchDataset(cases[:1], PATCH[0], window=PATCH[1])
    loaders = patch_loader(data, BATCH, BATCH * steps, workers=1), patch_loader(valid, BATCH)
    learner, times = Learner(own.network, SegmentationLoss('dice_focal'), 1e-3), []
    learner.on_train_batch_start = lambda *_: times.append(time.perf_counter())
    options = {'precision': 'half' if how else '32-true', 'compiled': 'inductor' if how == 'compiled' else ''}
    fit(learner, *loaders, root / 'ours', 1, device, resume=False, monitor='', **options)
    return times


def run_monai(root, steps, own, how, device):
    """Train in the loop of MONAI's tutorials."""
    from monai import data, losses
    from monai import transforms as T
    from monai.utils import set_determinism

    set_determinism(0)
    both, raw = ['image', 'label'], root / 'nnUNet_raw' / 'Dataset001_clocks'
    names = [f'scan{k}' for k in range(1, SCANS)]
    files = [{'image': raw / 'imagesTr' / f'{n}_0000.nii.gz', 'label': raw / 'labelsTr' / f'{n}.nii.gz'} for n in names]
    steps_of_samples = [
        T.LoadImaged(both, ensure_channel_first=True),
        T.ScaleIntensityRanged('image', -160, 240, 0, 1, clip=True),
        T.RandCropByPosNegLabeld(both, 'label', PATCH[::-1], pos=1, neg=1, num_samples=1),
        *(T.RandFlipd(both, 0.1, axis) for axis in range(3)),
        T.RandRotate90d(both, 0.1, 3),
        T.RandShiftIntensityd('image', 0.1, prob=0.5),
        T.ToTensord(both, track_meta=False),
    ]
    scans = data.CacheDataset(
        files * -(-BATCH * steps // len(files)), T.Compose(steps_of_samples), cache_num=len(files)
    )
    loader = data.DataLoader(scans, 1, batch_size=BATCH, shuffle=True, pin_memory=device == 'cuda')
    net = own.network.train()
    loss, optimiser = losses.DiceCELoss(to_onehot_y=True, softmax=True), torch.optim.AdamW(net.parameters(), 1e-3)
    times = watch(net)
    for batch in loader:
        optimiser.zero_grad()
        image, label = (batch[n].to(device) for n in ('image', 'label'))
        with torch.autocast(device, torch.bfloat16, enabled=bool(how)):
            total = loss(net(image), label)
        total.backward()
        optimiser.step()
    return times


def time_loop(loop, root, steps, device):
    """Give the mean seconds of a step of a loop, in this process."""
    torch.set_num_threads(CORES)
    torch.manual_seed(0)
    name, _, how = loop.partition(' ')
    run = {'ours': run_ours, 'nnU-Net': run_nnunet, 'MONAI': run_monai}[name]
    times = run(root, WARM + steps, trainer(root, device), how, device)
    assert len(times) >= WARM + steps, f'{loop}: {len(times)} steps'
    return float((times[WARM + steps - 1] - times[WARM]) / (steps - 1))


def measure(root, steps, rounds, device):
    """Time every loop in processes of their own, in turns; gives the least of each."""
    found = {loop: [] for loop in LOOPS if 'bfloat16' not in loop or supports_bfloat16(device)}
    for _ in range(rounds):
        for loop, times in found.items():
            command = [sys.executable, __file__, '--loop', loop, '--root', root, '--steps', str(steps)]
            command += ['--device', device]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(done.stderr)
            times.append(float(done.stdout.splitlines()[-1]))
    return {loop: min(times) for loop, times in found.items()}


def compare_loops(steps, rounds, device):
    """Draw the scans, time the loops, and print and note what came out."""
    from clocks import note

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ |= {n: str(root / n) for n in ('nnUNet_raw', 'nnUNet_preprocessed', 'nnUNet_results')}
        os.environ |= {'nnUNet_n_proc_DA': '1', 'nnUNet_def_n_proc': '1', 'PYTHONWARNINGS': 'ignore'}
        make_scans(root)
        times = measure(root, steps, rounds, device)
    where = f'{CORES} threads' if device == 'cpu' else torch.cuda.get_device_name()
    print(f'{BATCH} patches of {" x ".join(map(str, PATCH))}, {where}, one process beside it for samples')
    for loop, seconds in times.items():
        print(f'{loop:<16}{seconds:7.3f} s a step, {1 / seconds:5.2f} steps a second')
    what = 'a training step, same network and patches' + ('' if device == 'cpu' else ', GPU')
    for peer in ('nnU-Net', 'MONAI'):
        note(f'{what}, 32 bits', times['ours'], peer, times[peer])
    if 'ours bfloat16' in times:
        note(f'{what}, bfloat16', times['ours bfloat16'], 'MONAI', times['MONAI bfloat16'])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=1)
    parser.add_argument('--device', default='cpu', help='cpu or cuda')
    parser.add_argument('--loop', choices=LOOPS, help='one loop only, in this process')
    parser.add_argument('--root', type=Path, help='where the scans lie')
    asked = parser.parse_args()
    if asked.loop:
        return print(time_loop(asked.loop, asked.root, asked.steps, asked.device))
    compare_loops(asked.steps, asked.rounds, asked.device)


if __name__ == '__main__':
    main()
