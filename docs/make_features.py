"""Make docs/pictures/features.jpg: photos with similar DINOv2 features, and where they are similar."""

from pathlib import Path

import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from xinc_captum import FeatureActivationMap, capture, layer_to_grid
from xinc_captum.images import centre_crop
from xinc_captum.visualizers.layout import Sheet, array, bare, draw_photo, heat_limit
from xinc_captum.visualizers.style import QUIET
from xinc_captum.zoo import dinov2_vits14, foolbox_photos, photo

LAYER, COUNT = "blocks.8", 4
WHOLE = (("chelsea", "the whole photo"), ("foolbox:00", "the whole photo"), ("foolbox:14", "the whole photo"))
OUTLINED = (("quokka", "quokka", "inside its outline"), ("voc", "person", "inside the persons' outlines"))
DARK, EDGE = 0.3, "#ffd166"


def main() -> None:
    """Draw one row per reference, with the most similar photos."""
    torch.set_num_threads(2)
    net = dinov2_vits14()
    known = {one.name: one for one in (*foolbox_photos(), *map(photo, ("chelsea", "quokka", "astronaut", "voc")))}
    squares = {name: centre_crop(one.image, net.size, crop=1.0) for name, one in known.items()}
    gallery = [name for name in known if name != "voc"]
    images = torch.stack([squares[name] for name in gallery])
    place = net.model.get_submodule(LAYER)

    def maps_of(photos):
        with torch.no_grad(), capture(net, place) as seen:
            net(photos)
        return layer_to_grid(seen[place].detach())

    mean = maps_of(images).mean((0, 2, 3))[:, None, None]
    rows = [(name, text, (maps_of(squares[name][None]) - mean).mean((2, 3)), None) for name, text in WHOLE]
    for name, thing, text in OUTLINED:
        masks = known[name].masks[[label == thing for label in known[name].mask_labels]].any(0)
        outline = centre_crop(masks[None].float(), net.size, crop=1.0)
        inside = adaptive_avg_pool2d(outline[None], net.size // 14)
        vector = ((maps_of(squares[name][None]) - mean) * inside).sum((2, 3)) / inside.sum()
        rows.append((name, text, vector, outline[0]))

    sheet = Sheet()
    top = sheet.heading(
        "Similar photos, and the regions that are similar",
        f"DINOv2 ViT-S/14, {LAYER}; the mean feature of all {len(gallery)} photos is subtracted. Left: the "
        f"reference. Then the {COUNT} most similar photos, bright where they are similar, with the cosine below.",
    )
    cells, bottom = sheet.grid(["reference", "most similar", "second", "third", "fourth"], len(rows), top, (5, 4.5))
    for axes, (name, text, vector, outline) in zip(cells, rows, strict=True):
        method = FeatureActivationMap(net, LAYER, vector, layer_to_grid=lambda a: layer_to_grid(a) - mean)
        cosines = method.weights(images).sum(1)
        print(name, {gallery[i]: round(float(cosines[i]), 2) for i in cosines.argsort(descending=True)[:8]}, flush=True)
        nearest = [int(i) for i in cosines.argsort(descending=True) if gallery[i] != name][:COUNT]
        draw_photo(axes[0], squares[name])
        if outline is not None:
            axes[0].contour(array(outline), levels=[0.5], colors="white", linewidths=1.2)
        bare(axes[0], note=text, size=9)
        found = interpolate(method.attribute(images[nearest]), net.size, mode="bilinear", align_corners=False)
        for cell, i, values in zip(axes[1:], nearest, found[:, 0], strict=True):
            strength = (values / heat_limit(values)).clamp(0, 1)
            grey = DARK * images[i].mean(0)
            draw_photo(cell, grey + strength * (images[i] - grey))
            cell.contour(array(strength), levels=[0.5], colors=EDGE, linewidths=1)
            bare(cell, note=f"{cosines[i]:.2f}", size=9)
        for cell in axes:
            cell.set_anchor("N")
    scale = "Each map has its own scale, which ends at its 99th percentile; the outline is at half of that."
    sheet.line(4.5, bottom, scale, size=8, colour=QUIET, align="center")
    place = Path(__file__).parent / "pictures" / "features.jpg"
    sheet.finish(bottom + 0.2).savefig(place, dpi=100, pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
