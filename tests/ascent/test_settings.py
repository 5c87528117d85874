import pytest

from xinc_captum.attributions.accentuation import Crops, Options, Settings
from xinc_captum.attributions.accentuation.settings import settings_of


def test_every_option_is_a_setting():
    assert set(Options.__annotations__) == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("name", ["n_steps", "n_draws", "mask_every", "internal_batch_size"])
def test_counts_begin_at_one(name):
    with pytest.raises(ValueError, match=f"{name} is 0; wanted a whole number, at least 1"):
        Settings(**{name: 0})


def test_what_cannot_be():
    for lr in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="lr is .*; wanted a finite number above 0"):
            Settings(lr=lr)
    with pytest.raises(ValueError, match="dose and activation both say where to stop; give one"):
        Settings(dose=1, activation=2.0)
    with pytest.raises(TypeError, match="steps"):
        Settings(steps=3)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"steps": 3}, TypeError, r"'steps' is no option; wanted some of n_steps, lr, optimizer"),
        (
            {"regularizer": "layer2"},
            TypeError,
            r"regularizer is 'layer2'; wanted FeatureDistance\(layer, weight\), Ball",
        ),
        ({"regularizer": 1.0}, TypeError, r"regularizer is 1.0; wanted FeatureDistance"),
        (
            {"transforms": Crops(2)},
            TypeError,
            r"transforms is Crops\(.*; wanted a list or tuple of views, such as \[Crop",
        ),
        ({"optimizer": "adam"}, TypeError, "optimizer is 'adam'; wanted a class such as torch.optim.Adam"),
        ({"n_steps": 2.5}, ValueError, "n_steps is 2.5; wanted a whole number, at least 1"),
    ],
    ids=lambda value: "" if isinstance(value, type | str) else next(iter(value)),
)
def test_what_makes_no_sense_is_said(options, error, text):
    with pytest.raises(error, match=text):
        settings_of(options)
    assert settings_of({"n_steps": 3}) == Settings(n_steps=3)
