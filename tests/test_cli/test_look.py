"""The page of ``s3pt-look``: what is in it, and what it does in a real browser."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from s3pt_mm.cli import look
from s3pt_mm.cli.images_in import read_image
from s3pt_mm.data.transforms.image import EncodedImage
from s3pt_mm.weights.any_vit import load_tokens
from s3pt_mm.weights.files import write_weights

SIZE = (64, 96)


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """Two checkpoints and five images, one of them torn, one with a name that could be HTML."""
    from mmpretrain.models import VisionTransformer

    root = tmp_path_factory.mktemp('look')
    torch.manual_seed(0)
    for name, patch in (('a', 16), ('b', 32)):
        arch = dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64)
        model = VisionTransformer(arch=arch, img_size=64, patch_size=patch)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.1)
        state = {f'teacher.backbone.{n}': t for n, t in model.state_dict().items()}
        write_weights(state, root / f'{name}.pth', {})
    (root / 'images' / 'in').mkdir(parents=True)
    generator = np.random.default_rng(0)
    for index, name in enumerate(('0.png', '1.jpg', 'in/<b>&.jpg', '3.jpg')):
        noise = generator.integers(0, 255, (12, 16 + 2 * index, 3)).astype(np.uint8)
        image = Image.fromarray(noise).resize((320 + 40 * index, 240), Image.Resampling.BICUBIC)
        image.filter(ImageFilter.GaussianBlur(2)).save(root / 'images' / name)
    (root / 'images' / '4.jpg').write_bytes((root / 'images' / '3.jpg').read_bytes()[:900])
    return root


def arguments(folder: Path, *more: str) -> list[str]:
    command = [str(folder / 'a.pth'), str(folder / 'images'), '--image-size', *map(str, SIZE)]
    command += ['--num-heads', '2', '--clustering', 's3pt,num_clusters=8', '--device', 'cpu']
    return [*command, '--batch-size', '3', *more]


@pytest.fixture(scope='module')
def page(folder: Path) -> Path:
    out = folder / 'page.html'
    assert look.main(arguments(folder, '--out', str(out), '--against', str(folder / 'b.pth'))) == 0
    return out


def content(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])


def cosines(folder: Path, images: list[str], image: int, patch: int) -> list[torch.Tensor]:
    """Of a patch with all patches, by the network itself, in full."""
    model = load_tokens(folder / 'a.pth', num_heads=2)
    (tokens,) = model(torch.stack([read_image(folder / 'images' / n, SIZE) for n in images]))
    unit = torch.nn.functional.normalize(tokens[:, 1:], dim=-1)
    return list(unit @ unit[image, patch])


def test_page_holds_what_the_networks_compute(folder: Path, page: Path, capsys) -> None:
    data = content(page)
    names = [image['name'] for image in data['images']]
    assert names == ['0.png', '1.jpg', '3.jpg', 'in/<b>&.jpg']  # 4.jpg is torn
    assert '<b>' not in page.read_text()
    assert any('1 images could not be read' in note for note in data['notes'])
    first, second = data['networks']
    assert (first['grid'], second['grid']) == ([4, 6], [2, 3]) and first['heads'] == 2
    features = np.frombuffer(base64.b64decode(first['features'][2]), np.int8).reshape(24, -1)
    unit = features / np.linalg.norm(features.astype(float), axis=1, keepdims=True)
    exact = cosines(folder, names, 2, 7)[2]
    np.testing.assert_allclose(unit @ unit[7], exact, atol=0.02)
    attention = np.frombuffer(base64.b64decode(first['attention'][0]), np.uint8).reshape(2, 24)
    assert attention.max() == 255 and (np.array(first['peaks']) < 1).all()
    assert len(np.frombuffer(base64.b64decode(first['clusters'][0]), '<u2')) == 2 * 14 * 14


def test_a_photo_on_its_side_is_shown_upright(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Photo and views of it, from one decoding, as if it was stored upright."""
    with Image.open(folder / 'images' / '1.jpg') as photo:
        upright = photo.convert('RGB')
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 270 degrees, counter-clockwise, to be seen
    for name, image, options in (
        ('upright', upright, {}),
        ('turned', upright.transpose(Image.Transpose.ROTATE_90), dict(exif=exif)),
    ):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / 'one.png', **options)
    decode, decoded = EncodedImage.decode, []
    monkeypatch.setattr(
        EncodedImage, 'decode', lambda self, *a: decoded.append(self.path) or decode(self, *a)
    )
    pages = []
    for name in ('upright', 'turned'):
        command = [str(folder / 'a.pth'), str(tmp_path / name), *arguments(folder)[2:]]
        out = tmp_path / f'{name}.html'
        assert look.main([*command, '--view-size', '64', '--out', str(out)]) == 0
        pages.append(content(out)['images'])
    assert pages[0] == pages[1]
    assert len(decoded) == 4  # each folder: for the page, and by the network


def test_what_is_left_out_is_named(folder: Path, tmp_path: Path, capsys) -> None:
    options = ('--foreground', '0.5', '--out', str(tmp_path / 'p.html'))
    assert look.main(arguments(folder, *options, '--dims', '8')) == 0
    said = capsys.readouterr()
    assert re.search(r'left out: \S+4\.jpg', said.err) and 'page' not in said.err
    assert 'search in 8 of 32 dimensions, a byte each: cosines are off by 0.' in said.out
    assert re.search(r'p\.html: 0\.\d MB, 4 images, 1 left out', said.out)
    assert content(tmp_path / 'p.html')['networks'][0]['foreground']


