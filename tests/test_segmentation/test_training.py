"""Training and testing through a Runner: frozen bytes, checks of classes, resumption, bad input."""

import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from s3pt_mm.common.models import CheckpointMismatchError
from s3pt_mm.weights.timm_vit import TimmViT
from tests.test_data.test_image_files import write_camvid


def state_of(path):
    return torch.load(path)['state_dict']


@pytest.mark.parametrize('head', ['linear', 'mask'])
def test_a_run_trains_the_head_and_no_byte_of_the_backbone(tiny, head, pretrained):
    cfg = tiny(head)
    runner = Runner.from_cfg(cfg)
    runner.train()
    after = state_of(f'{cfg.work_dir}/iter_3.pth')
    source = state_of(pretrained)
    names = [name for name in after if name.startswith('backbone.')]
    assert len(names) == len(source)
    for name in names:
        before = source[f'teacher.{name}']
        if not name.endswith('pos_embed'):  # resized to the crop's grid
            assert torch.equal(after[name], before), name
    assert all(p.grad is None for p in runner.model.backbone.parameters())
    untrained = Runner.from_cfg(dict(cfg, experiment_name=f'{cfg.experiment_name}_fresh'))
    untrained.model.init_weights()
    moved = [
        not torch.equal(value, after[name])
        for name, value in untrained.model.state_dict().items()
        if name.startswith('decode_head.')
    ]
    assert all(moved)
    metrics = runner.message_hub.log_scalars
    assert {'val/mIoU', 'val/mAcc', 'val/aAcc', 'val/IoU/car'} <= set(metrics)


def test_a_timm_backbone_trains_the_head_alone(tiny, tmp_path, repository):
    """The shipped DINOv2 probe, small; crops of 32 pixels are no multiple of its patch of 14."""
    small = dict(name='vit_small_patch14_reg4_dinov2', embed_dim=48, depth=2, num_heads=3)
    source = TimmViT(**small, img_size=56)
    state = {f'teacher.backbone.{name}': value for name, value in source.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'dinov2.pth')
    shipped = Config.fromfile(repository / 'configs/segmenter/mask_vitb14_dinov2_nuimages.py')
    cfg = tiny('mask')
    cfg.model.backbone = shipped.model.backbone
    cfg.model.backbone.update(small, img_size=32)
    cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'dinov2.pth')
    cfg.model.decode_head.update(in_channels=48, channels=48, embed_dims=48, num_heads=3)
    runner = Runner.from_cfg(cfg)
    runner.train()
    after = state_of(f'{cfg.work_dir}/iter_3.pth')
    for name, value in source.state_dict().items():
        if not name.endswith('pos_embed'):
            assert torch.equal(after[f'backbone.{name}'], value), name
    assert all(p.grad is None for p in runner.model.backbone.parameters())
    (features,) = runner.model.backbone(torch.zeros(1, 3, 32, 43))
    assert features.shape == (1, 48, 3, 4)
    other = tiny('mask')
    other.model = cfg.model
    other.model.backbone.name = 'vit_small_patch14_dinov2'
    with pytest.raises(CheckpointMismatchError, match='model.reg_token is unknown to the model'):
        Runner.from_cfg(other).train()


def test_stopped_and_resumed_equals_uninterrupted(tiny):
    whole = tiny('linear', 4)
    whole.work_dir += '_whole'
    whole.experiment_name += '_whole'
    Runner.from_cfg(whole).train()
    parts = tiny('linear', 4)
    parts.default_hooks.checkpoint.interval = 2
    first = copy.deepcopy(parts)
    first.train_cfg.update(max_iters=2, val_interval=2)
    Runner.from_cfg(first).train()
    parts.resume = True
    parts.experiment_name += '_resumed'
    Runner.from_cfg(parts).train()
    expected, got = (state_of(f'{cfg.work_dir}/iter_4.pth') for cfg in (whole, parts))
    for name in expected:
        assert torch.equal(got[name], expected[name]), name


def test_wrong_pretraining_checkpoint_stops_before_training(tiny):
    cfg = tiny()
    cfg.model.backbone.arch = dict(cfg.model.backbone.arch, num_layers=3)
    with pytest.raises(CheckpointMismatchError, match='layers.2'):
        Runner.from_cfg(cfg).train()


def test_classes_that_do_not_fit_the_head(tiny):
    cfg = tiny()
    cfg.model.decode_head.num_classes = 25
    with pytest.raises(ValueError, match=r'nuimages_train.json has 13 classes.*LinearSegHead 25'):
        Runner.from_cfg(cfg).train()


def test_checkpoint_of_another_class_list(tiny):
    cfg = tiny()
    Runner.from_cfg(cfg).train()
    other = tiny()
    other.model.decode_head.num_classes = 25
    for name in ('train', 'val', 'test'):
        other[f'{name}_dataloader'].dataset.class_set = 'nuimages25'
    other.load_from = f'{cfg.work_dir}/iter_3.pth'
    message = r'iter_3.pth.*conv_seg.weight is \(13, 32.* in the file and \(25, 32.*13 classes'
    with pytest.raises(ValueError, match=message):
        Runner.from_cfg(other).test()


