"""From a target to a counterfactual: what a search needs to know, and what its answer is worth."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ....hooks import modules_behind
from ....metrics import Probability, probability_kind
from ..linked_scene import Scene, of_classes
from .counterfactual import Counterfactual, sparsity
from .latent_walk import LatentWalk
from .linear_head import LinearHead
from .minimal_shift import MinimalShift
from .paper_update import LinkingInStyle
from .ray import Ray
from .search import Found, Search, Task
from .verdicts import probability, says

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
            f"method is {method!r}; wanted one of {', '.join(map(repr, METHODS))}, or one of these with options, "
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
        raise ValueError(f"confidence is {confidence}; wanted a probability in [0, 1).")
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
    wanted = _classes(target, "target", classes, view)
    left = _left(origin, wanted, classes, view)
    view = of_classes(view, left)
    slope, gap = view.encoding.slopes(left, wanted)
    head = linear_head(view)
    task = Task(view.loop, view.r, view.linked, left, wanted, slope, gap, head, confidence, view.rows, kind)
    return _judged(view, task, search(task), search)


def _classes(given: Any, name: str, classes: int, view: Scene) -> Tensor:
    """One class a row, (N,)."""
    try:
        rows = torch.as_tensor(given, device=view.scores.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is {given!r}; wanted a class, a whole number, or one a row.") from error
    if rows.is_floating_point() or rows.dtype == torch.bool or rows.dim() > 1:
        raise ValueError(f"{name} is {given!r}; wanted a class, a whole number, or one a row.")
    if rows.dim() == 1 and len(rows) not in (1, len(view.r)):
        raise ValueError(f"{name} names {len(rows)} classes for {len(view.r)} rows; wanted one, or one a row.")
    wrong = (rows < 0) | (rows >= classes)
    if bool(wrong.any()):
        bad = int(rows[wrong].flatten()[0]) if rows.dim() else int(rows)
        raise ValueError(f"{name} {bad} is not a class of this model; wanted 0 to {classes - 1}.")
    return rows.long().expand(len(view.r)).clone()


def _left(origin: Any, target: Tensor, classes: int, view: Scene) -> Tensor:
    """The class to leave: as told, else the model's for the input, or its second choice where that is the target."""
    if origin is not None:
        left = _classes(origin, "origin", classes, view)
        if bool((left == target).any()):
            row = int((left == target).nonzero()[0, 0])
            raise ValueError(f"row {row}: origin and target are both {int(target[row])}; wanted two classes.")
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
