"""Make docs/pictures/gallery.jpg: accentuations of six photos on which no default was tuned, not selected."""

from pathlib import Path

import torch

from xinc_captum import FeatureAccentuation
from xinc_captum.comparison import as_maps, grad_cam
from xinc_captum.images import centre_crop
from xinc_captum.visualizers import accentuation_rows
from xinc_captum.zoo import efficientnet_lite0, efficientnet_lite1, photo, photo_names

CASES = (
    ("rocket", "totem pole"),
    ("quokka", "koala"),
    ("foolbox:17", "macaw"),
    ("foolbox:02", "tiger"),
    ("foolbox:09", "jellyfish"),
    ("foolbox:14", "bookcase"),
)


def main() -> None:
    """Accentuate six photos and draw one row with a verdict for each."""
    torch.set_num_threads(2)
    net, other = efficientnet_lite0(), efficientnet_lite1()
    pool = torch.stack([centre_crop(photo(name).image, 224) for name in photo_names()])
    images = torch.stack([centre_crop(photo(name).image, 224) for name, _ in CASES])
    targets = [net.find(text) for _, text in CASES]
    result = FeatureAccentuation(net).accentuate(
        images, targets, natural=pool, transfer=other, internal_batch_size=1, seed=0
    )
    explain = grad_cam(net.model, "conv_head", net.preprocess)
    cams = as_maps(explain(images, torch.tensor(targets)), images, (224, 224))
    figure = accentuation_rows(
        images,
        cams,
        result.images,
        result.opacity(),
        titles=[text for _, text in CASES],
        trusts=[(row.verdict, row.because) for row in result.trust.rows],
        heading="Six photos and classes, as they came out",
    )
    path = Path(__file__).parent / "pictures" / "gallery.jpg"
    figure.savefig(path, dpi=80, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
