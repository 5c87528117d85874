import importlib

import pytest
import torch

from xinc_captum.cli.errors import FAILURES, UsageError, device_called, words_of
from xinc_captum.hooks import LayerError
from xinc_captum.images import PhotoError
from xinc_captum.store import StoreError

entry = importlib.import_module("xinc_captum.cli.main")  # the package names its function main too


def test_what_a_person_can_mend_is_listed():
    assert {UsageError, LayerError, PhotoError, StoreError, FileNotFoundError} <= set(FAILURES)
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, KeyError, OSError, MemoryError])
def test_what_would_be_our_own_mistake_keeps_its_traceback(error):
    assert not issubclass(error, FAILURES)


def test_errors_of_the_operating_system_name_the_file():
    assert words_of(PermissionError(13, "Permission denied", "photo.png")) == "photo.png: Permission denied"
    assert words_of(OSError(36, "File name too long")) == "File name too long"
    assert words_of(OSError("no number: raised by a library")) is None
    assert words_of(RuntimeError("own mistake")) is None
    assert words_of(UsageError("first line\nsecond")) == "first line second"


def test_a_mistake_of_the_package_keeps_its_traceback(monkeypatch):
    def fails():
        raise OSError("no number")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(OSError, match="no number"):
        entry.main()


@pytest.mark.parametrize("error", [FAILURES[0], FileNotFoundError])
def test_they_end_in_one_red_line_and_status_one(error, monkeypatch, capsys):
    def fails():
        raise error("what was seen, what was expected, what to do")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert capsys.readouterr().err == "xinc: what was seen, what was expected, what to do\n"


def test_auto_takes_what_there_is():
    assert device_called("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_called("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu9", "meta"])
def test_what_cannot_be_used_is_said(name):
    with pytest.raises(UsageError, match=f"device '{name}' cannot be used here .*try --device cpu"):
        device_called(name)
