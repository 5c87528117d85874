"""Photos, targets and measures shared by the accentuation benchmarks. Lite0 is optimised, Lite1 measures transfer."""

import time
from typing import NamedTuple

import torch
from skimage.metrics import structural_similarity

from xinc_captum import FeatureAccentuation, zoo
from xinc_captum.attributions.accentuation import FeatureDistance
from xinc_captum.hooks import reach
from xinc_captum.images import centre_crop
from xinc_captum.metrics.trust import high_frequency_energy

SIDE, INPUT = 160, 128
LAYER = "blocks.2"
PHOTOS = ("chelsea", "coffee", "astronaut", "foolbox:05", "foolbox:11", "foolbox:16")
TARGETS = ("lion", "loggerhead", "ladybug")


class Measures(NamedTuple):
    """Results of one case: CPU seconds, gains of both models' logits, feature drift, and measures of the change."""

    cpu: float
    rise: float
    transfer: float
    drift: float
    rms: float
    ssim: float
    fine: float


class Bench:
    """Both classifiers, with methods that run and measure a case."""

    def __init__(self):
        self.lite0, self.lite1 = zoo.efficientnet_lite0(), zoo.efficientnet_lite1()
        self.method = FeatureAccentuation(self.lite0.model, preprocess=self.lite0.preprocess, size=INPUT)

    def photo(self, name):
        return centre_crop(zoo.photo(name).image, SIDE)[None]

    def run(self, photo, target, **options):
        start = time.process_time()
        found = self.method.accentuate(photo, target, **options)
        return self.measure(photo, found.images, target, time.process_time() - start)

    def measure(self, before, after, target, cpu=float("nan")):
        small = [self.shrunk(x) for x in (before, after)]
        with torch.no_grad():
            rises = [float((net(small[1]) - net(small[0]))[0, target]) for net in (self.lite0, self.lite1)]
            features = [self.features(x) for x in small]
        drift = FeatureDistance(smooth=0).distance(features[1], features[0])
        change = after - before
        ssim = structural_similarity(
            before[0].permute(1, 2, 0).numpy(), after[0].permute(1, 2, 0).numpy(), channel_axis=2, data_range=1.0
        )
        fine = float(high_frequency_energy(change)[0])
        return Measures(cpu, *rises, float(drift[0]), float(change.square().mean().sqrt()), float(ssim), fine)

    def features(self, images):
        model = self.lite0.model
        layer = model.get_submodule(LAYER)
        return reach(model, [layer], lambda: model(self.lite0.preprocess(images)))[layer].detach()

    @staticmethod
    def shrunk(images):
        return torch.nn.functional.interpolate(images, (INPUT, INPUT), mode="bilinear", antialias=True)
