"""Fit a NeRN to the convolutions of a classifier, and attribute the kernels to its neurons.

python examples/fit_nern.py [STEPS]      (about a minute on two cores)

The images are generated: no data, no labels. Agreement is measured with the classifier itself, on other images.
"""

import sys

import torch

from xinc_captum import NeRN, WeightContribution
from xinc_captum.attributions.nern import compress, layer_profile, quantize, with_noise
from xinc_captum.generators import images_in_unit_range
from xinc_captum.visualizers import kernel_sheet, layer_profile_sheet
from xinc_captum.zoo import mnist_convnet, mnist_generator

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
style, target = mnist_generator().generator, mnist_convnet().model
stream = torch.Generator().manual_seed(0)
latents = style.sample_latents(1500, generator=stream, classes=torch.arange(1500) % 10)
images = images_in_unit_range(style, latents).detach()
train, held_out = images[:1000], images[1000:]


def agreement(model):
    with torch.no_grad():
        return float((model(held_out).argmax(1) == target(held_out).argmax(1)).float().mean())


nern = NeRN(target, hidden=52)
nern.fit(train, steps=steps)
report = nern.size_report(held_out)
print(report)
rows = [("NeRN", nern.rebuild(), report.total, report.relative_error)]
pruned = compress(nern, keep=0.8, bits=8)
rows.append(("NeRN, a fifth dropped, int8", pruned.nern.rebuild(), pruned.bytes, pruned.relative_error))
for bits, all_weights in ((8, False), (4, False), (8, True)):
    rounded = quantize(target, bits=bits, all_weights=all_weights)
    rows.append(
        (
            f"int{bits}, {'all' if all_weights else 'represented'} weights",
            rounded.model,
            rounded.bytes,
            rounded.relative_error,
        )
    )
noise = with_noise(target, report.relative_error)
rows.append(("noise of the NeRN's error", noise, report.target, report.relative_error))
for name, model, size, error in rows:
    print(f"{name:28} agrees in {agreement(model):.1%}, {size:7,} bytes, weight error {error:.3f}")
nern.save("nern.safetensors")

parts = WeightContribution(nern, "conv2").attribute()  # (neurons + 1, 32, 16, 3, 3): they add up to the weight
largest = parts[:-1].flatten(1).abs().sum(1).argsort(descending=True)[:4].tolist()
selected = [*largest, len(parts) - 1]
names = [*(f"neuron {i}" for i in largest), "bias"]
target_weight = target.get_parameter("conv2.weight")
kernels = kernel_sheet(parts[selected], names, target_weight, generated=parts.sum(0), layer="conv2")
kernels.savefig("kernels.png", dpi=110)
profile = layer_profile(nern)
layer_profile_sheet(profile.share[:-1], profile.layers).savefig("profile.png", dpi=110)

digit = held_out[:1]
predicted = int(target(digit).argmax())
method = WeightContribution(nern, mode="integrated")
contributions, gap = method.attribute(digit, target=predicted, return_convergence_delta=True)
total, gap = float(contributions.sum()), abs(gap.item())
print(f"the logit of {predicted}: neurons and bias account for {total:.2f}, with an error of {gap:.3f}")
print("wrote nern.safetensors, kernels.png and profile.png")
