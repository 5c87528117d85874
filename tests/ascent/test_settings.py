import pytest

from xinc_captum.ascent import Options, Settings


def test_every_option_is_a_setting():
    assert set(Options.__annotations__) == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("name", ["n_steps", "n_draws", "mask_every", "internal_batch_size"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=f"{name} is 0; wanted at least 1"):
        Settings(**{name: 0})


def test_what_cannot_be():
    for lr in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr is .*; wanted a finite number above 0"):
            Settings(lr=lr)
    with pytest.raises(ValueError, match="dose and activation both say where to stop; give one"):
        Settings(dose=1, activation=2.0)
    with pytest.raises(TypeError, match="steps"):
        Settings(steps=3)
