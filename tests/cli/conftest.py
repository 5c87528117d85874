"""A fast network and generator, and one link between them, for all tests of the commands."""

import sys

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.cli.link import LinkResults, Variant, link_command, pairs_of, run_audit, sweep_selected_units
from xinc_captum.cli.models import load_classifier_and_generator, load_link

NAME = "tiny_ends"
SOURCE = """
import torch
from torch import nn
from xinc_captum.generators import EigenGenerator, from_callable, normal_latents
from xinc_captum.image_model import ImageModel, Normalise

PLACES = torch.zeros(4, 1, 8, 8)
PLACES[0, :, :4], PLACES[1, :, 4:], PLACES[2, :, :, :4], PLACES[3, :, 2:6, 2:6] = 0.8, 0.8, 0.8, 0.8

def net():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.Linear(12, 4, bias=False))
    with torch.no_grad():
        model[2].weight.zero_()
        for c in range(4):
            model[1].weight[c] = (PLACES[c] - PLACES.mean(0)).flatten() / 8
            model[2].weight[c, c] = 1.0
        model[1].bias[:4] = -(model[1].weight[:4] @ PLACES.mean(0).flatten())
    return ImageModel("places", model.eval(), Normalise((0.0,), (1.0,)), 8, ("upper", "lower", "left", "middle"))

def colours():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    return ImageModel("colours", model, Normalise((0.5,) * 3, (0.5,) * 3), 16, ("warm", "cold"))

def headless():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

def narrow():
    return ImageModel("narrow", nn.Sequential(nn.Flatten(), nn.Linear(63, 4)), Normalise((0.0,), (1.0,)), 8, ())

def _images():
    stream = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 4
    return (PLACES[labels] + 0.1 * torch.randn(120, 1, 8, 8, generator=stream)).clamp(0, 1), labels

def draw():
    return EigenGenerator(*_images(), components=8)

def classless():
    return EigenGenerator(_images()[0], components=8)

def glaring():
    return from_callable(lambda w: 2 + w.view(-1, 1, 2, 2).sigmoid(), normal_latents(4))

def faulty():
    return 3
"""


@pytest.fixture
def no_ink(monkeypatch):
    """Figures are laid out but saved as one pixel, which halves the time."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **options: Image.new("RGB", (1, 1)).save(path))


@pytest.fixture
def little_ink(monkeypatch):
    """Figures are saved with a low resolution; different figures still have different bytes."""
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: save(self, path, **options | {"dpi": 20}))


@pytest.fixture
def g():
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Name of a module with a classifier ``net``, a generator ``draw``, and models that cannot be linked."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / f"{NAME}.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    yield NAME
    sys.path.remove(str(folder))
    sys.modules.pop(NAME, None)


@pytest.fixture(scope="session")
def link_folder(tiny, tmp_path_factory):
    """Result folder of ``xinc link`` for them."""
    out = tmp_path_factory.mktemp("linked") / "link"
    link_command(out, f"{tiny}:net", f"{tiny}:draw", None, Variant.linear, 320, 0.7, None, 0, "cpu")
    return out


@pytest.fixture(scope="session")
def linked(link_folder):
    """The same link, loaded."""
    return load_link(link_folder, torch.device("cpu"))


@pytest.fixture(scope="session")
def models(tiny):
    """The classifier and the generator."""
    return load_classifier_and_generator(f"{tiny}:net", f"{tiny}:draw", None, torch.device("cpu"))


@pytest.fixture(scope="session")
def link_results(models):
    """Results of ``xinc link``, before the page."""
    pairs = pairs_of(models, 320, 0.7, 0)
    fit, test_pairs = pairs.split(0.2, seed=0)
    link = LatentLink().fit(fit.representations, fit.latents, fit.classes)
    audit = run_audit(models, link, fit, test_pairs, None, 0)
    return LinkResults(
        models,
        link,
        test_pairs,
        len(pairs),
        pairs.kept,
        audit,
        sweep_selected_units(models, link, test_pairs, 0.7, 0),
        None,
    )
