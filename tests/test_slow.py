"""The list of slow tests: what is written, what it names, and that a new slow test is reported."""

import subprocess
import sys
from pathlib import Path

import slow

CONFTEST = f"""
import sys
sys.path.insert(0, {str(Path(slow.__file__).parent)!r})
import slow
from pathlib import Path
slow.LIST, slow.MARKED, slow.LIMIT = Path(__file__).with_name("slow.txt"), 0.2, 0.2

def pytest_addoption(parser):
    parser.addoption("--write-slow", action="store_true")
    parser.addoption("--check-slow", action="store_true")

def pytest_configure(config):
    config.addinivalue_line("markers", "slow: listed")
    config.pluginmanager.register(slow.Slow(config))
"""
TESTS = """
import time
import pytest

def burn():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass

@pytest.fixture(scope="module")
def dear():
    burn()

def test_cheap():
    pass

@pytest.mark.parametrize("long", [False, True])
def test_case(long):
    burn() if long else None

@pytest.mark.skip(reason="not here")
def test_skipped():
    pass

def test_first_with_fixture(dear):
    pass

def test_second_with_fixture(dear):
    pass
"""


def pytest_in(folder, *options):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), *options]
    return subprocess.run([*command, str(folder)], capture_output=True, text=True, cwd=folder, check=False)


def test_functions_whose_cases_are_all_slow_are_one_line():
    costs = {
        "a.py::test_x[1]": 0.9,
        "a.py::test_x[2]": 0.7,
        "a.py::test_y[1]": 0.9,
        "a.py::test_y[2]": 0.1,
        "a.py::test_z": 0.1,
    }
    assert slow.lines(costs) == ["a.py::test_x", "a.py::test_y[1]"]


def test_the_list_is_written_left_out_and_checked(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)
    unlisted = pytest_in(tmp_path, "--check-slow")
    assert unlisted.returncode == 0  # a report: CPU time depends on the machine
    assert "slow: test_it.py::test_case[True] took 0." in unlisted.stdout and "test_cheap" not in unlisted.stdout
    (tmp_path / "slow.txt").write_text("test_it.py::test_skipped\ntest_it.py::test_cheap\n")
    assert pytest_in(tmp_path, "--write-slow").returncode == 0
    # whoever uses the fixture pays for it, because it would have to pay for it alone
    names = ["test_case[True]", "test_first_with_fixture", "test_second_with_fixture", "test_skipped"]
    assert (tmp_path / "slow.txt").read_text().split() == [f"test_it.py::{name}" for name in names]
    assert "slow:" not in pytest_in(tmp_path, "--check-slow").stdout
    fast = pytest_in(tmp_path, "-m", "not slow")
    assert "4 slow tests were left out; make test-all runs them too" in fast.stdout
    assert "2 passed, 4 deselected" in fast.stdout


def test_every_line_of_the_list_names_a_test(request):
    """Of the files that are part of this run; a stale line would hide that a test was renamed."""
    nodeids = {item.nodeid for item in request.session.items}
    names = nodeids | {slow.function_of(nodeid) for nodeid in nodeids}
    files = {nodeid.split("::")[0] for nodeid in nodeids}
    complete = request.config.args == request.config.getini("testpaths") and not request.config.option.markexpr
    stale = [line for line in slow.entries() if line.split("::")[0] in files and line not in names] if complete else []
    assert not stale, f"tests/slow.txt names tests that do not exist; run make slow: {stale}"
    missing = {line.split("::")[0] for line in slow.entries()}
    assert all((request.config.rootpath / file).is_file() for file in missing)
