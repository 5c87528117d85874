import os
import threading
import time

import pytest

from xinc_captum.hooks import exclusive


def started(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_blocks_of_several_threads_run_one_after_the_other():
    inside, most = [], []

    def work():
        for _ in range(20):
            with exclusive(), exclusive():  # re-entrant
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0002)
                inside.pop()

    threads = [started(work) for _ in range(4)]
    for thread in threads:
        thread.join(20)
    assert len(most) == 80 and max(most) == 1


def test_an_exception_gives_the_lock_back():
    with pytest.raises(KeyError), exclusive():
        raise KeyError
    ran = []

    def work():
        with exclusive():
            ran.append(1)

    started(work).join(10)
    assert ran == [1]


def test_a_thread_that_wants_it_again_at_once_queues_behind_the_others():
    """A fit gives the lock back after each of its steps; whoever waits for it must come in between."""
    done, begun = threading.Event(), threading.Event()
    turns = []

    def fit():
        while not done.is_set():
            with exclusive():
                begun.set()
                turns.append(1)
                time.sleep(0.005)

    worker = started(fit)
    begun.wait(10)
    before = len(turns)
    with exclusive():
        waited = len(turns) - before
    done.set()
    worker.join(10)
    assert waited <= 3


def test_as_a_decorator():
    @exclusive()
    def add(a, b):
        """Add."""
        return a + b

    assert add(1, 2) == 3 and add.__doc__ == "Add."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("own", [False, True])
def test_a_forked_child_is_not_locked_out(own):
    """Worker processes of a DataLoader are forked, perhaps while another thread explains."""
    held, go_on = threading.Event(), threading.Event()

    def hold():
        with exclusive():
            held.set()
            go_on.wait(20)

    def in_child():
        child = os.fork()
        if not child:
            threading.Thread(target=lambda: (time.sleep(5), os._exit(1)), daemon=True).start()
            with exclusive():
                os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    if own:
        with exclusive():
            assert in_child() == 0
    else:
        thread = started(hold)
        held.wait(10)
        try:
            assert in_child() == 0
        finally:
            go_on.set()
            thread.join(10)
