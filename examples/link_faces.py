"""What units of an ImageNet network mean to a generator of faces, and how far to believe it, whatever that says.

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

words = dict(enumerate(sys.argv[1:]))
count, several = int(words.get(0, 2000)), int(words.get(1, 24))
torch.set_num_threads(1)
net, faces = efficientnet_lite0(), dcgan_faces()


def preprocess(pictures: torch.Tensor) -> torch.Tensor:
    """Faces of 64 pixels as the network wants them: 224 pixels, normalised."""
    return net.preprocess(F.interpolate(pictures, (net.size, net.size), mode="bilinear"))


# The input of the last layer: 1,280 units. The generator knows no classes; the network's own answers stand for them.
pairs = make_pairs(net.model, "classifier", faces, count, truncation=1.0, preprocess=preprocess, show_progress=True)
fit, held_out = pairs.split(0.2)
link = LatentLink().fit(fit.representations, fit.latents, fit.classes, manifest=pairs.manifest)
print(f"{count} pairs, {int(link.alive.sum())} living units, {fit.latents.shape[1]} latents")

small = torch.tensor(skimage.data.lfw_subset()[: min(100, count)], dtype=torch.float32)[:, None]  # real faces, grey
real = F.interpolate(small, (64, 64), mode="bilinear").expand(-1, 3, -1, -1)
encoder = Encoder(net.model, "classifier", preprocess=preprocess)
audit = link.audit(held_out, fit, encoder=encoder, generator=faces, real=real)
print(f"the link {predicate(audit.trust)}")
explained = [Measured("R²", *audit.r2, audit.class_mean_r2, "means of the answers")]
if audit.r2_within is not None:
    explained.append(Measured("R² within answers", *audit.r2_within, audit.shuffled_within, "shuffled within answers"))
kept = {"generated faces": audit.generated, "real faces": audit.real}
with torch.no_grad():
    before = (faces.synthesize(held_out.latents[:8]) + 1) / 2
    after = (faces.synthesize(link(held_out.representations[:8])) + 1) / 2
    through = (faces.synthesize(link(encoder(real[:8]))) + 1) / 2
link_audit(
    {
        "How much of the latent does the link explain?": explained,
        "Does a picture keep the network's answer?": [Measured(name, *value) for name, value in kept.items()],
        "Do units come back?": [Measured("R² of the representation", *[audit.cycle_r2] * 3)],
    },
    verdict=audit.trust,
    pictures={"generated": (before, after), "real": (real[:8], through)},
    title="From EfficientNet-Lite0 to a generator of faces",
).savefig("faces_audit.png")

method = LinkedUnitVisualization(net.model, "classifier", faces, link, preprocess=preprocess)
units = link.r_sd.argsort(descending=True)[:several].tolist()  # those that vary most
sweeps = list(method.sweeps(before[:3], units, show_progress=True))
most = sum(sweep.fidelity.moves_most for sweep in sweeps)
print(f"{most} of {several} units move most themselves; median Spearman", end=" ")
print(f"{torch.tensor([sweep.fidelity.rho for sweep in sweeps]).median():.2f}")
best = min(sweeps, key=lambda sweep: (sweep.fidelity.rank, -sweep.fidelity.rho))
unit_filmstrips(
    best.images, best.values, best.response, rows=["face 1", "face 2", "face 3"], bases=best.base,
    trust=(best.trust.verdict, best.trust.because), title=f"Unit {best.unit}, the best of {several}",
).savefig("faces_unit.png")  # fmt: skip
