"""Mark the tests that measurement found slow, leave them out on request, and keep the list true.

``tests/slow.txt`` holds node ids, one a line: a whole test function, or one case of it with its id in brackets.
``pytest -m "not slow"`` leaves those tests out (``make test``). ``pytest --write-slow`` runs everything and writes the list
again (``make slow``), in which skipped tests keep their entry; ``pytest --check-slow`` prints each test that is not in the
list and takes longer than ``LIMIT`` (``make test-all``). It does not fail: on a loaded machine, or the first to import a
library, a test may take many times its usual CPU time.

The cost of a test is the CPU time of this process and of the processes that it started, because the wall time depends on
what else the machine does. It includes the cost of every fixture the test uses whose scope is wider than the test: the test
would have to pay for it if it ran alone.
"""

import collections
import os
import time
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("slow.txt")
MARKED = 0.25  # CPU seconds: tests above are written into the list
LIMIT = 2.0  # CPU seconds: a test above that is not in the list is reported


def cpu():
    """CPU seconds of this process and of all finished processes that it started."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def entries():
    """The lines of the list."""
    return set(LIST.read_text(encoding="utf-8").split("\n")) - {""} if LIST.is_file() else set()


def function_of(nodeid):
    return nodeid.split("[")[0]


def is_listed(nodeid, listed):
    return nodeid in listed or function_of(nodeid) in listed


def lines(costs):
    """The list for these costs {node id: CPU seconds}: one line where all cases of a function are slow."""
    cases = collections.defaultdict(list)
    for nodeid in costs:
        cases[function_of(nodeid)].append(nodeid)
    result = []
    for function, nodeids in sorted(cases.items()):
        slow = [nodeid for nodeid in nodeids if costs[nodeid] > MARKED]
        result += [function] if len(slow) == len(nodeids) else sorted(slow)
    return result


class Slow:
    """Pytest plugin: marks, measures and reports. With pytest-xdist each worker measures and the main process reports."""

    def __init__(self, config):
        self.config = config
        self.listed = entries()
        self.fixtures = {}  # of wider scope than a test: its definition -> CPU seconds
        self.nested = [0.0]  # CPU seconds of fixtures that were set up inside the one that is being set up
        self.costs = {}
        self.left_out = 0
        self.skipped = set()
        self.is_worker = hasattr(config, "workerinput")

    @pytest.hookimpl(tryfirst=True)  # before -m chooses
    def pytest_collection_modifyitems(self, items):
        for item in items:
            if is_listed(item.nodeid, self.listed):
                item.add_marker(pytest.mark.slow)

    def pytest_deselected(self, items):
        self.left_out += sum("slow" in item.keywords for item in items)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef):
        begun = cpu()
        self.nested.append(0.0)
        try:
            return (yield)
        finally:
            spent = cpu() - begun
            inner = self.nested.pop()
            if fixturedef.scope != "function":
                self.fixtures[fixturedef] = max(spent - inner, self.fixtures.get(fixturedef, 0.0))
                self.nested[-1] += spent
            else:
                self.nested[-1] += inner

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item):
        begun = cpu()
        self.nested[:] = [0.0]
        result = yield
        definitions = getattr(item, "_fixtureinfo", None)
        shared = definitions.name2fixturedefs.values() if definitions else ()
        wide = sum(self.fixtures.get(one, 0.0) for group in shared for one in group[-1:])
        self.costs[item.nodeid] = cpu() - begun - self.nested[0] + wide
        return result

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.skipped.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session):
        if self.is_worker:
            self.config.workeroutput["slow"] = (self.costs, self.left_out)
            return
        if self.config.getoption("--write-slow"):
            kept = {one: float("inf") for one in self.skipped if is_listed(one, self.listed)}
            LIST.write_text("\n".join(lines(self.costs | kept)) + "\n", encoding="utf-8")

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node):
        costs, left_out = getattr(node, "workeroutput", {}).get("slow", ({}, 0))
        self.costs |= costs
        self.left_out = max(self.left_out, left_out)  # every worker collects, and leaves out, the same tests

    def too_slow(self):
        """Tests above the limit that are not in the list, slowest first."""
        unlisted = {nodeid: cost for nodeid, cost in self.costs.items() if not is_listed(nodeid, self.listed)}
        return sorted((nodeid for nodeid, cost in unlisted.items() if cost > LIMIT), key=lambda one: -unlisted[one])

    def pytest_terminal_summary(self, terminalreporter):
        if self.left_out:
            terminalreporter.write_line(f"{self.left_out} slow tests were left out; make test-all runs them too")
        if self.config.getoption("--check-slow"):
            for nodeid in self.too_slow():
                terminalreporter.write_line(
                    f"slow: {nodeid} took {self.costs[nodeid]:.1f} CPU seconds and is not in tests/slow.txt; if it does so "
                    f"again, make it faster or run make slow"
                )
