"""Class Counterfactual, and the search for counterfactuals of one call."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....hooks import modules_behind
from ....metrics import Probability, probability_kind
from ..loop import Loop
from ..sweep import SweepTrust, agreement, detach, save_frames
from .methods import LatentWalk, LinkingInStyle, MinimalShift, Ray
from .search import LinearHead, Search, SearchResult, Task, probability


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """Result of :meth:`LinkedUnitVisualization.counterfactual`; tensors are detached.

    Attributes:
        images: the generated images, (N, C, H, W) in [0, 1]; for a sample that was not reached, the nearest one.
        linked: the linked inputs before any shift, (N, C, H, W).
        inputs: (N, C, H, W).
        shift: what was added to the representation, (N, units); for ``"latent"``, its change in the encoded images.
        latents: (N, latent_dim).
        steps: number of images encoded for each sample, (N,).
        reached: whether the classifier predicts the target for the image with the required confidence, (N,).
        already: whether the classifier predicts the target for the *input* with that confidence, (N,); ``success`` and
            ``trust`` leave these samples out.
        origin: class to leave, (N,): the input's prediction, or its second choice if the prediction is the target.
        target: class to reach, (N,).
        answers: predictions for input, linked image and image, (N, 3).
        scores: of the images, (N, K).
        confidence: the target's probability in the image, (N,).
        representations: of the encoded images, (N, units).
        flip: position on the sample's path where its class changes (in the method's own scale), (N,); nan if not
            searched or not reached.
        length: ‖shift‖, (N,).
        sparsity: effective number of shifted units, (Σ s²)² / Σ s⁴ in standard deviations, (N,).
        bound: no shorter shift changes the linear head's prediction to the target, (N,); None for other methods.
        head: whether the linear head predicts the target for the shifted representation, (N,); None without such a
            head.
        agreement: share of samples whose linked image has the class of the input.
        method: name and options of the method.
    """

    images: Tensor
    linked: Tensor
    inputs: Tensor
    shift: Tensor
    latents: Tensor
    steps: Tensor
    reached: Tensor
    already: Tensor
    origin: Tensor
    target: Tensor
    answers: Tensor
    scores: Tensor
    confidence: Tensor
    representations: Tensor
    flip: Tensor
    length: Tensor
    sparsity: Tensor
    bound: Tensor | None
    head: Tensor | None
    agreement: float
    method: dict[str, Any]

    @property
    def success(self) -> float:
        """Share of samples that were reached, among those not there already; nan if all were."""
        return float(self.reached[~self.already].double().mean())

    @property
    def counted(self) -> str:
        """How many samples were reached, and how many had the target already, in words."""
        open_ = ~self.already
        predicted, confidence = open_ & (self.answers[:, 2] == self.target), float(self.method["confidence"])
        total, reached = int(open_.sum()), int(self.reached[open_].sum())
        count = f"{reached} of {total} pictures "
        if confidence:
            count += f"reach {100 * confidence:g} % for the class asked for"
            count += f", which {int(predicted.sum())} are given" if int(predicted.sum()) > reached else ""
        else:
            count += "are given the class asked for"
        already = int(self.already.sum())
        return count + (f"; {already} more {'was' if already == 1 else 'were'} of it already" if already else "")

    @property
    def trust(self) -> SweepTrust:
        """Verdict: holds if at least 90 % of the samples were reached, fails below 50 %, else weak.

        It is at most weak if linking alone changes the class of half of the inputs or more. It fails if every input has
        the target already, because there was nothing to search.
        """
        if bool(self.already.all()):
            return SweepTrust("fails", f"nothing was asked: all {len(self.already)} pictures are of the class already")
        count = self.counted
        if self.success < 0.5:
            return SweepTrust("fails", f"only {count}")
        if self.agreement <= 0.5:
            changed = f"{1 - self.agreement:.0%} of the inputs are of another class once linked, before any step"
            return SweepTrust("weak", f"{changed}; {count}")
        return SweepTrust("weak" if self.success < 0.9 else "holds", count)

    def save(self, path: str | Path) -> Path:
        """Write images and numbers, atomically, into a folder that is new, empty, or an earlier result.

        There is one image per sample: input, linked image and counterfactual side by side if their sizes are equal.

        Raises:
            StoreError: the folder cannot be written, or has other content.
        """
        note = {
            "method": self.method,
            "success": None if bool(self.already.all()) else self.success,
            "agreement": self.agreement,
            "trust": asdict(self.trust),
        }
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        frames = [self.linked, self.images]
        if self.inputs.shape == self.images.shape:
            frames.insert(0, self.inputs.to(self.images))
        return save_frames(path, "counterfactual", note, tensors, torch.stack(frames, 1))


def sparsity(shift: Tensor, sd: Tensor) -> Tensor:
    r"""Return the effective number of units of a shift.

    .. math:: \Bigl(\sum_u z_u^2\Bigr)^2 \Big/ \sum_u z_u^4, \qquad z_u = s_u / \sigma_u

    The result, (n,), is 1 to the number of units, and 0 for a shift of 0; units with σ = 0 do not count.
    """
    scale = sd.to(shift)
    square = torch.where(scale > 0, shift / scale.where(scale > 0, 1), 0).square()
    fourth = square.square().sum(1)
    return torch.where(fourth > 0, square.sum(1).square() / fourth.where(fourth > 0, 1), 0)


Method = Literal["ray", "linking_in_style", "latent", "minimal"]
METHODS: dict[str, Callable[[], Search]] = {
    "ray": Ray,
    "linking_in_style": LinkingInStyle,
    "latent": LatentWalk,
    "minimal": MinimalShift,
}


def resolve_method(method: Any) -> Search:
    """Return the search of a name, with its defaults; a search is returned unchanged."""
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]()
    if not callable(method) or isinstance(method, type):
        raise ValueError(
            f"method is {method!r}; expected one of {', '.join(map(repr, METHODS))}, or one of these with options, "
            "such as Ray(top=10)."
        )
    search: Search = method
    return search


def find_counterfactuals(
    loop: Loop, target: Any, origin: Any, method: Any, confidence: float, kind: Probability = "auto"
) -> Counterfactual:
    """Run a search for the inputs of a loop; arguments as :meth:`LinkedUnitVisualization.counterfactual`."""
    search = resolve_method(method)
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a probability in [0, 1).")
    classes = loop.scores.shape[1]
    if classes < 2:
        raise ValueError(
            f"the model returns {classes} score per sample; a counterfactual needs one score per class. Select them "
            "with output_fn=, for example lambda y: torch.cat([torch.zeros_like(y), y], 1) for a single logit: the "
            "softmax of these two is the sigmoid of y."
        )
    kind = probability_kind(loop.scores, kind)
    if kind == "none":
        raise ValueError("probability is 'none'; a counterfactual needs class scores: 'softmax', or another kind.")
    targets = _one_per_sample(target, "target", loop)
    origins = _origins(origin, targets, loop)
    loop = loop if loop.classes is None else replace(loop, classes=origins)
    slope, gap = loop.score_gradient(origins, targets)
    task = Task(loop, origins, targets, slope, gap, linear_head(loop), confidence, kind)
    return _counterfactual(task, search(task), search)


def _one_per_sample(labels: Any, name: str, loop: Loop) -> Tensor:
    """Return one class per sample, (N,)."""
    classes = loop.scores.shape[1]
    problem = f"{name} is {labels!r}; expected a class, an integer, or one per sample."
    try:
        rows = torch.as_tensor(labels, device=loop.scores.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(problem) from error
    if rows.is_floating_point() or rows.dtype == torch.bool or rows.dim() > 1:
        raise ValueError(problem)
    if rows.dim() == 1 and len(rows) not in (1, len(loop.r)):
        raise ValueError(f"{name} has {len(rows)} classes for {len(loop.r)} samples; expected one, or one per sample.")
    outside = (rows < 0) | (rows >= classes)
    if bool(outside.any()):
        first = int(rows[outside].flatten()[0]) if rows.dim() else int(rows)
        raise ValueError(f"{name} {first} is not a class of this model; expected 0 to {classes - 1}.")
    return rows.long().expand(len(loop.r)).clone()


def _origins(origin: Any, target: Tensor, loop: Loop) -> Tensor:
    """Return the classes to leave: as given, else the predictions, or the second choice if that is the target."""
    if origin is not None:
        origins = _one_per_sample(origin, "origin", loop)
        if bool((origins == target).any()):
            row = int((origins == target).nonzero()[0, 0])
            raise ValueError(f"sample {row}: origin and target are both {int(target[row])}; expected two classes.")
        return origins
    first, second = loop.scores.topk(2, 1).indices.T
    return torch.where(first == target, second, first)


def linear_head(loop: Loop) -> LinearHead | None:
    """Return the model's Linear module that computes the scores from the linked representation, or None."""
    for root in modules_behind(loop.encoder.forward_func):
        for module in root.modules():
            if isinstance(module, nn.Linear) and module.in_features == loop.r.shape[1]:
                bias = module.bias if module.bias is not None else torch.zeros_like(module.weight[:, 0])
                head = LinearHead(module.weight.detach(), bias.detach())
                if head.explains(loop.r.to(loop.scores.dtype), loop.scores):
                    return head
    return None