def test_max_images_and_a_large_page(folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(look, 'LARGE_PAGE', 0.0)
    out = str(tmp_path / 'p.html')
    assert look.main(arguments(folder, '--out', out, '--max-images', '2')) == 0
    said = capsys.readouterr()
    assert '2 of 5 images, spread evenly' in said.out and 'warning: above 0 MB' in said.err


@pytest.mark.parametrize(
    'change, message',
    [
        ({'--out': 'x.txt'}, 'x.txt: name a file ending in .html'),
        ({0: 'absent.pth'}, 'absent.pth: no such checkpoint'),
        ({1: 'absent'}, 'absent: no such folder'),
        ({1: 'torn'}, 'torn: none of its 1 images can be read'),
        ({'--against': 'images/1.jpg'}, '1.jpg: refused'),
        ({'--image-size': '30'}, 'no multiples of the patch, 16'),
        ({'--clustering': 'x'}, "--clustering 'look=x': name=preset"),
        ({'--clustering': 's3pt,num_clusters=999'}, 'num_clusters=999 exceeds the 392 tokens'),
        ({'--max-images': '0'}, '--max-images 0: at least 1'),
    ],
    ids=str,
)
def test_mistakes_are_one_line(folder: Path, tmp_path: Path, capsys, change, message) -> None:
    (folder / 'torn').mkdir(exist_ok=True)
    shutil.copy(folder / 'images' / '4.jpg', folder / 'torn')
    command = arguments(folder, '--out', 'p.html', '--against', 'a.pth', '--max-images', '3')
    for place, value in change.items():
        command[place if isinstance(place, int) else command.index(place) + 1] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert look.main(command) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error')]
    assert len(errors) == 1 and message in errors[0] and not (folder / 'p.html').exists()


@pytest.fixture(scope='module')
def browser() -> Iterator:
    playwright = pytest.importorskip('playwright.sync_api')
    with playwright.sync_playwright() as driver:
        found = [shutil.which(name) for name in ('chromium', 'chromium-browser', 'google-chrome')]
        own = driver.chromium.executable_path
        path = next(filter(None, found), own if Path(own).is_file() else None)
        if path is None:
            pytest.skip('no Chromium')
        opened = driver.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield opened
        opened.close()


@pytest.mark.parametrize('scheme, width', [('light', 1300), ('dark', 420)])
def test_in_a_browser(folder: Path, page: Path, browser, scheme: str, width: int) -> None:
    """Clicks, views and keys; neighbours are those that the network itself finds."""
    tab = browser.new_page(viewport=dict(width=width, height=800), color_scheme=scheme)
    said, asked = [], []
    tab.on('console', lambda message: said.append(message.text))
    tab.on('pageerror', lambda error: said.append(str(error)))
    tab.on('request', lambda request: asked.append(request.url[:40]))
    tab.goto(page.as_uri())
    tab.wait_for_selector('body[data-ready]')
    assert tab.evaluate('document.documentElement.scrollWidth <= innerWidth')
    canvas = tab.locator('section').first.locator('.stage canvas').first

    def drawn() -> str:
        tab.wait_for_timeout(150)
        return canvas.evaluate('(canvas) => canvas.toDataURL()')

    tab.keyboard.press('ArrowRight')
    assert '2 / 4 1.jpg' in re.sub(r'\s+', ' ', tab.text_content('#name'))
    before = drawn()
    box = canvas.bounding_box()
    x, y = 3.5 / 6, 2.5 / 4
    canvas.click(position=dict(x=x * box['width'] - box['width'] / 3, y=y * box['height']))
    assert drawn() != before
    # Patch (2, 1) of image 1: the best patch of each other image, best first.
    names = [image['name'] for image in content(page)['images']]
    exact = cosines(folder, names, 1, 2 * 6 + 1)
    best = sorted(((float(exact[i].max()), names[i]) for i in (0, 2, 3)), reverse=True)
    tiles = tab.locator('section').first.locator('.neighbour')
    shown = [text.split(maxsplit=1) for text in tiles.all_text_contents()]
    assert len(shown) == 3
    for (cosine, name), (wanted, wanted_name) in zip(shown, best, strict=True):
        assert abs(float(cosine) - wanted) < 0.03 and name == wanted_name
    tab.uncheck('#one')
    assert tiles.count() == 8
    tiles.nth(1).click()
    assert '1.jpg' not in tab.text_content('#name')
    pictures = set()
    for view in ('similarity', 'components', 'attention', 'clusters'):
        tab.click(f'[data-view={view}]')
        pictures.add(drawn())
        assert tab.locator('.legend').first.text_content()
    assert len(pictures) == 4
    assert tab.locator('.stage canvas:visible').count() == 4  # two views of two networks
    canvas.click()
    assert drawn() not in pictures  # one cluster alone
    tab.click('[data-view=attention]')
    mean = drawn()
    tab.select_option('#head', '1')
    assert drawn() != mean
    assert not said and all(url.startswith(('file:', 'data:', 'blob:')) for url in asked)
    tab.close()
