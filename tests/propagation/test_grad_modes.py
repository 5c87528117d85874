"""Gradients that are off in a block of the model's own, told from a custom autograd Function."""

import torch

from xinc_captum.attributions.canvas.rules.grad_modes import GradModes, in_no_grad_block


class Looks(torch.autograd.Function):
    seen = ()

    @staticmethod
    def forward(ctx, x):
        with torch.no_grad():
            inner = in_no_grad_block()
        Looks.seen = (torch.is_grad_enabled(), in_no_grad_block(), inner)
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def test_blocks_are_followed_in_and_out():
    with GradModes() as modes:
        assert not in_no_grad_block() and not modes.toggled
        with torch.no_grad():
            assert in_no_grad_block() and modes.toggled
            with torch.enable_grad():
                assert not in_no_grad_block()
            with torch.no_grad():
                assert in_no_grad_block()
            assert in_no_grad_block()
        assert not in_no_grad_block()
        with torch.no_grad():
            pass
    assert not in_no_grad_block()


def test_a_custom_function_is_no_block():
    x = torch.ones(1, requires_grad=True)
    with GradModes():
        Looks.apply(x)
        assert Looks.seen == (False, False, False)
        with torch.no_grad():
            Looks.apply(x)
        assert Looks.seen == (False, True, True)


def test_an_exception_in_a_block_leaves_nothing_behind():
    try:
        with GradModes(), torch.no_grad():
            raise KeyError
    except KeyError:
        pass
    assert not in_no_grad_block()
    with torch.no_grad():
        assert not in_no_grad_block()  # known only inside of GradModes
