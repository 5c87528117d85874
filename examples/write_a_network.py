"""Let a small network write the convolutions of another, and see what each of its neurons wrote.

python examples/write_a_network.py [STEPS]      (about a minute on two cores)

The pictures are a generator's: no data, no labels. Accuracy is agreement with the network itself on other pictures.
"""

import sys

import torch

from xinc_captum import NeRN, WeightContribution
from xinc_captum.attributions.nern import compressed, layer_profile, quantised, with_noise
from xinc_captum.generators import images_in_unit_range
from xinc_captum.visualizers import kernel_sheet, layer_profile_sheet
from xinc_captum.zoo import mnist_convnet, mnist_generator

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 600
style, target = mnist_generator().generator, mnist_convnet().model
stream = torch.Generator().manual_seed(0)
latents = style.sample_latents(1500, generator=stream, classes=torch.arange(1500) % 10)
drawn = images_in_unit_range(style, latents).detach()
pictures, held_out = drawn[:1000], drawn[1000:]


def agreement(model):
    with torch.no_grad():
        return float((model(held_out).argmax(1) == target(held_out).argmax(1)).float().mean())


nern = NeRN(target, hidden=52)
nern.fit(pictures, steps=steps)
report = nern.size_report(held_out)
print(report)
rows = [("NeRN", nern.rebuild(), report.total, report.relative_error)]
small = compressed(nern, keep=0.8, bits=8)
rows.append(("NeRN, a fifth dropped, int8", small.nern.rebuild(), small.bytes, small.relative_error))
for bits, everything in ((8, False), (4, False), (8, True)):
    rounded = quantised(target, bits=bits, all_weights=everything)
    rows.append(
        (
            f"int{bits}, {'all' if everything else 'represented'} weights",
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
chosen = [*largest, len(parts) - 1]
names = [*(f"neuron {i}" for i in largest), "bias"]
own = target.get_parameter("conv2.weight")
kernel_sheet(parts[chosen], names, own, generated=parts.sum(0), layer="conv2").savefig("kernels.png", dpi=110)
profile = layer_profile(nern)
layer_profile_sheet(profile.share[:-1], profile.layers).savefig("profile.png", dpi=110)

one = held_out[:1]
answer = int(target(one).argmax())
method = WeightContribution(nern, mode="integrated")
found, gap = method.attribute(one, target=answer, return_convergence_delta=True)
print(f"the logit of {answer}: neurons and bias account for {found.sum():.2f}, {abs(gap.item()):.3f} of it not exact")
print("wrote nern.safetensors, kernels.png and profile.png")
