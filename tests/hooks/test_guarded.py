import threading

import torch
from torch import nn

from xinc_captum.hooks import guarded


def test_the_model_is_restored_and_no_other_thread_is_inside(found):
    model, seen, begun = nn.BatchNorm1d(3).train(), [], threading.Event()
    before = found(model)

    def other():
        begun.set()
        with guarded(model):
            seen.append(model.training)

    with guarded(model):
        model.eval()
        thread = threading.Thread(target=other, daemon=True)
        thread.start()
        assert begun.wait(10)
        thread.join(0.05)
        assert seen == [], "it waits for its turn"
        torch.rand(2)
    thread.join(10)
    assert seen == [True] and before.differences(model) == []
