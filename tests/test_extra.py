import pytest

from xinc_captum._optional import require


def test_what_is_there_is_given():
    import math

    assert require("math", purpose="counting", extra="analysis") is math


def test_what_is_missing_is_said_with_what_to_run():
    with pytest.raises(ModuleNotFoundError, match="k-means needs nosuch, which cannot be imported .*nosuch") as caught:
        require("nosuch.cluster", purpose="k-means", extra="analysis")
    assert str(caught.value).endswith("Run: pip install 'xinc-captum[analysis]'")
    assert caught.value.name == "nosuch"
