import importlib

import pytest

from xinc_captum.cli.failures import FAILURES, UsageError
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


@pytest.mark.parametrize("error", [FAILURES[0], FileNotFoundError])
def test_they_end_in_one_red_line_and_status_one(error, monkeypatch, capsys):
    def fails():
        raise error("what was seen, what was wanted, what to do")

    monkeypatch.setattr(entry, "app", fails)
    with pytest.raises(SystemExit, match="1"):
        entry.main()
    assert capsys.readouterr().err == "xinc: what was seen, what was wanted, what to do\n"
