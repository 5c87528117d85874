"""One call for four libraries: raise unit 3 of the layer ``fc`` from an image.

Each adapter returns the image before the first update and the image at the end, (3, h, w) in [0, 1]. None means the
library's own default. Imports are local, since each library has its own environment.
"""

import contextlib
import io
from importlib.metadata import version

import torch

UNIT = 3


def faccent(model, image, *, steps, lr=0.05, canvas=None, view=224, crops=None, layer=None, **_):
    from faccent import objectives
    from faccent.render import render_vis

    with contextlib.redirect_stdout(io.StringIO()):
        images, *_ = render_vis(
            model,
            objectives.channel("fc", UNIT),
            init_img=image[None],
            img_size=canvas,
            model_input_size=(view, view),
            model_input_range=(0, 1),
            out_thresholds=range(steps + 1),  # pictures are taken before updates
            inline_thresholds=[],
            progress=False,
            optimizer=lambda params: torch.optim.Adam(params, lr=lr),
            nb_transforms=crops or 16,
            accent_reg_layer=layer,
            accent_reg_alpha=None if layer is None else 1.0,
        )
    return images[0][0], images[-1][0]


def dreamlens(model, image, *, steps, lr=0.05, canvas=None, view=224, crops=None, layer=None, **_):
    from dreamlens import FeatureAccentuationConfig, FeatureTarget, FeatureVisualizer

    height, width = canvas or (512, 512)
    config = FeatureAccentuationConfig(
        width=width,
        height=height,
        input_shape=(3, view, view),
        steps=steps,
        lr=lr,
        crops=crops or 16,
        regularization_strength=0.0 if layer is None else 1.0,
        center_crop=False,  # by default a square is cut out of an oblong image and stretched
        checkpoint_steps=(0,),
    )
    visualizer = FeatureVisualizer(model, quiet=True, normalize=False)
    result = visualizer.accentuate(FeatureTarget.for_neuron("fc", UNIT), image, layer, config)
    return result.checkpoints[0][0], result.as_chw()


def horama(model, image, *, steps, lr=1.0, canvas=None, view=224, crops=None, penalty=1.0, **_):
    from horama import accentuation

    def ascend(total_steps):
        with contextlib.redirect_stderr(io.StringIO()):
            return accentuation(
                lambda views: model(views)[:, UNIT].mean(),
                image,
                total_steps=total_steps,
                learning_rate=lr,
                image_size=1280 if canvas is None else max(canvas),
                model_input_size=view,
                values_range=(0, 1),
                crops_per_iteration=crops or 6,
                penalty=penalty,
                device="cpu",
            )[0].detach()

    return ascend(0), ascend(steps)


def xinc_captum(model, image, *, steps, view=224, crops=None, layer=None, regularizer=True, on_step=None, **_):
    from xinc_captum import FeatureAccentuation
    from xinc_captum.attributions.accentuation import Crops, FeatureDistance

    seen = []

    def watch(_step, images, _scores):
        if not seen:
            seen.append(images[0].detach().clone())
        if on_step is not None:
            on_step()

    result = FeatureAccentuation(model, size=view).accentuate(
        image[None],
        target=UNIT,
        n_steps=steps,
        transforms=(Crops(crops or 4),),
        regularizer=FeatureDistance(layer) if regularizer else None,
        on_step=watch,
    )
    return seen[0], result.images[0]


LIBRARIES = {
    "xinc-captum": xinc_captum,
    "faccent": faccent,
    "dreamlens": dreamlens,
    "horama": horama,
}


def label(library):
    return f"{library} {version(library)}"
