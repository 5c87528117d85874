"""A small radiance field and a small signed distance: who paints which pixel of a picture that a renderer makes.

python examples/render_a_field.py [STEPS]      (about twenty seconds on one core)
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
    """Signed distance to the nearest ball, and that ball's colour."""
    away = torch.stack([(points - torch.tensor(c)).norm(dim=-1) - r for c, r, _ in BALLS], -1)
    return away.amin(-1, keepdim=True), torch.tensor([rgb for _, _, rgb in BALLS])[away.argmin(-1)]


def fog(field, _points):
    """Radiance: the first channel is density, the others colour."""
    return (ray_weights(softplus(20 * field[..., :1] - 10), gap) * field[..., 1:]).sum(1)


def surface(field, _points):
    """Distance: how much of a ray the surface stops."""
    return ray_weights(40 * torch.sigmoid(-30 * field), gap).sum(1)


def learn(target):
    model = Siren(3, target.shape[-1], hidden=24, layers=3, first_omega=6.0, omega=6.0, seed=0)
    optimizer, generator = torch.optim.Adam(model.parameters(), 3e-3), torch.Generator().manual_seed(0)
    for _ in range(steps):
        rows = torch.randint(len(seen), (4096,), generator=generator)
        loss = (model(seen[rows]) - target[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


points = ray_samples(SIZE, SAMPLES)
seen = points.flatten(0, 1)
distance, colour = scene(seen)
nerf, sdf = learn(torch.cat([(distance < 0).float(), colour], -1)), learn(distance.clamp(-0.3, 0.3))

where = torch.stack([(scene(points)[0] < 0).any(1)[:, 0] & (points[:, 0, 1].sign() == s) for s in (-1, 1)])
masks = where.reshape(2, *SIZE).float()
figure = Figure(figsize=(15, 5), layout="constrained")
axes = figure.subplots(2, 5)
for row, (name, model, render) in zip(axes, [("radiance", nerf, fog), ("distance", sdf, surface)], strict=True):
    method = NeuronCanvas(model, "activation2", rule=Secant(products="halves"), render=render)
    canvas = method.canvas(points, SIZE)
    maps = canvas.to_tensor()  # (units + 1, channels, H, W): they add up to the picture, slot and all
    with torch.no_grad():
        picture = render(model(seen).unflatten(0, points.shape[:2]), points).T.reshape(-1, *SIZE)
    print(f"{name}: {canvas.units} units and a slot miss the picture by {(maps.sum(0) - picture).abs().max():.1e}")
    row[0].imshow(picture.clamp(0, 1).movedim(0, -1).expand(-1, -1, 3), vmin=0, vmax=1)
    row[0].set_title(f"{name}: rendered")
    share = canvas.share(masks)  # (balls, units)
    chosen = [*((share[b] - share[1 - b]).argmax() for b in (0, 1)), *share.sum(0).topk(2).indices]
    words = ("most for the left", "most for the right", "strong", "strong")
    for axis, unit, why in zip(row[1:], map(int, chosen), words, strict=True):
        drawn = maps[unit].sum(0)
        axis.imshow(drawn, cmap="RdBu_r", vmin=-drawn.abs().max(), vmax=drawn.abs().max())
        axis.set_title(f"unit {unit}, {why}: {100 * share[0, unit]:.0f} | {100 * share[1, unit]:.0f} %", fontsize=9)
for axis in axes.flat:
    axis.axis("off")
figure.savefig("rendered.png", dpi=100)
print("wrote rendered.png")
