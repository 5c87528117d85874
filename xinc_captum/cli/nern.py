"""``xinc nern``: let a small network write the convolutions of another, and show what its neurons wrote."""

import json
import time
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor, nn

from .. import store
from ..attributions.nern import (
    KernelCanvas,
    NeRN,
    NernFit,
    compressed,
    error_map,
    layer_profile,
    quantised,
)
from ..generators import images_in_unit_range
from ..metrics import predict_classes
from ..visualizers import kernel_sheet, layer_profile_sheet
from ..visualizers.report import Picture, Section, Table, write_report
from ..zoo import Classifier, Normalise, mnist_nern
from .errors import UsageError, device_called
from .models import DIGITS, generator_called, network_called
from .recorded import recorded

DPI = 110
SHEETS, NEURONS = 4, 4  # layers that get a picture, and neurons in each
FITTED, HELD = 1000, 500  # pictures to fit on, and to look at alone
HIDDEN, STEPS = 40, 1000  # where nothing is said
SHIPPED = "mnist_nern"


@recorded("nern", "fitted")
def nern_command(
    model: str,
    out: Path,
    pictures: str,
    layers: list[str],
    hidden: int | None,
    steps: int | None,
    seed: int,
    device: str,
    fitted: str | None = None,
) -> None:
    """Everything ``xinc nern`` does; the folder appears whole or not at all."""
    started = time.perf_counter()
    store.check_folder(out)
    place_ = device_called(device)
    classifier, shape = classifier_called(model, place_)
    if fitted is not None and (layers or hidden is not None or steps is not None):
        raise UsageError(f"--layer, --hidden and --steps are of a fit, and {fitted} is fitted already; leave them out.")
    nern = (
        NeRN(classifier, layers or None, hidden=hidden or HIDDEN, seed=seed)
        if fitted is None
        else loaded(fitted, model, classifier)
    )
    seen, held = drawn(pictures, classifier, shape, seed, place_)
    typer.echo(f"{model}: {len(nern.layers)} convolutions, {sum(one.weights for one in nern.layers):,} weights")
    fit = None
    if fitted is None:
        fit = nern.fit(seen, steps=steps or STEPS, seed=seed, noise_shape=shape, noise_range=(0.0, 1.0))
    lines = compared(nern, classifier, held)
    for line in lines:
        typer.echo(f"{line[0]}: agrees in {line[1]}, {line[2]} bytes, weight error {line[4]}")
    note: dict[str, Any] = {
        "model": model,
        "pictures": pictures,
        "nern": nern.config,
        "layers": [one.name for one in nern.layers],
    }
    note |= {"fitted": fitted} if fit is None else {"steps": fit.steps, "kept": fit.kept._asdict()}
    note["seed"] = seed
    with store.bundle(out, note) as place:
        nern.save(place / "nern.safetensors")
        _write(place, model, pictures, nern, fit, lines)
        times = {"all_seconds": round(time.perf_counter() - started, 1)}
        (place / store.TIMES).write_text(json.dumps(times) + "\n", encoding="utf-8")
    typer.echo(f"done in {time.perf_counter() - started:.0f} s; open {out / 'index.html'}")


def classifier_called(name: str, device: torch.device) -> tuple[Classifier, tuple[int, int, int]]:
    """A classifier of the zoo or ``module:function``, and the (C, H, W) of its pictures in [0, 1].

    Raises:
        UsageError: there is no such network, or it does not say how large its pictures are.
    """
    if name in DIGITS:
        found = DIGITS[name]()
        found.model.to(device)
    else:
        found = network_called(name, torch.full((3, 64, 64), 0.5), device).classifier
    if not found.size or not isinstance(found.preprocess, Normalise):
        raise UsageError(
            f"{name} does not say how large its pictures are; let the function return a xinc_captum.zoo.Classifier "
            "with size= and preprocess=Normalise(mean, std)."
        )
    return found, (len(found.preprocess.mean), found.size, found.size)


def loaded(name: str, model: str, classifier: Classifier) -> NeRN:
    """The NeRN that ships with the package, or that of a file.

    Raises:
        FileNotFoundError: no such file.
        UsageError: a file of something else, or of another network.
    """
    if name == SHIPPED and not Path(name).exists():
        if model != "mnist_convnet":
            raise UsageError(f"{SHIPPED} writes the convolutions of mnist_convnet, not of {model}; leave --nern out.")
        return mnist_nern(classifier.model)
    if not Path(name).is_file():
        raise FileNotFoundError(f"{name} is not a file; expected one that NeRN.save wrote, or {SHIPPED}.")
    try:
        return NeRN.load(name, classifier.model)
    except ValueError as error:
        raise UsageError(f"--nern: {error}") from error


