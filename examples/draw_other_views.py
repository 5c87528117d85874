"""Write the radiance field of a scene that was never seen before, from one view or two, and draw the others.

python examples/draw_other_views.py [STEPS] [SCENES]      (under two minutes on two cores)

A scene is one ball of random place, size and colour before white, seen by eight cameras that stand around it.
"""

import sys

import torch
from matplotlib.figure import Figure

from xinc_captum import NeuronCanvas, Secant
from xinc_captum.attributions.trans_inr import RayTransINR, camera_rays, mean_psnr, ray_colours, ray_depths
from xinc_captum.inr import ray_weights
from xinc_captum.zoo.ball_scenes import ball_scenes, orbit

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
count = int(sys.argv[2]) if len(sys.argv) > 2 else 2000
SIZE, SAMPLES, NEAR, FAR = (16, 16), 16, 2.5, 5.5
train, held = ball_scenes(count, orbit(8), SIZE), ball_scenes(50, orbit(8), SIZE, seed=1)
model = RayTransINR(SIZE, near=NEAR, far=FAR, samples=SAMPLES, seed=0)
model.fit(train.views, train.poses, train.focal, support=(1, 2), steps=steps)

others = held.views[:, 3:]
found = {"the mean picture": mean_psnr(train.views.mean((0, 1)).expand_as(others), others)}
drawn = {}
for read in ([0], [0, 2]):
    with torch.no_grad():
        drawn[len(read)] = model(held.views[:, read], held.poses[:, read], held.poses, held.focal)
    found[f"drawn from views {read}"] = mean_psnr(drawn[len(read)][:, 3:], others)
print("views 3 to 7 of 50 other scenes:", ", ".join(f"{name} {dB:.1f} dB" for name, dB in found.items()))

# one scene's field, an ordinary network from (x, y, z) to colour and density, and who of it painted what
field = model.generate(held.views[:1, [0, 2]], held.poses[:1, [0, 2]], held.focal)[0]
origins, directions = (rays.flatten(0, 2) for rays in camera_rays(held.poses[0], held.focal, SIZE))
depths = ray_depths(SAMPLES, NEAR, FAR, origins)
points = origins[:, None] + depths[:, None] * directions[:, None]
tall = (8 * SIZE[0], SIZE[1])  # eight views below one another


def render(raw, _points):
    return ray_colours(raw, depths)


method = NeuronCanvas(field, "activation3", rule=Secant(products="halves"), render=render)
maps = method.canvas(points, tall).to_tensor().detach()  # (units + 1, 3, 8 H, W)
by_view = maps.sum(1).unflatten(1, (8, -1))
ball = (held.ball_indices[0] >= 0).float()
strongest = int((by_view[:-1] * ball).sum((1, 2, 3)).argmin())  # white is 1 and the ball is darker
with torch.no_grad():
    raw = field(points)
    missed = (maps.sum(0) - render(raw, points).T.reshape(3, *tall)).abs().max()
    print(f"{len(maps) - 1} units and a slot miss these views by {missed:.1e}; unit {strongest} painted most of it")
    arrives = ray_weights(raw[..., 3:].relu(), (FAR - NEAR) / (SAMPLES - 1))[..., 0]
    deep = ((arrives * depths).sum(1) / arrives.sum(1)).masked_fill(arrives.sum(1) < 0.5, float("nan"))

limit = float(by_view[strongest].abs().max())
grey, signed = {"cmap": "viridis", "vmin": NEAR, "vmax": FAR}, {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
rows = [
    ("true", held.views[0], {}),
    ("from view 0", drawn[1][0].clamp(0, 1), {}),
    ("from views 0, 2", drawn[2][0].clamp(0, 1), {}),
    ("depth, drawn", deep.reshape(8, *SIZE), grey),
    ("depth, true", held.depths[0].masked_fill(held.ball_indices[0] < 0, float("nan")), grey),
    (f"unit {strongest} added", by_view[strongest], signed),
]
figure = Figure(figsize=(12, 9.5), layout="constrained")
for axes, (name, pictures, colours) in zip(figure.subplots(6, 8), rows, strict=True):
    for k, (axis, picture) in enumerate(zip(axes, pictures, strict=True)):
        image = axis.imshow(picture.movedim(0, -1) if picture.dim() == 3 else picture, **colours)
        axis.set(xticks=[], yticks=[])
        if picture.dim() == 3:
            axis.set_title(f"view {k}" if name == "true" else f"{mean_psnr(picture[None], held.views[:1, k]):.1f} dB")
    axes[0].set_ylabel(name)
    if colours:
        figure.colorbar(image, ax=axes)
figure.savefig("views.png", dpi=100)
print("wrote views.png")
