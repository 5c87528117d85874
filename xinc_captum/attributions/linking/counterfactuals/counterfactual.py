"""Class Counterfactual; from target to result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....hooks import modules_behind
from ....metrics import Probability, probability_kind
from ....store import bundle, write_tensors
from ..loop import Scene, of_classes
from ..sweep import SweepTrust, strip
from .methods import LatentWalk, LinkingInStyle, MinimalShift, Ray
from .search import Found, LinearHead, Search, Task, probability, says


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What :meth:`LinkedUnitVisualization.counterfactual` found; tensors are plain and detached.

    Attributes:
        images: as the generator drew them, (N, C, H, W) in [0, 1]; where a row was not reached, the nearest it came.
        linked: the inputs as link and generator draw them, on which nothing was moved, (N, C, H, W).
        inputs: (N, C, H, W).
        shift: what was added to the representation, (N, units); for ``"latent"``, what came of it in the pictures.
        latents: (N, latent_dim).
        steps: pictures looked at for each row, (N,).
        reached: whether the classifier gives the picture the target, with the confidence asked for, (N,).
        already: whether the classifier gives the *input* the target, with the confidence asked for, (N,); such rows
            have nothing to reach, and neither ``success`` nor ``trust`` counts them.
        origin: class left, (N,): the input's own, or its second choice where that is the target.
        target: class asked for, (N,).
        answers: classes given to input, linked picture and picture, (N, 3).
        scores: of the pictures, (N, K).
        confidence: the target's probability in the picture, (N,).
        representations: of the pictures, looked at again, (N, units).
        flip: where on its own path the row changes class (in the method's own scale), (N,); nan where it was not looked
            for or not found.
        length: ‖shift‖, (N,).
        sparsity: how many units carry the shift, (Σ s²)² / Σ s⁴ in standard deviations, (N,).
        bound: no shorter shift makes the linear head say the target, (N,); None for other methods.
        head: whether the linear head says the target of the shifted representation, (N,); None without such a head.
        agreement: share of rows whose linked picture has the class of the input.
        method: how they were searched for.
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
        """Share of rows that were reached, of those not there already; nan where all were."""
        return float(self.reached[~self.already].double().mean())

    @property
    def counted(self) -> str:
        """How many rows were reached, and how many need not have been asked about, in words."""
        asked = ~self.already
        there, sure = asked & (self.answers[:, 2] == self.target), float(self.method["confidence"])
        count = f"{int(self.reached[asked].sum())} of {int(asked.sum())} pictures "
        if sure:
            count += f"reach {100 * sure:g} % for the class asked for"
            count += (
                f", which {int(there.sum())} are given" if int(there.sum()) > int(self.reached[asked].sum()) else ""
            )
        else:
            count += "are given the class asked for"
        own = int(self.already.sum())
        return count + (f"; {own} more {'was' if own == 1 else 'were'} of it already" if own else "")

    @property
    def trust(self) -> SweepTrust:
        """Holds where nine rows in ten were reached, fails where fewer than half were, else weak.

        It is weak at best where half of the inputs or more change class by being linked alone, and fails where every
        input is of the target already, since nothing was asked.
        """
        if bool(self.already.all()):
            return SweepTrust("fails", f"nothing was asked: all {len(self.already)} pictures are of the class already")
        count = self.counted
        if self.success < 0.5:
            return SweepTrust("fails", f"only {count}")
        if self.agreement <= 0.5:
            lost = f"{1 - self.agreement:.0%} of the inputs are of another class once linked, before any step"
            return SweepTrust("weak", f"{lost}; {count}")
        return SweepTrust("weak" if self.success < 0.9 else "holds", count)

    def save(self, path: str | Path) -> Path:
        """Write pictures and numbers into a folder that appears whole or not at all.

        Each row's picture shows input, linked and flipped side by side, where these are of one size.

        Args:
            path: a folder that is new, empty, or an earlier result.

        Raises:
            StoreError: the place cannot be written to, or holds something else.
        """
        note = {
            "method": self.method,
            "success": None if bool(self.already.all()) else self.success,
            "agreement": self.agreement,
            "trust": {"verdict": self.trust.verdict, "because": self.trust.because},
        }
        held = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        with bundle(path, note) as folder:
            write_tensors(folder / "counterfactual.safetensors", held, kind="counterfactual")
            if self.images.shape[1] in (1, 3):
                for row in range(len(self.images)):
                    shown = [self.linked[row], self.images[row]]
                    if self.inputs.shape == self.images.shape:
                        shown.insert(0, self.inputs[row].to(self.images))
                    strip(torch.stack(shown)).save(folder / f"row{row}.png")
        return Path(path)


def sparsity(shift: Tensor, sd: Tensor) -> Tensor:
    r"""How many units carry a shift.

    .. math:: \Bigl(\sum_u z_u^2\Bigr)^2 \Big/ \sum_u z_u^4, \qquad z_u = s_u / \sigma_u

    Args:
        shift: s, (n, units).
        sd: σ, (units,); units with σ = 0 are left out.

    Returns:
        (n,), 1 to the number of units; 0 where nothing was shifted.

    Example:
        >>> sparsity(torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.ones(2))
        tensor([1., 2.])
    """
    scale = sd.to(shift)
    square = torch.where(scale > 0, shift / scale.where(scale > 0, 1), 0).square()
    fourth = square.square().sum(1)
    return torch.where(fourth > 0, square.sum(1).square() / fourth.where(fourth > 0, 1), 0)


Method = Literal["ray", "linking_in_style", "latent", "minimal"]
METHODS: dict[str, type[Search]] = {
    "ray": Ray,
    "linking_in_style": LinkingInStyle,
    "latent": LatentWalk,
    "minimal": MinimalShift,
}


def as_search(method: Any) -> Search:
    """A search by name, with its defaults, or one with options of its own."""
    if isinstance(method, str) and method in METHODS:
        return METHODS[method]()
    if not callable(method) or isinstance(method, type):
        raise ValueError(
            f"method is {method!r}; expected one of {', '.join(map(repr, METHODS))}, or one of these with options, "
            "such as Ray(top=10)."
        )
    search: Search = method
    return search


def searched(
    view: Scene, target: Any, origin: Any, method: Any, confidence: float, kind: Probability = "auto"
) -> Counterfactual:
    """Search for all rows and judge what was found."""
    search = as_search(method)
    if not 0 <= confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a probability in [0, 1).")
    classes = view.scores.shape[1]
    if classes < 2:
        raise ValueError(
            f"the model gives {classes} score a row; a counterfactual wants one score a class. Pick them with "
            "output_fn=, for example lambda y: torch.cat([torch.zeros_like(y), y], 1) for a single logit: the softmax "
            "of these two is the sigmoid of y."
        )
    kind = probability_kind(view.scores, kind)
    if kind == "none":
        raise ValueError("probability is 'none'; a counterfactual wants scores of classes: 'softmax', or another kind.")
    expected = _classes(target, "target", classes, view)
    left = _left(origin, expected, classes, view)
    view = of_classes(view, left)
    slope, gap = view.encoding.slopes(left, expected)
    head = linear_head(view)
    task = Task(view.loop, view.r, view.linked, left, expected, slope, gap, head, confidence, view.rows, kind)
    return _judged(view, task, search(task), search)


def _classes(given: Any, name: str, classes: int, view: Scene) -> Tensor:
    """One class a row, (N,)."""
    try:
        rows = torch.as_tensor(given, device=view.scores.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is {given!r}; expected a class, a whole number, or one a row.") from error
    if rows.is_floating_point() or rows.dtype == torch.bool or rows.dim() > 1:
        raise ValueError(f"{name} is {given!r}; expected a class, a whole number, or one a row.")
    if rows.dim() == 1 and len(rows) not in (1, len(view.r)):
        raise ValueError(f"{name} names {len(rows)} classes for {len(view.r)} rows; expected one, or one a row.")
    wrong = (rows < 0) | (rows >= classes)
    if bool(wrong.any()):
        bad = int(rows[wrong].flatten()[0]) if rows.dim() else int(rows)
        raise ValueError(f"{name} {bad} is not a class of this model; expected 0 to {classes - 1}.")
    return rows.long().expand(len(view.r)).clone()


def _left(origin: Any, target: Tensor, classes: int, view: Scene) -> Tensor:
    """The class to leave: as told, else the model's for the input, or its second choice where that is the target."""
    if origin is not None:
        left = _classes(origin, "origin", classes, view)
        if bool((left == target).any()):
            row = int((left == target).nonzero()[0, 0])
            raise ValueError(f"row {row}: origin and target are both {int(target[row])}; expected two classes.")
        return left
    first, second = view.scores.topk(2, 1).indices.T
    return torch.where(first == target, second, first)


