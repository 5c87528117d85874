"""Fit a small network to a photo and draw the contributions of its neurons.

python examples/canvas_of_a_photo.py [PHOTO] [STEPS]      (about half a minute on two cores)
"""

import sys
from importlib import resources

from xinc_captum import NeuronCanvas
from xinc_captum.images import read_photo
from xinc_captum.inr import Siren, coordinates, fit
from xinc_captum.visualizers import build_up

steps = int(sys.argv[2]) if len(sys.argv) > 2 else 800
if len(sys.argv) > 1:
    photo = read_photo(sys.argv[1], longer_side=192)
else:
    with resources.as_file(resources.files("skimage.data").joinpath("chelsea.png")) as cat:
        photo = read_photo(cat, longer_side=192)

size = tuple(photo.shape[1:])
model = Siren(hidden=128, layers=4, first_omega=40.0, seed=0)
result = fit(model, photo, steps=steps, lr=2e-3, batch_size=8192)
print(f"the network reproduces the photo at {result.psnr:.1f} dB")

canvas = NeuronCanvas(model, "activation2", rule="secant").canvas(coordinates(size), size)
maps = canvas.to_tensor()  # (units + 1, 3, H, W): under the secant rule they add up to the image
figure = build_up(maps[: canvas.units], maps[canvas.units], photo, layer="activation2")
figure.savefig("canvas.png", dpi=110)
print("wrote canvas.png")
