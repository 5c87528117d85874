"""Compare attribution methods on two ImageNet networks: twenty labelled photos, and some with outlines.

    python benchmarks/method_comparison.py [FOLDER]        (about an hour on one idle core; extras demo and peers)

FOLDER gets each complete comparison, and a figure of its first photos. So few photos rank no methods: read the intervals
and the model-independent baselines.
"""

import sys
from pathlib import Path

import torch

from xinc_captum import FeatureAccentuation, FeatureActivationMap, compare
from xinc_captum.comparison import last_map
from xinc_captum.comparison.measures import DEFAULT
from xinc_captum.images import centre_crop
from xinc_captum.zoo import efficientnet_lite0, foolbox_photos, photo, squeezenet1_1

KINDS = {  # what ImageNet has for the things that have outlines
    "quokka": ("wombat", "wallaby", "koala"),
    "bottle": ("water bottle", "pop bottle", "wine bottle", "beer bottle"),
    "diningtable": ("dining table",),
    "chair": ("folding chair", "rocking chair"),
}
SMALLEST, AROUND = 800, 1.6  # pixels of an outline, and how much wider its window is
SHOWN = 4


def methods(net):
    """Return Grad-CAM in three implementations, Integrated Gradients, an accentuation's mask, and a photo's own features."""
    accentuation, layer = FeatureAccentuation(net), last_map(net, torch.rand(1, 3, net.size, net.size))

    def own_features(x, _):
        return FeatureActivationMap(net, layer, references=x).attribute(x, target=list(range(len(x))))

    return {
        "Grad-CAM (Captum)": "Grad-CAM",
        "Grad-CAM (grad-cam)": "grad-cam",
        "Grad-CAM (torchcam)": "torchcam",
        "Integrated Gradients": "Integrated Gradients",
        "accentuation": lambda x, y: accentuation.attribute(x, y, internal_batch_size=2),
        "own features (no class)": own_features,
    }


def outlined(net):
    """Return the quokka, and windows of the VOC photo around objects of ImageNet classes: photos, masks, targets."""
    quokka, room = photo("quokka"), photo("voc")
    cuts = [(quokka.image, quokka.masks[0], "quokka")]
    for mask, name in zip(room.masks, room.mask_labels, strict=True):
        if name in KINDS and mask.sum() >= SMALLEST:
            rows, columns = mask.nonzero(as_tuple=True)
            widest = max(int(rows.max() - rows.min()), int(columns.max() - columns.min()))
            side = min(int(AROUND * widest), *room.image.shape[1:])
            top, left = (
                int(((place.min() + place.max()) // 2 - side // 2).clamp(0, extent - side))
                for place, extent in zip((rows, columns), room.image.shape[1:], strict=True)
            )
            window = (slice(top, top + side), slice(left, left + side))
            cuts.append((room.image[:, *window], mask[window], name))
    pictures = torch.stack([centre_crop(picture, net.size, crop=1.0) for picture, _, _ in cuts])
    masks = torch.stack([centre_crop(mask[None].float(), net.size, crop=1.0)[0] for _, mask, _ in cuts]).clamp(0, 1)
    with torch.no_grad():
        logits = net(pictures)
    targets = []
    for row, (_, _, name) in zip(logits, cuts, strict=True):
        known = [net.labels.index(label) for label in net.labels if label.partition(",")[0] in KINDS[name]]
        targets.append(max(known, key=row.__getitem__))
    return pictures, masks, torch.tensor(targets), [name for _, _, name in cuts]


def main(folder):
    for net in (efficientnet_lite0(), squeezenet1_1()):
        labelled = foolbox_photos()
        images = torch.stack([centre_crop(one.image, net.size) for one in labelled])
        targets = torch.tensor([one.label for one in labelled])
        with_outlines, masks, found_in, names = outlined(net)
        print(net.name, [f"{name}: {net.labels[int(t)]}" for name, t in zip(names, found_in, strict=True)], flush=True)
        for title, x, y, outlines in (
            ("labelled", images, targets, None),
            ("outlined", with_outlines, found_in, masks),
        ):
            found = compare(methods(net), net, x, y, segmentation=outlines, rounds=1, metrics=(*DEFAULT, "infidelity"))
            place = f"compared_{net.name}_{title}"
            found.save(folder / place)
            print(f"\n{place}\n\n{found}", flush=True)
            figure = found.figure(images=range(SHOWN), labels=net.labels)
            figure.savefig(folder / f"{place}.png")


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "out/comparison")
    where.mkdir(parents=True, exist_ok=True)
    main(where)
