import torch

from xinc_captum.attributions.linking.counterfactuals import LinearHead


def test_a_head_knows_its_scores():
    linear = torch.nn.Linear(64, 10)
    head, r = LinearHead(linear.weight.detach(), linear.bias.detach()), torch.randn(5, 64)
    scores = linear(r).detach()
    torch.testing.assert_close(head(r), scores)
    assert head.explains(r, scores)
    assert not head.explains(r, scores + 1e-3), "other scores"
    assert not head.explains(r[:, :3], scores), "other units"
    assert not head.explains(r, scores[:, :4]), "other classes"
    assert head.explains(r.bfloat16(), linear.bfloat16()(r.bfloat16()).detach())


def test_small_scores_are_compared_on_their_own_scale():
    generator = torch.Generator().manual_seed(0)
    weight = 1e-7 * torch.randn(3, 8, generator=generator)
    head, r = LinearHead(weight, torch.zeros(3)), torch.randn(5, 8, generator=generator)
    assert head.explains(r, r @ weight.T)
    assert not head.explains(r, -(r @ weight.T))
