"""Train a small style generator on digits or clothes, and see whether a classifier knows what it draws.

python examples/train_style_generator.py [mnist|fashion|digits] [STEPS] [SEED] [FASHION_FOLDER]

All at 16 x 16. mnist is the recipe of the generator that comes with the package: about four minutes on one core.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F

from xinc_captum.generators import Recipe, images_in_unit_range, save_style_generator, train_style_generator
from xinc_captum.store import tensors_sha256, write_tensors
from xinc_captum.zoo import fashion_mnist, mnist_digits, train_small_convnet

words = dict(enumerate(sys.argv[1:]))
data, steps, seed = words.get(0, "mnist"), int(words.get(1, 2000)), int(words.get(2, 0))


def pictures(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures in [0, 1] and their labels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        small = torch.from_numpy(digits.images).float()[:, None] / 16
        return F.interpolate(small, size=(16, 16), mode="bilinear"), torch.from_numpy(digits.target)
    kept = mnist_digits() if name == "mnist" else fashion_mnist(folder=words.get(3))
    return kept.halve().images, kept.labels


torch.set_num_threads(1)  # the layers are too small to be worth sharing
images, labels = pictures(data)
train = torch.arange(len(images)) % 5 != 4  # every fifth picture is held out
classifier = train_small_convnet(
    images[train], labels[train], epochs={"fashion": 2, "mnist": 8}.get(data, 16), seed=seed
)
with torch.no_grad():
    right = classifier(images[~train]).argmax(1) == labels[~train]
print(f"the classifier knows {right.float().mean():.3f} of {len(right)} held-out pictures")

recipe = Recipe(steps=steps, seed=seed)
generator = train_style_generator(images[train], labels[train], recipe, show_progress=True)
note = {
    "script": "examples/train_style_generator.py",
    "data": data,
    "pictures": int(train.sum()),
    "pictures_sha256": tensors_sha256({"images": images, "labels": labels}),
    "torch": torch.__version__,
    **vars(recipe),
}
save_style_generator(generator, "generator.safetensors", recipe=note)
write_tensors("classifier.safetensors", classifier.state_dict(), kind="weights")

asked = torch.arange(1000) % generator.num_classes
for truncation in (0.7, 1.0):
    latents = generator.sample_latents(1000, asked, truncation, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        drawn = images_in_unit_range(generator, latents)
        agreement = (classifier(drawn).argmax(1) == asked).float().mean()
    print(f"at truncation {truncation} the classifier sees the class asked for in {agreement:.3f} of 1000 pictures")

real = torch.cat([images[labels == label][:2] for label in range(generator.num_classes)])
rows = torch.cat([real[0::2], real[1::2], drawn[: 8 * generator.num_classes]])  # two real rows, then eight drawn
sheet = rows.unflatten(0, (-1, generator.num_classes)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
plt.imsave("samples.png", np.kron(sheet[..., 0], np.ones((3, 3))), cmap="gray", vmin=0, vmax=1)
print("wrote generator.safetensors, classifier.safetensors and samples.png (two real rows above)")
