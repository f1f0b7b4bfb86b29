"""Make a weights folder that TotalSegmentator accepts (task 297, 3 mm), around a network of any size."""

import json

INTENSITIES = {
    'mean': 0.0,
    'std': 100.0,
    'percentile_00_5': -1000.0,
    'percentile_99_5': 1000.0,
    'min': -1000.0,
    'max': 1000.0,
    'median': 0.0,
}


def architecture(features):
    """Describe the network of a plan."""
    module, n = 'torch.nn.modules', len(features)
    return {
        'network_class_name': 'dynamic_network_architectures.architectures.unet.PlainConvUNet',
        'arch_kwargs': {
            'n_stages': n,
            'features_per_stage': list(features),
            'conv_op': f'{module}.conv.Conv3d',
            'kernel_sizes': [[3, 3, 3]] * n,
            'strides': [[1, 1, 1]] + [[2, 2, 2]] * (n - 1),
            'n_conv_per_stage': [1] * n,
            'n_conv_per_stage_decoder': [1] * (n - 1),
            'conv_bias': True,
            'norm_op': f'{module}.instancenorm.InstanceNorm3d',
            'norm_op_kwargs': {'eps': 1e-5, 'affine': True},
            'dropout_op': None,
            'dropout_op_kwargs': None,
            'nonlin': f'{module}.activation.LeakyReLU',
            'nonlin_kwargs': {'inplace': True},
        },
        '_kw_requires_import': ['conv_op', 'norm_op', 'dropout_op', 'nonlin'],
    }


def plans(features):
    resample = {'is_seg': False, 'order': 1, 'order_z': 0, 'force_separate_z': None}
    full = {
        'data_identifier': 'nnUNetPlans_3d_fullres',
        'preprocessor_name': 'DefaultPreprocessor',
        'batch_size': 2,
        'patch_size': [max(32, 2 ** len(features))] * 3,
        'median_image_size_in_voxels': [48.0, 48.0, 48.0],
        'spacing': [3.0, 3.0, 3.0],
        'normalization_schemes': ['CTNormalization'],
        'use_mask_for_norm': [False],
        'resampling_fn_data': 'resample_data_or_seg_to_shape',
        'resampling_fn_seg': 'resample_data_or_seg_to_shape',
        'resampling_fn_data_kwargs': resample,
        'resampling_fn_seg_kwargs': resample | {'is_seg': True},
        'resampling_fn_probabilities': 'resample_data_or_seg_to_shape',
        'resampling_fn_probabilities_kwargs': resample,
        'architecture': architecture(features),
        'batch_dice': True,
    }
    return {
        'dataset_name': 'Dataset297',
        'plans_name': 'nnUNetPlans',
        'original_median_spacing_after_transp': [3.0, 3.0, 3.0],
        'original_median_shape_after_transp': [48, 48, 48],
        'image_reader_writer': 'NibabelIOWithReorient',
        'transpose_forward': [0, 1, 2],
        'transpose_backward': [0, 1, 2],
        'experiment_planner_used': 'ExperimentPlanner',
        'label_manager': 'LabelManager',
        'configurations': {'3d_fullres': full},
        'foreground_intensity_properties_per_channel': {'0': INTENSITIES},
    }


def network(features=(2, 2)):
    """Build (the network, label -> number)."""
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from totalsegmentator.map_to_binary import class_map

    labels, n = {'background': 0} | {name: k for k, name in class_map['total'].items()}, len(features)
    net = PlainConvUNet(
        1,
        n,
        list(features),
        torch.nn.Conv3d,
        3,
        [1] + [2] * (n - 1),
        1,
        len(labels),
        1,
        conv_bias=True,
        norm_op=torch.nn.InstanceNorm3d,
        norm_op_kwargs={'eps': 1e-5, 'affine': True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={'inplace': True},
    )
    return net, labels


def write_weights(home, net, labels, features):
    """Store a network under `home`/weights as TotalSegmentator stores its own."""
    import torch
    from totalsegmentator.map_tasks_config import TASK_CONFIGS

    task = TASK_CONFIGS['total']['sub_modes']['fast']
    folder = (
        home
        / 'weights'
        / 'Dataset297_TotalSegmentator_total_3mm_1559subj'
        / f'{task["trainer"]}__nnUNetPlans__3d_fullres'
    )
    (folder / 'fold_0').mkdir(parents=True)
    torch.save(
        {
            'trainer_name': task['trainer'],
            'init_args': {'configuration': '3d_fullres'},
            'inference_allowed_mirroring_axes': None,
            'network_weights': net.state_dict(),
        },
        folder / 'fold_0' / 'checkpoint_final.pth',
    )
    (folder / 'plans.json').write_text(json.dumps(plans(features)))
    (folder / 'dataset.json').write_text(
        json.dumps({'channel_names': {'0': 'CT'}, 'labels': labels, 'numTraining': 1, 'file_ending': '.nii.gz'})
    )
