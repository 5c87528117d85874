import torch

from xinc_captum.hooks import offload


def test_on_the_host_it_is_a_copy():
    tensor = torch.rand(3, requires_grad=True)
    held = offload.to_host(tensor)
    offload.wait()
    assert torch.equal(held, tensor.detach())
    assert held.data_ptr() != tensor.data_ptr()
    assert not held.requires_grad
