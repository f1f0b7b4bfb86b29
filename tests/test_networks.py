"""Every network learns two scans by heart; one that cannot will not learn a hundred."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT

from ctlab.core.anatomy import TARGETS
from ctlab.learn.losses import SegmentationLoss, TraumaLoss


def by_heart(net, image, loss, batch, steps, learning_rate):
    """(first loss, last loss) of a fixed batch."""
    torch.manual_seed(0)
    optimiser, values = torch.optim.Adam(net.parameters(), learning_rate), []
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss(net(image), batch)['total']
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    return values[0], values[-1]


def trauma():
    from ctlab.learn.networks import SliceNet, VolumeNet
    from ctlab.trauma.approach6 import OrganNet, preset_regions

    g = torch.Generator().manual_seed(1)
    cubes = {
        n: torch.stack(
            [torch.randint(0, 256, (2, *r.shape), generator=g), torch.randint(0, 3, (2, *r.shape), generator=g)], 1
        ).to(torch.uint8)
        for n, r in preset_regions('tiny').items()
    }
    return {
        'four slices': (lambda: SliceNet(4, pretrained=False), torch.rand(2, 4, 64, 64, generator=g), 3e-3),
        'ten slices': (lambda: SliceNet(10, pretrained=False), torch.rand(2, 10, 64, 64, generator=g), 3e-3),
        'volume': (lambda: VolumeNet(False), torch.rand(2, 1, 10, 32, 32, generator=g), 1e-3),
        'organs': (lambda: OrganNet(8), cubes, 1e-2),
    }


@pytest.mark.parametrize('name', ['four slices', 'ten slices', 'volume', 'organs'])
def test_trauma_networks(name):
    torch.manual_seed(0)
    make, image, learning_rate = trauma()[name]
    batch = {t: torch.tensor([0, len(g) - 1]) for t, g in TARGETS.items()}
    first, last = by_heart(make(), image, TraumaLoss(), batch, 25, learning_rate)
    assert last < 0.35 * first, (first, last)


@pytest.mark.parametrize('name', ['unet', 'resnet', 'unet3d'])
def test_mask_networks(name):
    from ctlab.learn.networks import ResNetUNet, UNet3D, unet_2d

    torch.manual_seed(0)
    net = {'unet': lambda: unet_2d(1, 8), 'resnet': lambda: ResNetUNet(1, False), 'unet3d': lambda: UNet3D(1, 1, 4)}[
        name
    ]()
    shape = (16, 16, 16) if name == 'unet3d' else (32, 32)
    grids = np.meshgrid(*(np.arange(n) for n in shape), indexing='ij')
    mask = torch.from_numpy(
        (sum((g - n / 2) ** 2 for g, n in zip(grids, shape)) < (min(shape) / 3) ** 2).astype(np.int64)
    )[None].repeat(2, *(1,) * len(shape))
    image = (mask * 0.5 + torch.rand(mask.shape, generator=torch.Generator().manual_seed(2)) * 0.4).float()[:, None]
    first, last = by_heart(net, image, SegmentationLoss(), {'mask': mask}, 60, 1e-2)
    assert last < 0.35 * first, (first, last)


CACHED = """
import timm, torch
import segmentation_models_pytorch as smp
from pathlib import Path
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import save_file
from ctlab.learn.networks import ResNetUNet, timm_backbone

def keep(repository, revision, net):
    "Weights where the hub's own cache would have them."
    folder = Path(HF_HUB_CACHE)/f"models--{repository.replace('/', '--')}"
    for name in ('refs', f'snapshots/{revision}'): (folder/name).mkdir(parents=True)
    (folder/'refs'/'main').write_text(revision)
    (folder/'snapshots'/revision/'config.json').write_text('{}')
    save_file(net.state_dict(), folder/'snapshots'/revision/'model.safetensors')

hub = smp.encoders.encoders['resnet34']['pretrained_settings']['imagenet']
encoder, backbone = smp.encoders.get_encoder('resnet34', weights=None), timm.create_model('efficientnet_b0')
keep(hub['repo_id'], hub['revision'], encoder)
keep(timm.models.get_pretrained_cfg('efficientnet_b0').hf_hub_id, 40*'a', backbone)
made, (body, source) = ResNetUNet(4, True), timm_backbone('efficientnet_b0', True)
assert 'ImageNet' in made.weights and 'ImageNet' in source
assert torch.equal(made.net.encoder.conv1.weight, encoder.conv1.weight)
assert torch.equal(body.conv_stem.weight, backbone.conv_stem.weight)
"""


def test_weights_of_the_hub_are_taken_from_its_cache_without_a_network(tmp_path):
    import os

    subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', CACHED],
        env=os.environ | {'HF_HUB_CACHE': str(tmp_path)},
        check=True,
        timeout=120,
    )


def test_what_a_gpu_runs_takes_the_same_way_on_a_processor(monkeypatch):
    """The benchmark of a GPU, with everything but the transfer: its limits, its feeding, its training step."""
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import gpu

    operations, copied = gpu.limits('cpu')
    step, plain, counted = gpu.training_steps('cpu', small=True)
    assert min(operations, copied, step, plain, counted, *gpu.feeding('cpu', 2)) > 0


def test_a_network_says_the_same_in_either_order_of_memory():
    from ctlab.learn.devices import network_on
    from ctlab.learn.networks import SliceNet

    image = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    net = SliceNet(4, pretrained=False).eval()
    with torch.inference_mode():
        before = net(image)
    with network_on(net, 'cpu', half=False) as ready:
        after = ready(image)
    for target, values in before.items():
        assert torch.allclose(values, after[target], atol=1e-4), target


ASKED = """
import importlib
import torch
asked = []
for name in ('is_available', 'device_count', 'init', 'current_device', 'get_device_properties'):
    setattr(torch.cuda, name, lambda *a, name=name, **k: asked.append(name))
from ctlab.core.parallel import LIBRARIES
from ctlab.interfaces.kernels import KERNEL_MODULES, TRAINING_MODULES
for module in (*LIBRARIES, *KERNEL_MODULES, *TRAINING_MODULES, 'nnunetv2.inference.data_iterators'):
    importlib.import_module(module)
assert not asked, asked
torch.cuda.is_available()
assert asked == ['is_available']
"""


def test_what_forks_are_given_asks_for_no_gpu():
    """A process that has asked for a GPU has forks that cannot use it."""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', ASKED], check=True, timeout=600)