def test_predictions_are_kept_and_score_the_same(tiny, tmp_path, nuimages_root):
    from PIL import Image

    cfg = tiny()
    Runner.from_cfg(cfg).train()
    again = tiny()
    again.load_from = f'{cfg.work_dir}/iter_3.pth'
    again.test_evaluator.update(
        output_dir=str(tmp_path / 'out'), result_file=str(tmp_path / 'r.json')
    )
    metrics = Runner.from_cfg(again).test()
    files = sorted((tmp_path / 'out').iterdir())
    assert [f.name for f in files] == ['v1.0-val_0.png', 'v1.0-val_1.png']
    import numpy as np

    from s3pt_mm.data.labelled_images import LabelledImages
    from s3pt_mm.probes.confusion import confusion_matrix, scores

    images = LabelledImages.from_nuimages(nuimages_root / 'nuimages_val.json', image_size=(16, 16))
    confusion = sum(
        confusion_matrix(np.asarray(Image.open(file)), images[i].label_map, num_classes=13)
        for i, file in enumerate(files)
    )
    assert scores(confusion, images.class_set.classes)['mIoU'] == pytest.approx(
        metrics['mIoU'], rel=1e-5
    )


def test_own_labels_from_folders_to_figures(tiny, tmp_path):
    """The shipped config on CamVid's layout: training, scores by class, domains by a file."""
    from s3pt_mm.cli.domain_generalisation import evaluate_domains

    root = write_camvid(tmp_path / 'own')
    (root / 'classes.yaml').write_text('[sky, road, car, tree, fence, pole]')
    cfg = tiny('mask', name='segmenter/mask_vits16_own_labels.py', root=root)
    with pytest.raises(ValueError, match=r'6 classes.*MaskTransformerSegHead 11'):
        Runner.from_cfg(copy.deepcopy(cfg)).train()
    cfg.model.decode_head.num_classes = 6
    cfg.experiment_name += '_fits'
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert {'val/mIoU', 'val/IoU/tree', 'val/IoU/pole'} <= set(runner.message_hub.log_scalars)
    image, path = runner.val_dataloader.dataset[0]['inputs'], sorted((root / 'val').iterdir())[0]
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down, which its mask is not
    Image.open(path).save(path, 'JPEG', quality=100, subsampling=0, exif=exif)
    again = runner.val_dataloader.dataset[0]['inputs']
    assert (again.float() - image.float()).abs().max() < 9
    mapping = tmp_path / 'mapping.yaml'
    mapping.write_text(
        '{source: own/classes.yaml, shared: {way: [road, road], rest: [[sky, car], car]}}'
    )
    report = evaluate_domains(
        copy.deepcopy(cfg), f'{cfg.work_dir}/iter_3.pth', cfg, str(mapping), tmp_path / 'domain'
    )
    assert {'IoU/way', 'IoU/rest'} <= set(report['target'])
    assert 'way' in (tmp_path / 'domain/domain.md').read_text()


def test_domain_report(tiny, tmp_path):
    from s3pt_mm.cli.domain_generalisation import evaluate_domains

    cfg = tiny()
    Runner.from_cfg(cfg).train()
    target = tiny()
    target.test_dataloader.dataset.ann_file = 'nuimages_random_val.json'
    report = evaluate_domains(
        tiny(), f'{cfg.work_dir}/iter_3.pth', target, 'toydrive_day_to_night', tmp_path / 'domain'
    )
    assert report['drop'] == pytest.approx(report['source']['mIoU'] - report['target']['mIoU'])
    assert report['source']['images'] == 2 and report['target']['images'] == 3
    table = (tmp_path / 'domain' / 'domain.md').read_text()
    assert 'mIoU' in table and 'driveable surface' in table
    torch.save({'state_dict': {'teacher.backbone.x': torch.zeros(1)}}, tmp_path / 'pre.pth')
    with pytest.raises(ValueError, match=r'pre.pth does not fit the model'):
        evaluate_domains(
            tiny(), str(tmp_path / 'pre.pth'), target, 'toydrive_day_to_night', tmp_path / 'no'
        )


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        (dict(config='absent.py'), 'absent.py: no such config file'),
        (dict(option='test_dataloader.dataset.data_rot=/x'), 'did you mean .*data_root'),
        (dict(option='test_dataloader.dataset.data_root=/no such/place, 1'),
         'data_root=/no such/place, 1 does not exist'),
        (dict(mapping='a_to_b'), 'a_to_b'),
    ],
)  # fmt: skip
def test_domains_read_configs_as_training_does(tmp_path, changes, words):
    from s3pt_mm.cli.domain_generalisation import main

    config = changes.get('config', 'toydrive/linear_vitt16_nuimages.py')
    command = [config, 'x.pth', '--target', 'configs/toydrive/targets/night.py']
    command += ['--mapping', changes.get('mapping', 'toydrive_day_to_night')]
    command += ['--out-dir', str(tmp_path)]
    with pytest.raises(SystemExit, match=f's3pt-domains: .*{words}'):
        main([*command, '--cfg-options', changes.get('option', 'log_level=ERROR')])
