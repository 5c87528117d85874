import sys
import threading

import torch
from torch import nn

from xinc_captum.hooks import eager


def test_compiled_models_run_their_hooks_inside_and_are_compiled_again_behind():
    model, calls, graphs = nn.Sequential(nn.Linear(2, 3), nn.ReLU()), [], []

    def backend(graph, _inputs):
        def compiled(*args):
            graphs.append(1)
            return graph.forward(*args)

        return compiled

    x, compiled = torch.rand(4, 2), torch.compile(model, backend=backend)
    expected = compiled(x)
    assert len(graphs) == 1
    handle = model[0].register_forward_hook(lambda *_: calls.append(1))
    with eager():
        torch.testing.assert_close(compiled(x), expected)
    assert len(calls) == 1 and len(graphs) == 1, "as written, hooks and all"
    handle.remove()
    compiled(x)
    assert len(graphs) == 2, "the block is over"


def test_a_process_that_compiled_nothing_does_not_load_the_compiler(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[:2] == ["torch", "_dynamo"]]:
        monkeypatch.delitem(sys.modules, name)
    with eager():
        pass
    assert "torch._dynamo" not in sys.modules


def test_blocks_of_two_threads_that_overlap():
    """The stance belongs to the process: the first block to end must not take it from the second."""
    import torch._dynamo.eval_frame as frame

    usual, inside, leave = frame._stance.stance, threading.Event(), threading.Event()

    def other():
        with eager():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    assert inside.wait(10)
    with eager():
        leave.set()
        thread.join(10)
        assert frame._stance.stance == "force_eager"
    assert frame._stance.stance == usual