def _counterfactual(task: Task, result: SearchResult, search: Search) -> Counterfactual:
    loop, trip, shift = task.loop, result.trip, result.shift
    head = None
    if task.head is not None:
        head = task.head((loop.r + shift.to(loop.r)).to(task.head.weight.dtype)).argmax(1) == task.target
    return Counterfactual(
        images=detach(trip.images),
        linked=detach(loop.linked.images),
        inputs=detach(loop.inputs),
        shift=detach(shift),
        latents=detach(trip.latents),
        steps=detach(result.steps),
        reached=detach(result.reached),
        already=detach(task.reaches(loop.scores)),
        origin=task.origin,
        target=task.target,
        answers=torch.stack([s.argmax(1) for s in (loop.scores, loop.linked.scores, trip.scores)], 1),
        scores=detach(trip.scores),
        confidence=detach(probability(trip.scores, task.target, task.probability)),
        representations=detach(trip.representations),
        flip=torch.full_like(task.gap, torch.nan) if result.flip is None else detach(result.flip),
        length=detach(shift.norm(dim=1)),
        sparsity=detach(sparsity(shift, loop.link.r_sd)),
        bound=None if result.bound is None else detach(result.bound),
        head=head,
        agreement=agreement(loop.linked.scores, loop.scores),
        method={
            "name": type(search).__name__,
            "confidence": task.confidence,
            "probability": task.probability,
            **{k: v for k, v in vars(search).items() if isinstance(v, int | float | str | tuple | None)},
        },
    )
