"""Train a small style generator on digits or clothes, and check its classes with a classifier.

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

arguments = dict(enumerate(sys.argv[1:]))
data, steps, seed = arguments.get(0, "mnist"), int(arguments.get(1, 2000)), int(arguments.get(2, 0))


def load_images(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images in [0, 1] and their labels."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        digit_images = torch.from_numpy(digits.images).float()[:, None] / 16
        return F.interpolate(digit_images, size=(16, 16), mode="bilinear"), torch.from_numpy(digits.target)
    dataset = mnist_digits() if name == "mnist" else fashion_mnist(folder=arguments.get(3))
    return dataset.halve().images, dataset.labels


torch.set_num_threads(1)  # the layers are too small for several threads
images, labels = load_images(data)
train = torch.arange(len(images)) % 5 != 4  # every fifth image is held out
classifier = train_small_convnet(
    images[train], labels[train], epochs={"fashion": 2, "mnist": 8}.get(data, 16), seed=seed
)
with torch.no_grad():
    correct = classifier(images[~train]).argmax(1) == labels[~train]
print(f"the classifier predicts {correct.float().mean():.3f} of {len(correct)} held-out images correctly")

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

classes = torch.arange(1000) % generator.num_classes
for truncation in (0.7, 1.0):
    latents = generator.sample_latents(1000, classes, truncation, generator=torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        generated = images_in_unit_range(generator, latents)
        agreement = (classifier(generated).argmax(1) == classes).float().mean()
    print(f"at truncation {truncation} the classifier predicts the requested class for {agreement:.3f} of 1000 images")

real = torch.cat([images[labels == label][:2] for label in range(generator.num_classes)])
rows = torch.cat(
    [real[0::2], real[1::2], generated[: 8 * generator.num_classes]]
)  # two rows of real images, then eight of generated ones
sheet = rows.unflatten(0, (-1, generator.num_classes)).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
plt.imsave("samples.png", np.kron(sheet[..., 0], np.ones((3, 3))), cmap="gray", vmin=0, vmax=1)
print("wrote generator.safetensors, classifier.safetensors and samples.png (the first two rows are real)")
