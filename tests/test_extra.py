import pytest

from xinc_captum._optional import require


def test_installed_modules_are_returned():
    import math

    assert require("math", purpose="counting", extra="analysis") is math


def test_missing_packages_are_reported_with_the_install_command():
    with pytest.raises(ModuleNotFoundError, match="k-means needs nosuch, which cannot be imported .*nosuch") as caught:
        require("nosuch.cluster", purpose="k-means", extra="analysis")
    assert str(caught.value).endswith("Run: pip install 'xinc-captum[analysis]'")
    assert caught.value.name == "nosuch"
