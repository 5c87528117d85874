import importlib

import pytest

from xinc_captum.cli.errors import FAILURES, UsageError, error_text
from xinc_captum.hooks import LayerError
from xinc_captum.images import PhotoError
from xinc_captum.store import StoreError

entry = importlib.import_module("xinc_captum.cli.main")  # the package names its function main too


def test_errors_of_the_user_are_listed():
    assert {UsageError, LayerError, PhotoError, StoreError, FileNotFoundError} <= set(FAILURES)
    assert issubclass(UsageError, ValueError)


@pytest.mark.parametrize("error", [ValueError, TypeError, RuntimeError, KeyError, OSError, MemoryError])
def test_bugs_keep_their_traceback(error):
    assert not issubclass(error, FAILURES)


def test_errors_of_the_operating_system_name_the_file():
    assert error_text(PermissionError(13, "Permission denied", "photo.png")) == "photo.png: Permission denied"
    assert error_text(OSError(36, "File name too long")) == "File name too long"
    assert error_text(OSError("no number: raised by a library")) is None
    assert error_text(RuntimeError("own mistake")) is None
    assert error_text(UsageError("first line\nsecond")) == "first line second"


def test_a_bug_of_the_package_keeps_its_traceback(monkeypatch):
    def fails():
        raise OSError("no number")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(OSError, match="no number"):
        entry.main()


@pytest.mark.parametrize("error", [FAILURES[0], FileNotFoundError])
def test_errors_are_one_red_line_and_status_one(error, monkeypatch, capsys):
    def fails():
        raise error("what was seen, what was expected, what to do")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert capsys.readouterr().err == "xinc: what was seen, what was expected, what to do\n"
