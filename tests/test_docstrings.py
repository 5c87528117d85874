"""Every example in a docstring runs, and every public class and function has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import xinc_captum

MADE_BY = {
    "Accentuation": xinc_captum.FeatureAccentuation,
    "Canvas": xinc_captum.NeuronCanvas.canvas,
    "Comparison": xinc_captum.compare,
}
MODULES = [m.name for m in pkgutil.walk_packages(xinc_captum.__path__, "xinc_captum.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    module = importlib.import_module(name)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(module, extraglobs={"torch": torch}, optionflags=flags)
    assert result.failed == 0


@pytest.mark.parametrize("name", [n for n in xinc_captum.__all__ if n != "__version__"])
def test_public_names_are_shown_by_example(name):
    thing = getattr(xinc_captum, name)
    if inspect.isclass(thing) and issubclass(thing, Exception):
        assert thing.__doc__
    elif name in MADE_BY:
        assert ">>>" in MADE_BY[name].__doc__, "made by this, shown there"
    else:
        assert ">>>" in thing.__doc__
