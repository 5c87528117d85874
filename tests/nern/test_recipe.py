import pytest

from xinc_captum.attributions.nern.recipe import Recipe


def test_the_usual_one_is_fine():
    assert Recipe().steps == 1000 and Recipe(patience=None, kernels_per_step=None, warmup=0).every == 100


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"steps": 0}, "steps is 0; wanted at least 1"),
        ({"patience": 0}, "patience is 0; wanted at least 1"),
        ({"kernels_per_step": -2}, "kernels_per_step is -2; wanted at least 1"),
        ({"lr": 0.0}, r"lr is 0.0 and warmup is 0; wanted lr > 0"),
        ({"warmup": -1}, r"warmup is -1; wanted lr > 0 and warmup >= 0"),
        ({"loss_weights": (0.0, 0.0, 0.0)}, "not all 0"),
        ({"loss_weights": (1.0, 1.0)}, "wanted three numbers >= 0"),
        ({"optimizer": "sgd"}, "optimizer is 'sgd'; wanted 'adamw' or 'radam'"),
        ({"noise_range": (1.0, 1.0)}, "wanted the lower end first"),
        ({"lr": float("nan")}, "lr is nan"),
    ],
)
def test_numbers_that_cannot_be(given, says):
    with pytest.raises(ValueError, match=says):
        Recipe(**given)
