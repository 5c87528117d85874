"""``xinc nern``: represent the convolutions of a network by a small network, and show its neurons' contributions."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from typer import Argument, Option

from ..attributions.nern import KernelCanvas, NeRN, NernFit, compress, error_map, layer_profile, quantize
from ..generators import images_in_unit_range
from ..image_model import ImageModel
from ..metrics import predict_classes
from ..visualizers import kernel_sheet, layer_profile_sheet
from ..visualizers.report import Section, Table, write_report
from ..zoo import mnist_nern
from .command import Device, Out, Seed, UsageError, find_device, record_settings, result_folder, save_picture
from .models import GENERATORS, MODEL_HELP, Weights, load_generator, load_network

MAX_SHEETS, MAX_NEURONS = 4, 4  # layers with a figure, and neurons per figure
FIT_IMAGES, TEST_IMAGES = 1000, 500  # images to fit on, and held-out images
HIDDEN, STEPS = 40, 1000  # defaults
SHIPPED = "mnist_nern"


@record_settings("nern", "fitted", "weights")
def nern_command(
    model: Annotated[str, Argument(help=MODEL_HELP, show_default=False)],
    out: Out,
    pictures: Annotated[
        str, Option(help=f"Images to fit on: noise, or those of a generator: {', '.join(GENERATORS)}, module:function.")
    ] = "noise",
    layers: Annotated[
        list[str], Option("--layer", help="Convolution to represent; repeat for several. Default: all.")
    ] = [],
    hidden: Annotated[
        int | None, Option(help=f"Units per hidden layer of the small network. Default: {HIDDEN}.", min=1)
    ] = None,
    steps: Annotated[int | None, Option(help=f"Training steps. Default: {STEPS}.", min=1)] = None,
    fitted: Annotated[
        str | None, Option("--nern", help="A fitted NeRN: a file of NeRN.save, or mnist_nern for mnist_convnet.")
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    weights: Weights = None,
) -> None:
    """Represent a classifier's convolutions by a small network, and show the contribution of each of its neurons."""
    torch_device = find_device(device)
    classifier, shape = load_nern_classifier(model, torch_device, weights)
    if fitted is not None and (layers or hidden is not None or steps is not None):
        raise UsageError(
            f"--layer, --hidden and --steps are for a new fit, and {fitted} is fitted already; leave them out."
        )
    nern = (
        NeRN(classifier, layers or None, hidden=hidden or HIDDEN, seed=seed)
        if fitted is None
        else load_nern(fitted, model, classifier)
    )
    fit_images, test_images = fit_and_test_images(pictures, classifier, shape, seed, torch_device)
    typer.echo(f"{model}: {len(nern.layers)} convolutions, {sum(one.weights for one in nern.layers):,} weights")
    fit = None
    if fitted is None:
        fit = nern.fit(fit_images, steps=steps or STEPS, seed=seed, noise_shape=shape, noise_range=(0.0, 1.0))
    lines = compare_models(nern, classifier, test_images)
    for line in lines:
        typer.echo(f"{line[0]}: agreement {line[1]}, {line[2]} bytes, weight error {line[4]}")
    note = {
        "model": model,
        "pictures": pictures,
        "nern": nern.config,
        "layers": [one.name for one in nern.layers],
        **({"fitted": fitted} if fit is None else {"steps": fit.steps, "kept": fit.kept._asdict()}),
        "seed": seed,
    }
    with result_folder(out, note) as folder:
        nern.save(folder / "nern.safetensors")
        _write(folder, model, pictures, nern, fit, lines)


def load_nern_classifier(
    name: str, device: torch.device, weights: str | None = None
) -> tuple[ImageModel, tuple[int, int, int]]:
    """Load a classifier by its name; return it with the (C, H, W) of its inputs in [0, 1]."""
    classifier = load_network(name, torch.full((3, 64, 64), 0.5), device, weights=weights).classifier
    if not classifier.size or classifier.channels is None:
        raise UsageError(
            f"the input size of {name} is unknown; let the function return an xinc_captum.ImageModel with size= and "
            "preprocess=Normalise(mean, std)."
        )
    return classifier, (classifier.channels, classifier.size, classifier.size)


def load_nern(name: str, model: str, classifier: ImageModel) -> NeRN:
    """Load the shipped NeRN or that of a file, for the network with the name ``model``."""
    if name == SHIPPED and not Path(name).exists():
        if model != "mnist_convnet":
            raise UsageError(
                f"{SHIPPED} represents the convolutions of mnist_convnet, not of {model}; leave --nern out."
            )
        return mnist_nern(classifier.model)
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file; expected a file of NeRN.save, or {SHIPPED}.")
    try:
        return NeRN.load(name, classifier.model)
    except ValueError as error:
        raise UsageError(f"--nern: {error}") from error


