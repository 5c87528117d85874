"""Fit a NeRN to two large layers of a real network for ten minutes, and compare it with rounding, noise and removal.

    python benchmarks/nern_large.py [--minutes 10] [--distilled 10]

SqueezeNet 1.1 with its ImageNet weights. The last two 3x3 layers are represented (fire8 and fire9: 32,768 kernels,
294,912 weights, 24 % of the network's). Fitted on 768 random crops of photos and of video frames that ship in packages,
without labels, distilled ten times as strongly as by default, since ten minutes do not suffice for the weights.
Measured on 20 other photos of ImageNet classes, each in ten views (four corners and the centre, and mirrored): "top 1"
is the share of views with the network's own first class, "top 5" the share of its own five classes among the five,
"labels" the share of the 20 centre views with the photo's labelled class. Views of one photo are similar: 200 of them
are not 200 photos. Layers before the two are equal in both networks, so crops are run through those once and the NeRN
is fitted to the rest of the network. CPU seconds of one thread, including crops and permutation.
"""

import argparse
import copy
import time

import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.nern import NeRN, quantize, with_noise
from xinc_captum.zoo import foolbox_photos, photo, squeezenet1_1, video

FIRST, LAYERS, SIDE = 11, ("features.11.expand3x3", "features.12.expand3x3"), 224
PHOTOS = "astronaut chelsea coffee ihc motorcycle_left retina rocket voc quokka".split()
HEAD = f"{'':36}{'top 1':>8}{'top 5':>8}{'labels':>8}{'error':>8}{'bytes':>9}{'share':>8}{'seconds':>9}"


def resized(image, height, width):
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True, align_corners=False)[0]


def crops(count, seed=0):
    """Return random crops of photos and frames, at least a fifth of their area, some mirrored."""
    from sklearn.datasets import load_sample_images

    sources = [photo(name).image for name in PHOTOS]
    sources += [torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in load_sample_images().images]
    sources += list(video("bikes").frames[::10])
    stream, parts = torch.Generator().manual_seed(seed), []
    for i in range(count):
        image = sources[i % len(sources)]
        height, width = image.shape[1:]
        area, ratio, down, along, turn = torch.rand(5, generator=stream).tolist()
        area, ratio = (0.2 + 0.8 * area) * height * width, 0.75 + 0.58 * ratio
        h, w = min(height, round((area / ratio) ** 0.5)), min(width, round((area * ratio) ** 0.5))
        top, left = int(down * (height - h)), int(along * (width - w))
        part = resized(image[:, top : top + h, left : left + w], SIDE, SIDE)
        parts.append(part.flip(-1) if turn < 0.5 else part)
    return torch.stack(parts)


def ten_views(image, side=256):
    """Return ten views, the centre first."""
    scale = side / min(image.shape[1:])
    image = resized(image, *(round(n * scale) for n in image.shape[1:]))
    down, along = (n - SIDE for n in image.shape[1:])
    places = [(down // 2, along // 2), (0, 0), (0, along), (down, 0), (down, along)]
    views = torch.stack([image[:, top : top + SIDE, left : left + SIDE] for top, left in places])
    return torch.cat([views, views.flip(-1)])


def answers(model, views):
    with torch.no_grad():
        return torch.cat([model(part) for part in views.split(32)])


def row(name, model, views, own, labels, error, size, whole, share=None, seconds=None):
    found = answers(model, views)
    first = float((found.argmax(1) == own.argmax(1)).float().mean())
    five, expected = found.topk(5).indices, own.topk(5).indices
    both = float((five[:, :, None] == expected[:, None]).any(2).float().mean())
    right = float((found.view(len(labels), 10, -1)[:, 0].argmax(1) == labels).float().mean())
    end = "" if share is None else f"{share:8.1%}{seconds:9.0f}"
    print(f"{name:36}{first:8.1%}{both:8.1%}{right:8.1%}{error:8.3f}{size / whole:9.1%}{end}", flush=True)


def end_of(model):
    """Return the layers after the equal ones as a network that shares the model's weights."""
    return nn.Sequential(*model.features[FIRST:], *model.classifier, nn.Flatten())


def without(model):
    empty = copy.deepcopy(model)
    with torch.no_grad():
        for name in LAYERS:
            empty.get_submodule(name).weight.zero_()
    return empty


def main(minutes, distilled):
    classifier = squeezenet1_1()
    model, photos = classifier.model, foolbox_photos()
    views = classifier.preprocess(torch.cat([ten_views(one.image) for one in photos]))
    labels = torch.tensor([one.label for one in photos])
    own = answers(model, views)
    start = time.process_time()
    with torch.no_grad():
        seen = torch.cat([model.features[:FIRST](classifier.preprocess(part)) for part in crops(768).split(32)])
    end = end_of(model)
    settings = {"base": 0.85, "levels": 36, "hidden": 208}
    first = NeRN(end, ["0.expand3x3", "1.expand3x3"], **settings)
    before = time.process_time() - start
    whole = NeRN(model, LAYERS, orders=first.orders, **settings).size_report().target
    print(f"SqueezeNet 1.1, {len(views)} views of {len(photos)} photos; crops and permutation {before:.0f} s\n{HEAD}")
    row("the network itself", model, views, own, labels, 0.0, whole, whole)
    for bits in (8, 4):
        found = quantize(model, LAYERS, bits)
        row(f"int{bits}", found.model, views, own, labels, found.relative_error, found.bytes, whole)
    row("the two layers at 0", without(model), views, own, labels, 1.0, whole, whole)
    for strength in distilled:
        start = time.process_time()
        fit = {"batch_size": 16, "loss_weights": (1.0, strength * 1e-3, strength * 1e-3), "show_progress": False}
        NeRN(end, ["0.expand3x3", "1.expand3x3"], orders=first.orders, **settings).fit(seen, steps=4, **fit)
        steps = int((60 * minutes - before) / ((time.process_time() - start) / 4))
        part = NeRN(end, ["0.expand3x3", "1.expand3x3"], orders=first.orders, **settings)
        start = time.process_time()
        result = part.fit(seen, steps=steps, **fit)
        seconds = before + time.process_time() - start
        nern = NeRN(model, LAYERS, orders=first.orders, **settings)
        nern.predictor.load_state_dict(part.predictor.state_dict())
        report = nern.size_report()
        name = f"NeRN, distilled {strength:g} x, {result.kept.step} of {steps} steps"
        last = (report.relative_error, report.total, whole, report.share, seconds)
        row(name, nern.rebuild(), views, own, labels, *last)
        print(f"{'':4}on {len(seen) // 10} held-out crops it agrees in {result.kept.agreement:.1%}", flush=True)
        noise = with_noise(model, report.relative_error, LAYERS)
        row("noise of that error", noise, views, own, labels, report.relative_error, whole, whole)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--distilled", type=float, nargs="+", default=[10], help="times the default weights")
    given = parser.parse_args()
    torch.set_num_threads(1)
    main(given.minutes, given.distilled)
