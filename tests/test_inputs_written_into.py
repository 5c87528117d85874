"""Models and preprocessing that write into their input change neither the caller's images nor any number."""

import copy

import pytest
import torch
from torch import nn

from xinc_captum import FeatureAccentuation, FeatureActivationMap, LayerContribution, NeuronCanvas
from xinc_captum.attributions.linking import Encoder
from xinc_captum.comparison import compare, grad_cam
from xinc_captum.metrics import deletion_insertion, road, target_score
from xinc_captum.metrics.dissection import dissect


class Normalising(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 3)
        self.in_place = False

    def forward(self, x):
        x = x.sub_(0.5).div_(0.25) if self.in_place else (x - 0.5) / 0.25
        return self.head(self.relu(self.conv(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    net = Normalising().eval()
    other = copy.deepcopy(net)
    other.in_place = True
    return net, other


def images(seed=0):
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


MAPS = images(1)[:, 0]


def short(model, x, **more):
    found = compare(["Grad-CAM", "Integrated Gradients"], model, x, 1, "relu", rounds=1, steps=2, baselines=(), **more)
    assert [row.error for row in found.table] == ["", ""]
    scores = [found.scores[name][measure] for name in found.maps for measure in ("deletion", "insertion", "road")]
    return torch.cat([found.confidence, *scores, *(m.flatten() for m in found.maps.values())])


@pytest.mark.parametrize(
    "explain",
    [
        lambda net, x: LayerContribution(net, "relu").attribute(x, target=1, internal_batch_size=3),
        lambda net, x: LayerContribution(net, "relu").attribute(x, target=1, return_convergence_delta=True)[1],
        lambda net, x: NeuronCanvas(net, "relu").attribute(x),
        lambda net, x: NeuronCanvas(net, "relu", rule="secant").attribute(x, memory_budget=3000),
        lambda net, x: NeuronCanvas(net, "relu", rule="ablation").attribute(x),
        lambda net, x: FeatureActivationMap(net, "relu", references=x[:1]).attribute(x, internal_batch_size=2),
        lambda net, x: FeatureAccentuation(net).accentuate(x, 1, n_steps=2).images,
        lambda net, x: grad_cam(net, "relu")(x, 1),
        lambda net, x: target_score(net, x, 1),
        lambda net, x: deletion_insertion(net, x, MAPS, 1, steps=2).deletion,
        lambda net, x: road(net, x, MAPS, 1),
        lambda net, x: dissect(net, "conv", x, images()[:, :1] > 0.8, generator=torch.Generator(), batch_size=2).iou,
        lambda net, x: Encoder(net, "conv").encode(x).logits,
        short,
    ],
)
def test_models_that_write_into_their_input(nets, explain):
    x, given = images(), images()
    torch.manual_seed(0)
    expected = explain(nets[0], x)
    torch.manual_seed(0)
    assert torch.equal(explain(nets[1], given), expected)
    assert torch.equal(given, x)


def test_preprocessing_that_writes_into_its_input():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    expected = compare(["Grad-CAM"], net, images(), 1, "1", preprocess=lambda x: (x - 0.5) / 0.25, rounds=1, steps=2)
    given = images()
    found = compare(["Grad-CAM"], net, given, 1, "1", preprocess=lambda x: x.sub_(0.5).div_(0.25), rounds=1, steps=2)
    assert torch.equal(found.confidence, expected.confidence) and torch.equal(given, images())
    assert torch.equal(found.maps["Grad-CAM"], expected.maps["Grad-CAM"])
    assert torch.equal(found.scores["Grad-CAM"]["deletion"], expected.scores["Grad-CAM"]["deletion"])
