"""Models in two processes: supported calls equal a single process, and refused calls raise on all ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hooks.two_processes import CALLS, SHARDS_ON_CPU, WHOLE_WEIGHTS
from torch import nn

from xinc_captum.hooks import is_sharded, no_synchronization, refuse_sharded

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="torch was built without gloo",
)


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What each rank found, by kind; both kinds in one run, because a process takes seconds to begin."""
    folder, script = tmp_path_factory.mktemp("ranks"), Path(__file__).with_name("two_processes.py")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen([sys.executable, script, str(rank), folder], env=environment, **pipes) for rank in (0, 1)]
    try:
        errors = [rank.communicate(timeout=120)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(errors)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


SHARDED = pytest.param(
    "fsdp", marks=pytest.mark.skipif(not SHARDS_ON_CPU, reason="fully_shard has no CPU streams here")
)


@pytest.fixture(params=["ddp", SHARDED])
def ran(request, processes):
    """The kind, and what each rank found."""
    return request.param, [rank[request.param] for rank in processes]


def test_supported_calls_equal_a_single_process(ran):
    kind, found = ran
    for rank in found if kind == "fsdp" else found[:1]:
        for name in [*CALLS, *(WHOLE_WEIGHTS if kind == "ddp" else [])]:
            assert rank[name] <= 1e-6, (name, rank[name])


def test_calls_that_need_full_weights_are_refused_on_every_rank_of_a_sharded_model(ran):
    kind, found = ran
    if kind == "ddp":
        assert all(name not in found[1] for name in WHOLE_WEIGHTS), "only rank 0 explained, and did not wait for rank 1"
        return
    for rank in found:
        for name in WHOLE_WEIGHTS:
            assert rank[name].startswith("the model is sharded (torch.distributed.fsdp), and "), (name, rank[name])
            assert (
                "needs whole weights in each process. Load the full state dict into a model that is not" in rank[name]
            )


def test_training_continues_as_without_explanations(ran):
    kind, found = ran
    for rank in found:
        assert rank["training"][0] == pytest.approx(rank["training"][1], abs=1e-6)
        if kind == "ddp":
            assert rank["between two steps"][0] == pytest.approx(rank["between two steps"][1], abs=1e-6)
            assert rank["flags"] == [True, True]
        else:
            assert rank["after training"] <= 1e-6
    assert found[0]["training"][0] != found[1]["training"][0], "ranks see different images"


def test_a_model_of_one_process_is_not_sharded():
    model = nn.Linear(2, 1)
    assert not is_sharded([model])
    refuse_sharded([model], "a canvas")
    with no_synchronization(lambda x: model(x), model):
        assert not hasattr(model, "require_backward_grad_sync")
