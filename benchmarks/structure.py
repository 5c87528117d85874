"""The size and shape of the code: files, lines, import chains, cycles, files a call runs through, and names.

    python benchmarks/structure.py [--root .] [--calls] [--names FOLDER]

Everything but ``--calls`` reads the source as text and imports nothing, so that ``--root`` may be another checkout.
``--calls`` runs five calls of the installed package and counts its files in which at least one function ran.
``--names`` lists the names that count as odd below that folder, instead of the table.
"""

import argparse
import ast
import collections
import sys
import tempfile
from pathlib import Path
from statistics import median

PACKAGE = "xinc_captum"
PAPERS = ("accentuation", "canvas", "linking", "nern", "trans_inr")
# Words of the redesign's table that say nothing about the thing they name. "parts" and "shares" are left out where the
# thing is a part of an image or a share of one.
WORDS = frozenset(
    "found seen shown drawn painted kept held own answer answers answered left whole said words wanted slot slots "
    "amounts asked given told others".split()
)
IRREGULAR = frozenset(
    "found seen shown drawn painted kept held said given written made taken told cut put thrown grown known left lost "
    "built spread run bound sought led met set".split()
) - {"cut", "put", "run", "set", "spread", "bound", "lost"}
# Nouns and adjectives that only look like participles.
NOUNS = frozenset(
    "embedding encoding rendering string ring training setting settings heading spacing padding pairing king thing "
    "seed speed feed need bed red embed shed linked embeddings encodings timing loading warning ranking clustering "
    "sampling screening".split()
)


