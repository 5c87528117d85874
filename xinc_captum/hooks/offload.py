"""Move activations to host memory without making the device wait."""

import torch
from torch import Tensor

_side_streams: dict[torch.device, torch.cuda.Stream] = {}


def to_host(tensor: Tensor) -> Tensor:
    """A detached copy of ``tensor`` in host memory; under CUDA it is complete only after :func:`wait`.

    The copy goes into a pinned buffer on a side stream, overlapped with whatever the model does next. The
    device-side clone comes first, because the model may rewrite its output in place (ReLU).
    """
    tensor = tensor.detach()
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    side = _side_streams.setdefault(tensor.device, torch.cuda.Stream(tensor.device))
    snapshot = tensor.clone()
    held = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    side.wait_stream(torch.cuda.current_stream(tensor.device))
    with torch.cuda.stream(side):
        held.copy_(snapshot, non_blocking=True)
    snapshot.record_stream(side)
    return held


def wait() -> None:
    """Block until every copy started by :func:`to_host` has arrived."""
    for stream in _side_streams.values():
        stream.synchronize()
