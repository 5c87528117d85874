"""Load the network and arrays recorded from XINC's released code, for the benchmarks that need them.

The paper's own checkpoint is its authors' data and is not part of this repository: benchmarks take the folder that
contains ``xinc_ffn.npz`` as an argument.
"""

from pathlib import Path

import numpy as np
import torch

from xinc_captum.inr import FourierMLP


def network(recorded) -> FourierMLP:
    """Return the recorded FFN as a FourierMLP."""
    state = {
        k.removeprefix("state/"): torch.from_numpy(np.array(recorded[k]))
        for k in recorded.files
        if k.startswith("state/")
    }
    encoding = state["positional_encoding.B"]
    weights = {
        f"{name}.{part}": state[f"net.{i}.linear.{part}"]
        for i, name in enumerate(("linear1", "linear2", "output"))
        for part in ("weight", "bias")
    }
    hidden, features = weights["linear1.weight"].shape[0], encoding.shape[0]
    model = FourierMLP(hidden=hidden, features=features, out_features=len(weights["output.bias"]))
    model.load_state_dict({"encoding.B": encoding, **weights})
    return model.eval()


def load(folder: str | Path, name: str = "xinc_ffn"):
    """Return the recorded arrays."""
    return np.load(Path(folder) / f"{name}.npz")
