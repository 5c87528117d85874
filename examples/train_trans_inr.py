"""Train the TransINR that ships with the package: it generates the network of a digit.

python examples/train_trans_inr.py [STEPS] [SEED] [PICTURES]      (a quarter of an hour on an idle core)

Every tenth digit is held out. Without arguments this is the recipe of zoo.mnist_trans_inr().
"""

import sys
import time

import torch

from xinc_captum.attributions.trans_inr import TransINR, mean_psnr
from xinc_captum.visualizers import network_sheet
from xinc_captum.zoo import mnist_digits

arguments = dict(enumerate(sys.argv[1:]))
steps, seed, count = int(arguments.get(0, 3000)), int(arguments.get(1, 0)), int(arguments.get(2, 5000))

torch.set_num_threads(1)  # the layers are too small for several threads
digits = mnist_digits().images
images = digits[:: len(digits) // count]
held_out = torch.arange(len(images)) % 10 == 0
train, test = images[~held_out], images[held_out]

model = TransINR(
    1,
    (28, 28),
    patch=4,
    dim=64,
    depth=3,
    ff=128,  # 118,865 parameters, 490 kB
    hidden=48,  # of each image's network
    count=8,
    highest=14.0,  # half a cycle per pixel
    groups=16,
    seed=seed,
)
start = time.process_time()
fit = model.fit(train, validation=test[::3], steps=steps, lr=3e-3, every=200, seed=seed)
for step, decibel in fit.validation:
    print(f"{step:5} steps: {decibel:.2f} dB on a third of the held-out images")
with torch.no_grad():
    outputs = model(test)
print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {time.process_time() - start:.0f} CPU s")
print(
    f"held out: {mean_psnr(outputs, test):.2f} dB; the mean image: {mean_psnr(train.mean(0).expand_as(test), test):.2f}"
)
model.save("trans_inr.safetensors")

few = torch.linspace(0, len(test) - 1, 8).long()
decibels = [mean_psnr(outputs[i : i + 1], test[i : i + 1]) for i in few.tolist()]
network_sheet(test[few], {"output of its network": (outputs[few], decibels)}).savefig("samples.png", dpi=110)
print("wrote trans_inr.safetensors and samples.png")
