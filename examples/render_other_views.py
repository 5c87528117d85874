"""Generate the radiance field of an unseen scene from one view or two, and render the other views.

python examples/render_other_views.py [STEPS] [SCENES]      (under two minutes on two cores)

A scene is one ball of random position, size and colour on a white background, with eight cameras around it.
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
train, test = ball_scenes(count, orbit(8), SIZE), ball_scenes(50, orbit(8), SIZE, seed=1)
model = RayTransINR(SIZE, near=NEAR, far=FAR, samples=SAMPLES, seed=0)
model.fit(train.views, train.poses, train.focal, support=(1, 2), steps=steps)

unseen = test.views[:, 3:]
psnr = {"the mean image": mean_psnr(train.views.mean((0, 1)).expand_as(unseen), unseen)}
rendered = {}
for inputs in ([0], [0, 2]):
    with torch.no_grad():
        rendered[len(inputs)] = model(test.views[:, inputs], test.poses[:, inputs], test.poses, test.focal)
    psnr[f"rendered from views {inputs}"] = mean_psnr(rendered[len(inputs)][:, 3:], unseen)
print("views 3 to 7 of 50 other scenes:", ", ".join(f"{name} {dB:.1f} dB" for name, dB in psnr.items()))

# the field of one scene, a network from (x, y, z) to colour and density, and the contributions of its neurons
field = model.generate(test.views[:1, [0, 2]], test.poses[:1, [0, 2]], test.focal)[0]
origins, directions = (rays.flatten(0, 2) for rays in camera_rays(test.poses[0], test.focal, SIZE))
depths = ray_depths(SAMPLES, NEAR, FAR, origins)
points = origins[:, None] + depths[:, None] * directions[:, None]
stacked_size = (8 * SIZE[0], SIZE[1])  # eight views, stacked


def render(raw, _points):
    return ray_colours(raw, depths)


method = NeuronCanvas(field, "activation3", rule=Secant(products="halves"), render=render)
maps = method.canvas(points, stacked_size).to_tensor().detach()  # (units + 1, 3, 8 H, W)
per_view = maps.sum(1).unflatten(1, (8, -1))
ball = (test.ball_indices[0] >= 0).float()
strongest = int((per_view[:-1] * ball).sum((1, 2, 3)).argmin())  # white is 1 and the ball is darker
with torch.no_grad():
    raw = field(points)
    error = (maps.sum(0) - render(raw, points).T.reshape(3, *stacked_size)).abs().max()
    print(f"{len(maps) - 1} units and a bias term miss these views by {error:.1e}; unit {strongest} contributes most")
    weights = ray_weights(raw[..., 3:].relu(), (FAR - NEAR) / (SAMPLES - 1))[..., 0]
    depth_map = ((weights * depths).sum(1) / weights.sum(1)).masked_fill(weights.sum(1) < 0.5, float("nan"))

limit = float(per_view[strongest].abs().max())
grey, signed = {"cmap": "viridis", "vmin": NEAR, "vmax": FAR}, {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
rows = [
    ("true", test.views[0], {}),
    ("from view 0", rendered[1][0].clamp(0, 1), {}),
    ("from views 0, 2", rendered[2][0].clamp(0, 1), {}),
    ("depth, rendered", depth_map.reshape(8, *SIZE), grey),
    ("depth, true", test.depths[0].masked_fill(test.ball_indices[0] < 0, float("nan")), grey),
    (f"unit {strongest} contribution", per_view[strongest], signed),
]
figure = Figure(figsize=(12, 9.5), layout="constrained")
for axes, (name, pictures, colours) in zip(figure.subplots(6, 8), rows, strict=True):
    for k, (axis, picture) in enumerate(zip(axes, pictures, strict=True)):
        image = axis.imshow(picture.movedim(0, -1) if picture.dim() == 3 else picture, **colours)
        axis.set(xticks=[], yticks=[])
        if picture.dim() == 3:
            axis.set_title(f"view {k}" if name == "true" else f"{mean_psnr(picture[None], test.views[:1, k]):.1f} dB")
    axes[0].set_ylabel(name)
    if colours:
        figure.colorbar(image, ax=axes)
figure.savefig("views.png", dpi=100)
print("wrote views.png")
