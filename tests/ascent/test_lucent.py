import pytest
import torch
from torch import nn

from xinc_captum.ascent.lucent import from_lucent, from_string, is_lucent
from xinc_captum.ascent.objectives import channel
from xinc_captum.ascent.reading import Reader


@pytest.fixture
def theirs():
    return pytest.importorskip("lucent.optvis.objectives", reason="pip install torch-lucent")


@pytest.fixture
def seen():
    """Two views of three images."""
    net = nn.Sequential(nn.Identity(), nn.Flatten())
    return Reader(net).read(torch.rand(6, 4, 3, 3), (), [net[0]], whole=True)


def test_its_objectives_are_known_by_their_package(theirs):
    assert is_lucent(theirs.channel("0", 1))
    assert not is_lucent(channel("0", 1)) and not is_lucent("0:1") and not is_lucent(lambda seen: seen)


def test_a_sum_of_two(theirs, seen):
    ours = from_lucent(theirs.channel("0", 1) + theirs.neuron("0", 2), rows=3)
    assert ours.name == "lucent channel, neuron"
    activation = seen("0")
    for view in (0, 1):
        part = activation[3 * view : 3 * view + 3]
        expected = part[:, 1].mean() + part[:, 2, 1, 1].mean()
        torch.testing.assert_close(ours(seen)[3 * view : 3 * view + 3], expected.expand(3))


def test_diversity_compares_images_not_views(theirs, seen):
    objective = theirs.diversity("0")
    ours = from_lucent(objective, rows=3)(seen)
    for view in (0, 1):
        torch.testing.assert_close(ours[3 * view], -objective(seen.part(slice(3 * view, 3 * view + 3))))


def test_strings(seen):
    torch.testing.assert_close(from_string("0:2")(seen), seen("0")[:, 2].mean((1, 2)))
    for wrong in ("fc", "0:", ":3", "0:x", "0:-1"):
        with pytest.raises(ValueError, match=f"objective '{wrong}' is not understood; wanted \"layer:unit\" such as"):
            from_string(wrong)
