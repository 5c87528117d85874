"""Weights into a network that the user built: from safetensors, strictly, and never from a pickle."""

from pathlib import Path
from typing import TypeVar

from torch import nn

from .. import store

Network = TypeVar("Network", bound=nn.Module)
_PICKLES = (b"\x80", b"PK\x03\x04", b"\x1f\x8b")  # a pickle, a zip around one (torch.save), a gzip around one
_SAFE_WAY = (
    "It is not opened. Once, on a machine that has nothing to lose, build the network from its own source code and run "
    "safetensors.torch.save_file({k: v.contiguous() for k, v in network.state_dict().items()}, 'weights.safetensors'); "
    "here, build the same network and call load_weights(network, 'weights.safetensors'). A file of torch.save() that "
    "holds a state dict alone can be read by torch.load(path, weights_only=True)."
)


def load_weights(network: Network, path: str | Path) -> Network:
    """Put the weights of a safetensors file into a network of the same architecture.

    Checkpoints of StyleGAN are pickles. Opening one runs what its author put in: the pickle itself may call any
    function, and theirs holds the source code of the network, which is executed. Safetensors holds numbers only, so the
    network must be built by its own code first. Every tensor must fit, none may be missing or left over.

    Args:
        network: any module; its weights are replaced.
        path: a file of ``safetensors.torch.save_file``.

    Returns:
        The network.

    Raises:
        FileNotFoundError: no such file.
        StoreError: a pickle, no whole safetensors file, or tensors that do not fit the network. A file of
            :func:`~xinc_captum.store.write_tensors` is also checked against its sha256; other files have none.

    Example:
        >>> import tempfile, safetensors.torch
        >>> path = Path(tempfile.mkdtemp()) / "linear.safetensors"
        >>> safetensors.torch.save_file(torch.nn.Linear(2, 3).state_dict(), path)
        >>> load_weights(torch.nn.Linear(2, 3), path)
        Linear(in_features=2, out_features=3, bias=True)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file; wanted the weights of {type(network).__name__} in safetensors.")
    with path.open("rb") as opened:
        first = opened.read(16)
    # A safetensors file begins with the length of its header and an opening brace, whatever the length's first byte is.
    if first[8:9] != b"{" and (first.startswith(_PICKLES) or path.suffix in (".pkl", ".pickle")):
        raise store.StoreError(
            f"{path} is a pickle, or a file around one: opening it would run whatever code its author put in; wanted "
            f"safetensors. {_SAFE_WAY}"
        )
    tensors, _ = store.read_tensors(path, kind=None, writer="safetensors.torch.save_file()")
    try:
        store.check_state(path, network.state_dict(), tensors)
    except store.StoreError as error:
        raise store.StoreError(
            f"{str(error).rstrip('.')}, in this {type(network).__name__}. Build the network as it was when it "
            "was saved."
        ) from error
    network.load_state_dict(tensors)
    return network
