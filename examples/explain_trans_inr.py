"""Generate a network for each of five digits, and attribute its pixels to tokens, patches and neurons.

python examples/explain_trans_inr.py [INTEGRATION_STEPS]      (under a minute on two cores)

The model ships with the package and was not fitted to these digits. For your own images: TransINR(...).fit(images).
"""

import sys

import torch

from xinc_captum import TokenContribution
from xinc_captum.attributions.trans_inr import fine_tune, independent_inits, mean_psnr, neuron_canvases, patch_masks
from xinc_captum.inr import load, pixel_centres, save
from xinc_captum.metrics import correspondence
from xinc_captum.visualizers import neurons_across, patch_sheet, token_sheet
from xinc_captum.zoo import mnist_digits, mnist_trans_inr

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 32
model = mnist_trans_inr()
names = [
    f"{layer} · {t}" for layer, rows in zip(model.writer.names, model.writer.rows, strict=True) for t in range(rows)
]
held_out = mnist_digits().images[::10]
digits = held_out[[20, 120, 220, 320, 420]]

inrs = model.generate(digits)  # five independent modules
with torch.no_grad():
    print(f"generated in one pass: {mean_psnr(model(digits), digits):.1f} dB", end="; ")
print(f"the mean image: {mean_psnr(model.mean_image.expand_as(digits), digits):.1f} dB")
print(f"and 10 steps of training each: {fine_tune(inrs, digits, 10, 3e-3).psnr:.1f} dB", end="; ")
print(f"10 steps from random weights: {fine_tune(independent_inits(model, 5), digits, 10).psnr:.1f} dB")

save(inrs[0], "digit.safetensors", size=(28, 28))  # the network of one image, in a file
loaded, size = load("digit.safetensors")
with torch.no_grad():
    image = loaded(pixel_centres(size)).T.reshape(1, *size)
    print(f"from the file: {mean_psnr(image[None], model(digits[:1])):.0f} dB to the output before saving")


def gap(parts):
    """Return the share of the change that contributions do not explain."""
    with torch.no_grad():
        outputs = model(digits[: len(parts)])
    return float((parts.sum(1) - outputs).abs().sum() / (outputs - parts[:, -1]).abs().sum())


parts = TokenContribution(model, "token").attribute(digits)  # (5, 16 + 1, 1, 28, 28)
print(f"tokens of the last hidden layer add up to the image; they miss {gap(parts):.1e}")
parts = TokenContribution(model, "modulation").attribute(digits, n_steps=steps)  # (5, 33 + 1, 1, 28, 28)
token_sheet(parts, digits, names=model.writer.token_names, rest="all mean").savefig("tokens.png", dpi=110)
print(f"token contributions relative to their mean miss {gap(parts):.2%} of the change at {steps} steps")
parts = TokenContribution(model, "patch").attribute(digits[:2], n_steps=steps)  # (2, 49 + 1, 1, 28, 28)
patch_sheet(parts, digits[:2], patch_masks(model, (28, 28)), rest="the mean").savefig("patches.png", dpi=110)
print(f"patch contributions relative to the mean image miss {gap(parts):.2%} of the change")

canvases = neuron_canvases(inrs, (28, 28))  # (5, 48, 1, 28, 28)
neurons_across(canvases, digits, canvases.std(0).sum((1, 2, 3)).topk(5).indices.tolist()).savefig(
    "neurons.png", dpi=110
)
control = neuron_canvases(fine_tune(independent_inits(model, 5), digits, 100).inrs, (28, 28))
print(f"a neuron corresponds in another digit's network: {correspondence(canvases).retrieval:.2f}", end="; ")
print(f"in networks fitted one by one: {correspondence(control).retrieval:.2f} (chance: {1 / 48:.2f})")
print("wrote digit.safetensors, tokens.png, patches.png and neurons.png")
