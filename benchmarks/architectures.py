"""Print a table of architectures and classes: "correct", or the number of the package's sentence that refuses.

    python benchmarks/architectures.py [--write docs/architectures.md] [NAME …]    (about four minutes on one idle core)

Each cell runs a check of ``tests/architectures.py`` on a small model with random weights. NAMEs are parts of names. Needs the
extras test, timm, hf and clip.
"""

import argparse
import logging
import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import architectures

HEAD = """# Architectures: which classes take which models

With this page you can look up whether a class of this package takes your model as it is: without a function around it, and without
`output_fn=`, `layer_to_grid=` or `unit_axis=`.

Each cell is a check on a small model with random weights. ✓: the result equals an independent computation in PyTorch, and the
model's state is restored. A number: the class raises the error with this number below, which names the argument to give. Names
with a colon, such as `timm:test_vit`, are loaded by [`load_model`](your_model.md); all others are modules as their library
returns them. Each class is checked at the model's default layer, `make_pairs` at the last linear layer.
"""
CHECKS = """## What is checked

| class | independent computation |
|---|---|
| `default_layer` | the layer, the number of class and register tokens and the size of the map, as the model's code states them |
| `LayerContribution` | activation x gradient by `torch.autograd`, to 1e-6 of the largest |
| `NeuronCanvas` | for each channel and score, the sum of activation x gradient over positions |
| `FeatureAccentuation`, `NeuronFeatureAccentuation` | scores before and after; two steps without crops raise them; images are in [0, 1] |
| `FeatureActivationMap` | the weights sum to the cosine similarity of the mean features; the map is their weighted sum |
| `make_pairs` | representations are the input of the last linear layer, recorded by a hook |
| `NeRN`, `WeightContribution` | contributions sum to the generated weights W, and to ⟨W, ∂y/∂W⟩ by `torch.autograd` |
| `compare` | the map is Grad-CAM by `torch.autograd`, resized; it is finite and not constant |
"""
COLUMNS = ("default_layer", "LayerContribution", "NeuronCanvas", "FeatureAccentuation", "NeuronFeatureAccentuation",
           "FeatureActivationMap", "make_pairs", "WeightContribution", "compare")  # fmt: skip


def measure(names: list[str]) -> tuple[dict[str, list[str]], float]:
    """Return the outcomes of each architecture, and the CPU seconds."""
    begun, outcomes = time.process_time(), {}
    for name in names:
        case = architectures.build(name)
        outcomes[name] = []
        for check in architectures.CHECKS:
            try:
                outcomes[name].append(architectures.outcome(check, case))
            except Exception as error:
                outcomes[name].append(f"WRONG: {type(error).__name__}: {error}")
        print(name, *("✓" if one == "correct" else one.partition(":")[0] for one in outcomes[name]), file=sys.stderr)
    return outcomes, time.process_time() - begun


def table(outcomes: dict[str, list[str]]) -> str:
    """Return the table, and the list of the errors in the order of their numbers."""
    errors: list[str] = []
    lines = ["| model | " + " | ".join(f"`{name}`" for name in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in outcomes.items():
        cells = []
        for one in map(architectures.general, row):
            if one != "correct" and one not in errors:
                errors.append(one)
            cells.append("✓" if one == "correct" else f"{errors.index(one) + 1}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    count = sum(len(row) for row in outcomes.values())
    correct = sum(one == "correct" for row in outcomes.values() for one in row)
    text = f"{len(outcomes)} architectures, {count} cells, {correct} correct, {count - correct} refused."
    numbered = "\n".join(f"{number}. `{error}`" for number, error in enumerate(errors, 1))
    return "\n".join(lines) + f"\n\n{text}\n\n## Errors\n\nNumbers of the shapes are replaced by n.\n\n{numbered}\n"


def main() -> None:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description="Print a table of architectures and classes.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="Parts of names. Default: all architectures.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file to write.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    every = architectures.ARCHITECTURES
    names = [one for one in every if not options.names or any(part in one for part in options.names)]
    outcomes, seconds = measure(names)
    text = f"{HEAD}\n{table(outcomes)}\n{CHECKS}\nMade by `python benchmarks/architectures.py --write docs/architectures.md`."
    if options.write:
        options.write.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)
    print(f"{seconds:.0f} CPU seconds", file=sys.stderr)
    wrong = [(name, one) for name, row in outcomes.items() for one in row if one.startswith("WRONG")]
    if wrong:
        sys.exit("\n".join(f"{name}: {one}" for name, one in wrong))


if __name__ == "__main__":
    main()
