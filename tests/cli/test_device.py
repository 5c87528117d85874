import pytest
import torch

from xinc_captum.cli.device import device_called
from xinc_captum.cli.failures import UsageError


def test_auto_takes_what_there_is():
    assert device_called("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_called("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu9", "meta"])
def test_what_cannot_be_used_is_said(name):
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used here .*try --device cpu"):
        device_called(name)