def linear_head(view: Scene) -> LinearHead | None:
    """The Linear module that makes the scores out of the linked representation, found by what it computes."""
    encoding = view.encoding
    for root in modules_behind(encoding.forward_func):
        for module in root.modules():
            if isinstance(module, nn.Linear) and module.in_features == view.r.shape[1]:
                bias = module.bias if module.bias is not None else torch.zeros_like(module.weight[:, 0])
                head = LinearHead(module.weight.detach(), bias.detach())
                if head.explains(view.r.to(view.scores.dtype), view.scores):
                    return head
    return None


def _judged(view: Scene, task: Task, found: Found, search: Search) -> Counterfactual:
    shown, sd = found.shown, view.loop.link.r_sd
    head = None
    if task.head is not None:
        head = task.head((view.r + found.shift.to(view.r)).to(task.head.weight.dtype)).argmax(1) == task.target
    return Counterfactual(
        images=_plain(shown.pictures),
        linked=_plain(task.base.pictures),
        inputs=_plain(view.inputs),
        shift=_plain(found.shift),
        latents=_plain(shown.latents),
        steps=_plain(found.steps),
        reached=_plain(found.reached),
        already=_plain(says(view.scores, task.target, task.confidence, task.probability)),
        origin=task.origin,
        target=task.target,
        answers=torch.stack([s.argmax(1) for s in (view.scores, task.base.scores, shown.scores)], 1),
        scores=_plain(shown.scores),
        confidence=_plain(probability(shown.scores, task.target, task.probability)),
        representations=_plain(shown.representations),
        flip=_plain(found.flip),
        length=_plain(found.shift.norm(dim=1)),
        sparsity=_plain(sparsity(found.shift, sd)),
        bound=None if found.bound is None else _plain(found.bound),
        head=head,
        agreement=float((task.base.scores.argmax(1) == view.scores.argmax(1)).double().mean()),
        method=_described(search, task.confidence, task.probability),
    )


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def _described(search: Search, confidence: float, kind: str) -> dict[str, Any]:
    options = {k: v for k, v in vars(search).items() if isinstance(v, int | float | str | tuple | None)}
    return {"name": type(search).__name__, "confidence": confidence, "probability": kind, **options}