def fit_and_test_images(
    name: str, classifier: ImageModel, shape: tuple[int, int, int], seed: int, device: torch.device
) -> tuple[Tensor | str, Tensor]:
    """Return images to fit on and held-out images, of a generator or noise."""
    stream = torch.Generator().manual_seed(seed + 2)
    if name == "noise":
        return "noise", torch.rand(TEST_IMAGES, *shape, generator=stream).to(device)
    generator, size = load_generator(name, device)
    if size != shape:
        raise UsageError(
            f"the images of {name} are {size}, but {classifier.name} takes {shape}; give another --pictures."
        )
    count = FIT_IMAGES + TEST_IMAGES
    known = int(getattr(generator, "num_classes", 0))
    latents = generator.sample_latents(count, torch.arange(count) % known if known else None, generator=stream)
    with torch.no_grad():
        both = torch.cat([images_in_unit_range(generator, part) for part in latents.split(64)])
    return both[:FIT_IMAGES], both[FIT_IMAGES:]


def compare_models(nern: NeRN, classifier: ImageModel, test_images: Tensor) -> list[tuple[str, ...]]:
    """Return rows of name, agreement, bytes, share of the network's bytes, and weight error, for NeRN and rounding."""
    report, small = nern.size_report(), compress(nern)
    names = [one.name for one in nern.layers]
    rows: list[tuple[str, nn.Module, int, float]] = [
        ("the network itself", classifier.model, report.target, 0.0),
        ("NeRN", nern.rebuild(), report.total, report.relative_error),
        ("NeRN, rounded to int8", small.nern.rebuild(), small.bytes, small.relative_error),
    ]
    for bits in (8, 4):
        for all_weights, which in ((False, "represented weights"), (True, "all weights")):
            rounded = quantize(classifier, names, bits, all_weights=all_weights)
            rows.append((f"{which} rounded to int{bits}", rounded.model, rounded.bytes, rounded.relative_error))

    def logits(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(classifier.preprocess(part)) for part in test_images.split(64)])

    reference = logits(classifier.model)
    lines: list[tuple[str, ...]] = []
    for name, model, size, error in rows:
        same = predict_classes(logits(model), reference) == predict_classes(reference)
        agreement, share = float(same.float().mean()), size / report.target
        lines.append((name, f"{agreement:.1%}", f"{size:,}", f"{share:.1%}", f"{error:.3f}"))
    return lines


def _write(
    folder: Path, model: str, pictures: str, nern: NeRN, fit: NernFit | None, lines: list[tuple[str, ...]]
) -> None:
    profile = layer_profile(nern)
    sheet = layer_profile_sheet(profile.share[:-1], profile.layers)
    caption = "Rows are neurons of the last hidden layer of the small network."
    sheets = [save_picture(folder, "profile.png", sheet, caption)]
    for number, layer in enumerate(nern.layers[:MAX_SHEETS]):
        canvas = KernelCanvas(nern, layer)
        largest = canvas.magnitudes()[:-1].argsort(descending=True)[:MAX_NEURONS].tolist()
        parts = canvas.to_tensor([*largest, canvas.units])
        errors = error_map(nern, layer.name)
        weights = nern.target_weights()[layer.name]
        names = [*(f"neuron {i}" for i in largest), "bias"]
        sheet = kernel_sheet(parts, names, weights, generated=weights - errors.error, layer=layer.name)
        caption = (
            f"The {len(largest)} neurons that contribute most to {layer.name}, and the bias; all neurons and the bias "
            "sum to the generated kernels. Rank correlation of relative error and kernel size: "
            f"{errors.correlation:.2f}."
        )
        sheets.append(save_picture(folder, f"kernels_{number}.png", sheet, caption))
    origin = "generated for this page" if fit is None else "held out from the fit"
    table = Table(
        ("", "agreement with the network", "bytes", "share of its bytes", "weight error"),
        tuple(lines),
        f"Agreement: share of equal predictions on {TEST_IMAGES} images ({pictures}), {origin}; labels are not used. "
        "Bytes: of a whole file, with the permutation and all weights that are not generated. Weight error: relative "
        "error of the generated or rounded weights. Rounding is the baseline for fewer bytes. Represented weights are "
        "those that the NeRN generates; all weights are those of every layer.",
    )
    write_report(
        folder,
        title=f"The convolutions of {model}, represented by a small network",
        lead="A small network maps the position of a kernel to its weights. The contribution of each neuron to each "
        "kernel is exact; it is a contribution to the weights, not to the classifier's output.",
        facts={
            "network": model,
            "represented": f"{sum(one.weights for one in nern.layers):,} weights in {len(nern.layers)} layers",
            "small network": f"{sum(p.numel() for p in nern.predictor.parameters()):,} weights",
            "images": pictures,
            "steps": "fitted earlier" if fit is None else str(fit.steps),
        },
        sections=[Section("Sizes", (), table), Section("Contributions to the kernels", tuple(sheets))],
        foot="Made by xinc-captum. manifest.json holds settings, versions, seed and checksums; NeRN.load reads "
        "nern.safetensors.",
    )
