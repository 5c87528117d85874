"""Explain the rendered images of a small radiance field and a small signed distance field.

python examples/explain_rendered_fields.py [STEPS]      (about twenty seconds on one core)
"""

import sys

import torch
from matplotlib.figure import Figure
from torch.nn.functional import softplus

from xinc_captum import NeuronCanvas, Secant
from xinc_captum.inr import Siren, ray_samples, ray_weights

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 400
SIZE, SAMPLES = (40, 60), 32
BALLS = (((-0.1, -0.7, 0.3), 0.55, (0.9, 0.3, 0.1)), ((0.2, 0.6, -0.3), 0.45, (0.1, 0.4, 0.9)))  # centre, radius, RGB
gap = 2 / SAMPLES


def scene(points):
    """Return the signed distance to the nearest ball, and the colour of that ball."""
    distances = torch.stack([(points - torch.tensor(c)).norm(dim=-1) - r for c, r, _ in BALLS], -1)
    return distances.amin(-1, keepdim=True), torch.tensor([rgb for _, _, rgb in BALLS])[distances.argmin(-1)]


def fog(field, _points):
    """Render radiance: the first channel is density, the others are colour."""
    return (ray_weights(softplus(20 * field[..., :1] - 10), gap) * field[..., 1:]).sum(1)


def surface(field, _points):
    """Render distance: the share of each ray that the surface stops."""
    return ray_weights(40 * torch.sigmoid(-30 * field), gap).sum(1)


def fit(target):
    model = Siren(3, target.shape[-1], hidden=24, layers=3, first_omega=6.0, omega=6.0, seed=0)
    optimizer, generator = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(samples), (4096,), generator=generator)
        loss = (model(samples[rows]) - target[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


points = ray_samples(SIZE, SAMPLES)
samples = points.flatten(0, 1)
distance, colour = scene(samples)
nerf, sdf = fit(torch.cat([(distance < 0).float(), colour], -1)), fit(distance.clamp(-0.3, 0.3))

inside = torch.stack([(scene(points)[0] < 0).any(1)[:, 0] & (points[:, 0, 1].sign() == s) for s in (-1, 1)])
masks = inside.reshape(2, *SIZE).float()
figure = Figure(figsize=(15, 5), layout="constrained")
axes = figure.subplots(2, 5)
for row, (name, model, render) in zip(axes, [("radiance", nerf, fog), ("distance", sdf, surface)], strict=True):
    method = NeuronCanvas(model, "activation2", rule=Secant(products="halves"), render=render)
    canvas = method.canvas(points, SIZE)
    maps = canvas.to_tensor()  # (units + 1, channels, H, W): with the bias term they add up to the image
    with torch.no_grad():
        rendered = render(model(samples).unflatten(0, points.shape[:2]), points).T.reshape(-1, *SIZE)
    print(f"{name}: {canvas.units} units and a bias term miss the image by {(maps.sum(0) - rendered).abs().max():.1e}")
    row[0].imshow(rendered.clamp(0, 1).movedim(0, -1).expand(-1, -1, 3), vmin=0, vmax=1)
    row[0].set_title(f"{name}: rendered")
    share = canvas.share(masks)  # (balls, units)
    units = [*((share[b] - share[1 - b]).argmax() for b in (0, 1)), *share.sum(0).topk(2).indices]
    reasons = ("most for the left", "most for the right", "strong", "strong")
    for axis, unit, reason in zip(row[1:], map(int, units), reasons, strict=True):
        contribution = maps[unit].sum(0)
        axis.imshow(contribution, cmap="RdBu_r", vmin=-contribution.abs().max(), vmax=contribution.abs().max())
        axis.set_title(f"unit {unit}, {reason}: {100 * share[0, unit]:.0f} | {100 * share[1, unit]:.0f} %", fontsize=9)
for axis in axes.flat:
    axis.axis("off")
figure.savefig("rendered.png", dpi=100)
print("wrote rendered.png")
