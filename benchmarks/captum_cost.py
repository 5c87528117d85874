"""Compare the CPU time of frequent calls with Captum's own, and with code written by hand, on the same work in one run.

    python benchmarks/captum_cost.py [--rounds 9] [--threads 1]

CPU seconds of this process. The two sides of a ratio run in turns, and the ratio is the median over rounds of the pairs'
ratios. A loop over Captum computes one output number at a time; it is run for a sample of pixels and scaled.
"""

import argparse
import time
from statistics import median

import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch import nn

from xinc_captum import LayerContribution, NeuronCanvas
from xinc_captum.comparison import as_maps
from xinc_captum.comparison.compare import bind_method
from xinc_captum.comparison.registry import by_name

UNITS, SIZE, SAMPLE = 24, (64, 128), 24  # of the decoder: channels explained, picture, pixels of the loop that are run


def decoder():
    """Return a NeRV block and its head: 24 maps of 32 x 64 to an image of 64 x 128."""
    layers = nn.Conv2d(8, UNITS, 3, padding=1), nn.GELU(), nn.Conv2d(UNITS, 4 * UNITS, 3, padding=1), nn.PixelShuffle(2)
    return nn.Sequential(*layers, nn.GELU(), nn.Conv2d(UNITS, 3, 3, padding=1)).eval()


def by_hand(model, inputs):
    """Compute every unit of layer 1 for every output by vmapped forward-mode derivatives, written by hand."""
    with torch.no_grad():
        activation = model[:2](inputs)
    tail = model[2:]
    alone = torch.zeros(UNITS, *activation.shape, dtype=activation.dtype)
    for unit in range(UNITS):
        alone[unit, :, unit] = activation[:, unit]
    push = torch.func.vmap(lambda one: torch.func.jvp(tail, (activation,), (one,))[1])
    return push(alone).movedim(0, 1).detach()


def loop_over_captum(model, inputs, pixels):
    method = LayerGradientXActivation(model, model[1])
    return [method.attribute(inputs, target=pixel).sum((2, 3)).detach() for pixel in pixels]


def cpu(work):
    start = time.process_time()
    answer = work()
    return time.process_time() - start, answer


def ratio(name, ours, theirs, rounds, goal):
    """Print the median ratio of the pairs' CPU seconds."""
    pairs = []
    ours(), theirs()
    for i in range(rounds):
        sides = [ours, theirs] if i % 2 == 0 else [theirs, ours]
        seconds = {side: cpu(side)[0] for side in sides}
        pairs.append((seconds[ours], seconds[theirs]))
    found = median(a / b for a, b in pairs)
    a, b = (median(side) for side in zip(*pairs, strict=True))
    print(f"{name:62s} {found:6.2f} x   ({a:.3f} s against {b:.3f} s; expected {goal})", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    from torchvision.models import resnet18

    net, images, target = resnet18(weights=None).eval(), torch.rand(8, 3, 224, 224), 1
    ours, theirs = LayerContribution(net, "layer4"), LayerGradientXActivation(net, net.layer4)
    torch.testing.assert_close(
        ours.attribute(images, target=target), theirs.attribute(images, target=target).detach(), atol=0, rtol=0
    )
    ratio(
        "LayerContribution / LayerGradientXActivation, ResNet-18 layer4",
        lambda: ours.attribute(images, target=target),
        lambda: theirs.attribute(images, target=target),
        options.rounds,
        "<= 1.1",
    )
    row = bind_method(by_name(["Grad-CAM"], net, images, None, "layer4", 0)["Grad-CAM"], net, None, (224, 224), 0)
    cam = LayerGradCam(net, net.layer4)
    ratio(
        "compare's Grad-CAM row / Captum's and its enlargement",
        lambda: row(images, target),
        lambda: as_maps(cam.attribute(images, target=target, relu_attributions=True), images, (224, 224)),
        options.rounds,
        "<= 1.05",
    )
    model, inputs = decoder(), torch.rand(1, 8, 32, 64)
    canvas = NeuronCanvas(model, "1", rule="tangent")
    found, hand = canvas.attribute(inputs), by_hand(model, inputs)
    torch.testing.assert_close(found, hand, atol=1e-6, rtol=1e-4)
    ratio(
        "NeuronCanvas, all units / vmap(jvp) by hand",
        lambda: canvas.attribute(inputs),
        lambda: by_hand(model, inputs),
        options.rounds,
        "<= 1.1",
    )
    pixels = [
        (int(c), int(y), int(x)) for c, y, x in zip(*(torch.randint(n, (SAMPLE,)) for n in (3, *SIZE)), strict=True)
    ]
    once = loop_over_captum(model, inputs, pixels)
    expected = torch.stack([found[:, :, c, y, x] for c, y, x in pixels])
    torch.testing.assert_close(torch.stack(once), expected, atol=1e-6, rtol=1e-4)
    seconds = min(cpu(lambda: loop_over_captum(model, inputs, pixels))[0] for _ in range(3))
    own = min(cpu(lambda: canvas.attribute(inputs))[0] for _ in range(5))
    whole = seconds * 3 * SIZE[0] * SIZE[1] / SAMPLE
    print(f"{'Captum, one output number at a time / NeuronCanvas':62s} {whole / own:6.0f} x   "
          f"({whole:.1f} s, scaled from {SAMPLE} numbers, against {own:.3f} s; expected >= 100)")  # fmt: skip


if __name__ == "__main__":
    main()