def module_of(path, package):
    dotted = ".".join(path.relative_to(package.parent).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


def edges(tree, module, is_package, modules, *, runtime_only):
    """Modules of the package that this one imports."""
    inside = module.split(".") if is_package else module.split(".")[:-1]

    def walk(node, skip):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                yield from walk(child, skip or runtime_only)
            elif isinstance(child, ast.ImportFrom) and not skip:
                base = inside[: len(inside) - child.level + 1] if child.level else []
                start = ".".join([*base, *([child.module] if child.module else [])])
                for alias in child.names:
                    name = f"{start}.{alias.name}"
                    target = name if name in modules else start
                    if target in modules and target != module:
                        yield target
            else:
                yield from walk(child, skip)

    return set(walk(tree, False))


def components(graph):
    """Strongly connected components of more than one module (Tarjan)."""
    index, low, stack, found = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = [stack.pop()]
            while group[-1] != node:
                group.append(stack.pop())
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def depth(graph, counts):
    """Number of modules in the longest chain of imports for which ``counts`` is true; a cycle counts once."""
    longest, path = {}, set()

    def visit(node):
        if node in longest or node in path:
            return longest.get(node, 0)
        path.add(node)
        longest[node] = counts(node) + max((visit(other) for other in graph[node]), default=0)
        path.discard(node)
        return longest[node]

    return max(map(visit, graph))


def split(name):
    """The words of an identifier: ``_rowsSeen_at`` has rows, seen and at."""
    spaced = "".join(f"_{c.lower()}" if c.isupper() and not name.isupper() else c for c in name)
    return [word for word in spaced.lower().split("_") if word]


def defined_names(tree):
    """Yield (kind, name, line) of functions, classes, parameters and assigned names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield "function", node.name, node.lineno
            arguments = node.args
            for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                yield "parameter", one.arg, one.lineno
        elif isinstance(node, ast.ClassDef):
            yield "class", node.name, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield "variable", node.id, node.lineno


def is_odd(name):
    return any(word in WORDS for word in split(name))


def is_participle(name):
    """Whether a function is named by what was done, or by doing: ``searched``, ``_drawn_together``, ``explaining``."""
    words = split(name)
    if not words or words[0] in NOUNS or (name.startswith("__") and name.endswith("__")):
        return False
    word = words[0]
    return word in IRREGULAR or (len(word) > 4 and word.endswith(("ed", "ing")))


def sources(package):
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}


def structure(root):
    """Yield (what, number) of the checkout at ``root``."""
    package = root / PACKAGE
    trees = sources(package)
    modules = {module_of(path, package): path for path in trees}
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in trees}
    sizes = [count for path, count in lines.items() if path.name != "__init__.py"]
    yield "files", len(trees)
    yield "lines", sum(lines.values())
    yield "median lines of a file (without __init__.py)", median(sizes)
    yield "longest file", max(sizes)
    graphs = {
        runtime: {
            module: edges(trees[path], module, path.name == "__init__.py", modules, runtime_only=runtime)
            for module, path in modules.items()
        }
        for runtime in (True, False)
    }
    yield "import depth (without __init__.py)", depth(graphs[True], lambda m: modules[m].name != "__init__.py")
    without_packages = {
        module: {other for other in targets if modules[other].name != "__init__.py"}
        for module, targets in graphs[False].items()
        if modules[module].name != "__init__.py"
    }
    cycles = components(without_packages)
    yield "cycles (imports for type checkers count)", len(cycles)
    for cycle in cycles:
        yield f"  {', '.join(name.removeprefix(PACKAGE + '.') for name in cycle)}", ""
    crossing = [
        f"  {module} -> {other}"
        for module, targets in graphs[False].items()
        for other in targets
        if (a := paper_of(module)) and (b := paper_of(other)) and a != b
    ]
    yield "imports between paper folders", len(crossing)
    yield from ((line, "") for line in crossing)
    names = [entry for tree in trees.values() for entry in defined_names(tree)]
    unique = {(kind, name) for kind, name, _ in names}
    functions = {name for kind, name in unique if kind == "function"}
    yield "names with odd words, % of definitions", percent(sum(is_odd(n) for _, n, _ in names), len(names))
    yield "functions named by participles, %", percent(sum(map(is_participle, functions)), len(functions))
    yield "README, KB", round((root / "README.md").stat().st_size / 1000, 1)


def percent(part, total):
    return round(100 * part / total, 2)


def paper_of(module):
    parts = module.split(".")
    return parts[2] if parts[:2] == [PACKAGE, "attributions"] and len(parts) > 2 and parts[2] in PAPERS else None


def traced(call):
    """Files of the package in which a function ran during ``call()``."""
    import xinc_captum

    folder = str(Path(xinc_captum.__file__).parent)
    files = collections.Counter()

    def record(frame, event, _argument):
        if event == "call" and frame.f_code.co_filename.startswith(folder) and frame.f_code.co_name != "<module>":
            files[frame.f_code.co_filename.removeprefix(folder + "/")] += 1

    sys.setprofile(record)
    try:
        call()
    finally:
        sys.setprofile(None)
    return sorted(files)


def calls():
    """Yield (name, a call), with everything that it needs made before."""
    import torch
    from torch import nn

    import xinc_captum as x
    from xinc_captum import zoo
    from xinc_captum.attributions.linking import make_pairs
    from xinc_captum.cli.main import app
    from xinc_captum.inr import FourierMLP, coordinates

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 4)).eval()
    images = torch.rand(2, 3, 8, 8)
    yield (
        "FeatureAccentuation.attribute",
        lambda: x.FeatureAccentuation(net).attribute(images, target=1, n_steps=3),
    )
    classifier, generator = zoo.mnist_convnet(), zoo.mnist_generator().generator
    pairs = make_pairs(classifier.model, "head", generator, 64, preprocess=classifier.preprocess)
    link = x.LatentLink().fit(pairs.representations, pairs.latents, pairs.classes, manifest=pairs.manifest)
    linked = x.LinkedUnitVisualization(classifier.model, "head", generator, link, preprocess=classifier.preprocess)
    digits, unit = zoo.mnist_digits().halve().images[:2], int(link.alive.nonzero()[0])
    yield "LinkedUnitVisualization.sweep", lambda: linked.sweep(digits, unit)
    inr = FourierMLP(hidden=8, seed=0)
    yield (
        "NeuronCanvas.attribute, tangent",
        lambda: x.NeuronCanvas(inr, "activation1", rule="tangent").attribute(coordinates((6, 4))),
    )
    yield (
        "compare",
        lambda: x.compare(["Grad-CAM"], net, images, target=1, layer="0"),
    )
    with tempfile.TemporaryDirectory() as folder:
        link = f"{folder}/link"
        run(app, ["link", "--out", link, "--pairs", "200"])
        yield "xinc sweep", lambda: run(app, ["sweep", link, "--out", f"{folder}/sweep", "--unit", "3", "--steps", "3"])


def run(app, words):
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, words)
    if result.exit_code:
        raise RuntimeError(result.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--calls", action="store_true")
    parser.add_argument("--names", metavar="FOLDER")
    options = parser.parse_args()
    if options.names is not None:
        for path, tree in sources(options.root / PACKAGE).items():
            place = str(path.relative_to(options.root / PACKAGE))
            if place.startswith(options.names):
                for kind, name, line in defined_names(tree):
                    if is_odd(name) or (kind == "function" and is_participle(name)):
                        print(f"{place}:{line}: {kind} {name}")
        return
    for what, number in structure(options.root):
        print(f"{what:<60}{number}")
    if options.calls:
        for name, call in calls():
            files = traced(call)
            print(f"{'files of ' + name:<60}{len(files)}")
            for file in files:
                print(f"    {file}")


if __name__ == "__main__":
    main()
