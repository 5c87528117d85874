"""Blocks of ``untouched`` in two threads that overlap, in every order in which they can end."""

import threading

import pytest
import torch
from torch import nn

from xinc_captum import untouched


class Block:
    """``untouched(model)`` in a thread of its own, entered and left on command; inside, the model is changed."""

    def __init__(self, model, change):
        self.model, self.change = model, change
        self.inside, self.leave = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        assert self.inside.wait(10)

    def run(self):
        with untouched(self.model):
            self.change(self.model)
            self.inside.set()
            self.leave.wait(10)

    def end(self):
        self.leave.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def freeze(model):
    model.requires_grad_(False)
    model.train()
    model.running_mean.add_(1)


def evaluate(model):
    model.eval()
    model.running_mean.add_(2)
    torch.rand(3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_state_of_before_is_back_when_the_last_has_ended(order, found):
    model = nn.BatchNorm1d(3).eval()
    model(torch.rand(4, 3)).sum().backward()
    before = found(model)
    blocks = [Block(model, freeze), Block(model, evaluate)]
    for place in order:
        blocks[place].end()
    assert before.differences(model) == []


def test_the_first_block_does_not_restore_under_the_second():
    model = nn.BatchNorm1d(3).train()
    first, second = Block(model, nn.Module.train), Block(model, nn.Module.eval)
    first.end()
    assert not model.training, "the second block still runs in the mode that it set"
    second.end()
    assert model.training


def test_blocks_of_other_models_restore_at_once():
    one, other = nn.BatchNorm1d(3).train(), nn.BatchNorm1d(3).train()
    first, second = Block(one, nn.Module.eval), Block(other, nn.Module.eval)
    first.end()
    assert one.training and not other.training
    second.end()
    assert other.training


def test_three_blocks_and_a_shared_submodule(found):
    shared = nn.BatchNorm1d(3)
    one, other = nn.Sequential(shared), nn.Sequential(shared, nn.ReLU())
    before, both = found(one), found(other)
    set_shared = lambda flag: lambda model: model[0].train(flag)
    blocks = [Block(one, set_shared(False)), Block(other, set_shared(True)), Block(one, set_shared(False))]
    for place in (1, 0, 2):
        blocks[place].end()
    assert before.differences(one) == [] and both.differences(other) == []


def test_a_block_in_a_suspended_generator_of_the_same_thread_keeps_no_other_from_restoring():
    model = nn.BatchNorm1d(3).train()

    def suspended():
        with untouched(model):
            yield

    with untouched(model):
        model.eval()
        generator = suspended()
        next(generator)
    assert model.training
    generator.close()


def test_autocast_and_gradient_mode_are_restored_in_their_own_thread():
    model, seen = nn.Linear(2, 2), {}

    def run():
        with torch.no_grad():
            with untouched(model):
                torch.set_grad_enabled(True)
                inside.set()
                leave.wait(10)
            seen["first"] = torch.is_grad_enabled()

    inside, leave = threading.Event(), threading.Event()
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert inside.wait(10)
    with untouched(model):
        leave.set()
        thread.join(10)
    assert seen["first"] is False and torch.is_grad_enabled()
