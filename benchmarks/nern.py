"""Measure accuracy, weight error and file size of a NeRN together, and the memory of its canvases.

    python benchmarks/nern.py digits [--seeds 0 1]      a small network for scikit-learn's digits, about 30 s per row
    python benchmarks/nern.py mnist [--steps 800]       the zoo's MNIST network
    python benchmarks/nern.py size                      a target of 11 million weights, and 16,384 kernels to order

CPU seconds of one thread. Test images are neither used in the fit nor for validation. "share" is the number of
parameters of the small network per represented weight, as in the paper; "bytes" is the whole file relative to the
target's, with permutation, biases, statistics and classifier. int8 and int4 are the represented weights rounded, with
one scale per filter; "all" rounds the weights of all layers.
"""

import argparse
import resource
import time

import torch
import torch.nn.functional as F
from torch import nn

from xinc_captum.attributions.nern import KernelCanvas, NeRN, order_kernels, quantize

HEAD = f"{'':32}{'accuracy':>9}{'error':>8}{'bytes':>9}{'share':>8}{'seconds':>9}"


def accuracy(model, images, labels):
    with torch.no_grad():
        found = torch.cat([model(part).argmax(1) for part in images.split(256)])
    return float((found == labels).float().mean()) * 100


def row(name, right, error, size, whole, share=None, seconds=None):
    end = "" if share is None else f"{share:8.1%}{seconds:9.0f}"
    print(f"{name:32}{right:9.2f}{error:8.3f}{size / whole:9.1%}{end}", flush=True)


def roundings(target, layers, images, labels, whole):
    for bits, everything in ((8, False), (4, False), (8, True), (4, True)):
        found = quantize(target, layers, bits, all_weights=everything)
        row(
            f"int{bits}{', all weights' * everything}",
            accuracy(found.model, images, labels),
            found.relative_error,
            found.bytes,
            whole,
        )


def fitted(name, nern, images, test, labels, **settings):
    start = time.process_time()
    nern.fit(images, show_progress=False, **settings)
    seconds = time.process_time() - start
    report = nern.size_report()
    right = accuracy(nern.rebuild(), test, labels)
    row(name, right, report.relative_error, report.total, report.target, report.share, seconds)


def digits_target(images, labels, seed):
    """Return three convolutions with batch norm, 13,968 weights in 1,552 kernels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = []
        for before, after in ((1, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if len(layers) < 6 else []
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
        adam = torch.optim.Adam(model.parameters(), 3e-3)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, 30 * -(-len(images) // 64))
        for _ in range(30):
            for part in torch.randperm(len(images)).split(64):
                loss = F.cross_entropy(model(images[part]), labels[part])
                adam.zero_grad()
                loss.backward()
                adam.step()
                schedule.step()
    return model.eval()


class Published:
    """The paper's noise: every value of every image uniform in [-2, 2]."""

    def __init__(self, seed):
        self.seed = seed

    def __iter__(self):
        stream = torch.Generator().manual_seed(self.seed)
        while True:
            yield torch.rand(128, 1, 8, 8, generator=stream) * 4 - 2


def digits_split():
    """Return training images and labels, and test images and labels."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images, labels = torch.from_numpy(data.images).float()[:, None] / 16, torch.from_numpy(data.target)
    train, test = train_test_split(torch.arange(len(images)), test_size=450, random_state=0, stratify=data.target)
    return images[train], labels[train], images[test], labels[test]


def digits(seeds):
    seen, shown, x, y = digits_split()
    for seed in seeds:
        target = digits_target(seen, shown, seed)
        whole = NeRN(target).size_report().target
        print(f"digits, target of seed {seed}, 450 test images\n{HEAD}")
        row("target", accuracy(target, x, y), 0, whole, whole)
        roundings(target, None, x, y, whole)
        for hidden, steps in ((40, 1000), (28, 1500)):
            nern = NeRN(target, hidden=hidden, seed=seed)
            fitted(f"hidden {hidden}, {steps} steps", nern, seen, x, y, seed=seed, steps=steps)
        for kind in ("in-filter", "none"):
            nern = NeRN(target, hidden=40, permutation=kind, seed=seed)
            fitted(f"hidden 40, {kind}", nern, seen, x, y, seed=seed)
        fitted("hidden 40, reconstruction only", NeRN(target, seed=seed), None, x, y, seed=seed)
        for low, high in ((-2.0, 2.0), (0.0, 1.0)):
            nern, name = NeRN(target, seed=seed), f"hidden 40, noise in [{low:g}, {high:g}]"
            fitted(name, nern, "noise", x, y, seed=seed, noise_shape=(1, 8, 8), noise_range=(low, high))
        held = next(iter(Published(seed + 1)))
        fitted("hidden 40, published noise", NeRN(target, seed=seed), Published(seed), x, y, seed=seed, validation=held)


def mnist(steps):
    from xinc_captum.zoo import mnist_cnn, mnist_digits

    classifier, kept = mnist_cnn(), mnist_digits()
    target, images = classifier.model, classifier.preprocess(kept.images)
    held = torch.arange(len(images)) % 5 == 4
    seen, x, y = images[~held], images[held], kept.labels[held]
    nern = NeRN(target, hidden=115)
    whole = nern.size_report().target
    print(
        f"MNIST, {int(held.sum())} test images; convolutions are {4 * 92448 / whole:.0%} of the target's bytes\n{HEAD}"
    )
    row("target", accuracy(target, x, y), 0, whole, whole)
    roundings(target, None, x, y, whole)
    fitted("hidden 115, cross-filter", nern, seen, x, y, steps=steps, batch_size=64)


def size():
    from torchvision.models import resnet18

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

    weight = torch.randn(128, 128, 3, 3, generator=torch.Generator().manual_seed(0))
    for kind in ("cross-filter", "in-filter"):
        start = time.process_time()
        order_kernels(weight, kind)
        print(f"16,384 kernels, {kind}: {time.process_time() - start:.1f} s")
    target = resnet18(weights=None)
    names = [n for n, m in target.named_modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    start = time.process_time()
    nern = NeRN(target, names, base=0.76, levels=40, hidden=1256, permutation="in-filter")
    weights = sum(layer.weights for layer in nern.layers)
    parameters = sum(p.numel() for p in nern.predictor.parameters())
    print(f"ResNet-18, {weights:,} weights, predictor {parameters:,} ({parameters / weights:.1%}), untrained")
    print(f"in-filter orders of all layers: {time.process_time() - start:.0f} s, peak {peak():.2f} GB")
    for name in ("layer1.0.conv1", "layer4.1.conv2"):
        canvas = KernelCanvas(nern, name)
        whole = 4 * canvas.shape[0] * canvas.layer.weights / 1e9
        queries = {
            "one neuron": lambda canvas=canvas: canvas.unit(7),
            "16 neurons": lambda canvas=canvas: canvas.to_tensor(range(16)),
            "magnitudes of all": lambda canvas=canvas: canvas.magnitudes(),
        }
        for what, ask in queries.items():
            start = time.process_time()
            ask()
            spent = time.process_time() - start
            print(f"{name}, {what}: {spent:.0f} s, peak {peak():.2f} GB (whole canvas {whole:.1f} GB)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["digits", "mnist", "size"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=800)
    given = parser.parse_args()
    torch.set_num_threads(1)
    {"digits": lambda: digits(given.seeds), "mnist": lambda: mnist(given.steps), "size": size}[given.what]()