def drawn(
    name: str, classifier: Classifier, shape: tuple[int, int, int], seed: int, device: torch.device
) -> tuple[Tensor | str, Tensor]:
    """What to fit on, and other pictures to look at alone: a generator's, or noise.

    Raises:
        UsageError: no such generator, or pictures that the network does not take.
    """
    stream = torch.Generator().manual_seed(seed + 2)
    if name == "noise":
        return "noise", torch.rand(HELD, *shape, generator=stream).to(device)
    generator, size = generator_called(name, device)
    if size != shape:
        raise UsageError(
            f"{name} draws pictures of {size}, but {classifier.name} takes {shape}; give another --pictures."
        )
    count = FITTED + HELD
    classes = torch.arange(count) % int(getattr(generator, "num_classes", 0) or 1)
    asked: dict[str, Any] = {"classes": classes} if getattr(generator, "num_classes", 0) else {}
    latents = generator.sample_latents(count, generator=stream, **asked)
    with torch.no_grad():
        both = torch.cat([images_in_unit_range(generator, part) for part in latents.split(64)])
    return both[:FITTED], both[FITTED:]


def compared(nern: NeRN, classifier: Classifier, held: Tensor) -> list[tuple[str, ...]]:
    """Name, agreement with the network, bytes, share of its bytes, weight error: of the NeRN and of rounded weights."""
    report = nern.size_report()
    names = [one.name for one in nern.layers]
    rows: list[tuple[str, nn.Module, int, float]] = [
        ("the network itself", classifier.model, report.target, 0.0),
        ("NeRN", nern.rebuild(), report.total, report.relative_error),
    ]
    small = compressed(nern)
    rows.append(("NeRN, rounded to int8", small.nern.rebuild(), small.bytes, small.relative_error))
    for bits in (8, 4):
        for all_weights, which in ((False, "represented weights"), (True, "all weights")):
            found = quantised(classifier, names, bits, all_weights=all_weights)
            rows.append((f"{which} rounded to int{bits}", found.model, found.bytes, found.relative_error))

    def answers(model: nn.Module) -> Tensor:
        with torch.no_grad():
            return torch.cat([model(classifier.preprocess(part)) for part in held.split(64)])

    own = answers(classifier.model)
    lines: list[tuple[str, ...]] = []
    for name, model, size, error in rows:
        same = predict_classes(answers(model), own) == predict_classes(own)
        agreement = float(same.float().mean())
        lines.append((name, f"{agreement:.1%}", f"{size:,}", f"{size / report.target:.1%}", f"{error:.3f}"))
    return lines


def _write(
    place: Path, model: str, pictures: str, nern: NeRN, fit: NernFit | None, lines: list[tuple[str, ...]]
) -> None:
    profile = layer_profile(nern)
    layer_profile_sheet(profile.share[:-1], profile.layers).savefig(
        place / "profile.png", dpi=DPI, metadata={"Software": None}
    )
    shown = [Picture("profile.png", "Rows are neurons of the small network's last hidden layer.")]
    for number, layer in enumerate(nern.layers[:SHEETS]):
        canvas = KernelCanvas(nern, layer)
        largest = canvas.magnitudes()[:-1].argsort(descending=True)[:NEURONS].tolist()
        parts = canvas.to_tensor([*largest, canvas.units])
        found = error_map(nern, layer.name)
        own = nern.target_weights()[layer.name]
        names = [*(f"neuron {i}" for i in largest), "bias"]
        sheet = kernel_sheet(parts, names, own, generated=own - found.error, layer=layer.name)
        sheet.savefig(place / f"kernels_{number}.png", dpi=DPI, metadata={"Software": None})
        said = (
            f"The {len(largest)} neurons that wrote most into {layer.name}, and the bias; all neurons and the bias add "
            f"up to the generated kernels. Rank correlation of relative error and kernel size: {found.correlation:.2f}."
        )
        shown.append(Picture(f"kernels_{number}.png", said))
    seen = "were drawn for this page" if fit is None else "were not fitted on"
    table = Table(
        ("", "agrees with the network", "bytes", "of its bytes", "weight error"),
        tuple(lines),
        f"Agreement: on {HELD} pictures ({pictures}) that {seen}; labels were never looked at. Bytes: of a "
        "whole file, with the permutation and everything that is not generated. Weight error: of the generated or "
        "rounded weights, relative. Compare the rows: rounding is the plain way to fewer bytes. Represented "
        "weights are those that the NeRN generates; all weights are those of every layer.",
    )
    write_report(
        place,
        title=f"The convolutions of {model}, written by a small network",
        lead="A network reads where a kernel lies and writes its weights. Every neuron's part of every kernel is known "
        "exactly; that says what a neuron wrote, not what the answer owes to it.",
        facts={
            "network": model,
            "represented": f"{sum(one.weights for one in nern.layers):,} weights in {len(nern.layers)} layers",
            "small network": f"{sum(p.numel() for p in nern.predictor.parameters()):,} weights",
            "pictures": pictures,
            "steps": "fitted before" if fit is None else str(fit.steps),
        },
        sections=[Section("Sizes", (), table), Section("Who wrote what", tuple(shown))],
        foot="Made by xinc-captum. manifest.json holds settings, versions, seed and checksums; NeRN.load reads "
        "nern.safetensors.",
    )
