"""Arguments are sliced with the inputs by the model's output, not by coincident shapes."""

import copy

import pytest
import torch
from torch import nn

from xinc_captum.batch import Args, Batch, chunks, one_score_a_row, select_output, settle_arguments


def test_rows_are_cut_taken_and_repeated_together():
    x, along, other = torch.arange(5.0)[:, None], torch.arange(5) * 10, torch.ones(3)
    batch = Batch.of((x, x + 1), (along, other, "word"), [0, 1, 2, 3, 4])
    part = batch.cut(1, 3)
    assert part.inputs[0].flatten().tolist() == [1, 2]
    assert part.inputs[1].flatten().tolist() == [2, 3]
    assert part.args[0].tolist() == [10, 20]
    assert part.args[1] is other
    assert part.args[2] == "word"
    assert part.target == [1, 2]
    assert (part.rows, part.start) == (2, 1)
    assert part.repeat(2).inputs[0].flatten().tolist() == [1, 2, 1, 2]
    assert part.repeat(2).target == [1, 2, 1, 2]
    assert batch.take(torch.tensor([4, 0])).args[0].tolist() == [40, 0]
    assert Batch.of(x, None, torch.arange(5)).cut(3, 5).target.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("inputs", "error", "text"),
    [
        ([torch.ones(2)], TypeError, r"inputs are \(list\); expected a tensor or a tuple"),
        ((torch.ones(2), torch.ones(3)), ValueError, r"inputs have \[2, 3\] rows"),
        (torch.ones(0, 2), ValueError, r"inputs have shape \(0, 2\): no rows to explain"),
        (torch.tensor(1.0), ValueError, "no rows to explain"),
    ],
)
def test_wrong_inputs(inputs, error, text):
    with pytest.raises(error, match=text):
        Batch.of(inputs)


def test_chunks_cover_everything_once():
    assert chunks(7, 3) == [(0, 3), (3, 6), (6, 7)]
    assert chunks(2, 0) == [(0, 1), (1, 2)]


def batch(target=None, rows=2):
    return Batch.of(torch.zeros(rows, 1), None, target)


@pytest.mark.parametrize(
    ("output", "target", "error", "text"),
    [
        (
            {"rgb": torch.zeros(3), "a": 1},
            None,
            TypeError,
            r"returned a dict with \['rgb'\] \(3,\), \['a'\] int; expected",
        ),
        ((torch.zeros(2), torch.zeros(2)), None, TypeError, r"this tuple has 2. Choose .*=lambda output: output\[0\]."),
        (torch.zeros(3, 2), None, ValueError, r"returned shape \(3, 2\) for 2 input rows"),
        (torch.tensor(0.0), None, ValueError, r"returned shape \(\)"),
        (torch.zeros(2, 3), 3, ValueError, r"target 3 does not fit the output's shape \(2, 3\)"),
        (torch.zeros(2, 3), (0, 0), ValueError, r"target \(0, 0\) does not fit"),
        (torch.zeros(2, 3), [0, 1, 2], ValueError, r"target \[0, 1, 2\] does not fit"),
        (torch.zeros(2, 3), torch.zeros(4, dtype=torch.long), ValueError, r"target of shape \(4,\) does not fit"),
        (torch.zeros(2, 3), "cat", ValueError, "target 'cat' does not fit"),
    ],
)
def test_outputs_and_targets_that_do_not_fit(output, target, error, text):
    with pytest.raises(error, match=text):
        select_output(output, batch(target), None)


def test_output_fn_picks():
    assert select_output({"y": torch.ones(2, 3)}, batch(1), lambda o: o["y"]).shape == (2,)


def test_an_output_with_one_column_is_one_score_per_sample():
    assert one_score_a_row(torch.zeros(2, 1)).shape == (2,)
    with pytest.raises(ValueError, match=r"target is missing or incomplete: the output still has shape \(2, 3\)"):
        one_score_a_row(torch.zeros(2, 3))


ROWS = 4
X = torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(0))
OTHER = torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 0, 2, 1])
TABLE = torch.rand(3, 3, generator=torch.Generator().manual_seed(2))
WEIGHT = torch.rand(ROWS, 2, generator=torch.Generator().manual_seed(3))


def one_by_one(x, other):
    return torch.stack([x[i] * other[i].sum() for i in range(len(x))])


def needs_all(x, adjacency):
    return x @ adjacency.reshape(ROWS, ROWS)[:3]


CASES = {
    # one entry for each sample
    "multiplied": (lambda x, a: x * a, OTHER, True),
    "appended": (lambda x, a: torch.cat([x, a], 1), OTHER, True),
    "labels": (lambda x, a: x + TABLE[a], LABELS, True),
    "entry by entry": (one_by_one, OTHER, True),
    "one number each": (lambda x, a: x * a[:, None], OTHER[:, 0], True),
    "in a dict": (lambda x, a: {"y": x * a, "loss": a.sum()}, OTHER, True),
    # shared by all samples
    "class embeddings": (lambda x, a: x @ a.T, OTHER, False),
    "mean": (lambda x, a: x * a.mean(0), OTHER, False),
    "maximum": (lambda x, a: x * a.amax(0), OTHER, False),
    "the first entry": (lambda x, a: x + a[0], OTHER, False),
    "the last entry": (lambda x, a: x + a[-1], OTHER, False),
    "a certain entry": (lambda x, a: x + a[3], OTHER, False),
    "weight": (lambda x, a: torch.cat([x, x[:, :1]], 1) @ a, WEIGHT, False),
    "adjacency": (needs_all, torch.rand(ROWS, ROWS, generator=torch.Generator().manual_seed(4)), False),
    "one number for each class": (lambda x, a: (x @ torch.ones(3, ROWS)) * a, OTHER[:, 0], False),
}


@pytest.mark.parametrize("name", CASES)
def test_aligned_and_shared_arguments_are_distinguished(name):
    model, argument, aligned = CASES[name]
    found = settle_arguments(Batch.of(X, argument), lambda some: model(*some.inputs, *some.args))
    assert found.args.aligned == ({0} if aligned else set())
    whole = model(X, argument)
    for start, stop in ((0, 1), (1, 3), (3, 4)):
        part = found.cut(start, stop)
        got = model(*part.inputs, *part.args)
        got, expected = (y["y"] if isinstance(y, dict) else y for y in (got, whole))
        torch.testing.assert_close(got, expected[start:stop])
        twice = part.repeat(2)
        got = model(*twice.inputs, *twice.args)
        got = got["y"] if isinstance(got, dict) else got
        torch.testing.assert_close(got, expected[start:stop].repeat(2, 1))


def test_several_arguments_are_distinguished():
    def model(x, scale, bank, word, label):
        return (x * scale) @ bank.T + label[:, None]

    args = (OTHER, OTHER.flip(0), "word", LABELS)
    found = settle_arguments(Batch.of(X, args), lambda some: model(*some.inputs, *some.args))
    assert found.args.aligned == {0, 3}
    part = found.cut(1, 3)
    torch.testing.assert_close(model(*part.inputs, *part.args), model(X, *args)[1:3])


def test_one_sample_with_an_argument_of_one_row():
    bank = settle_arguments(Batch.of(X[:1], OTHER[:1]), lambda some: some.inputs[0] @ some.args[0].T)
    assert bank.args.aligned == set() and bank.repeat(3).args[0].shape == (1, 3)
    joined = settle_arguments(Batch.of(X[:1], OTHER[:1]), lambda some: torch.cat([some.inputs[0], some.args[0]], 1))
    assert joined.args.aligned == {0} and joined.repeat(3).args[0].shape == (3, 3)
    number = settle_arguments(Batch.of(X[:1], torch.tensor([2.0])), lambda some: some.inputs[0] * some.args[0])
    assert number.repeat(2).args[0].shape == (1,)


def test_an_argument_that_is_not_used_does_no_harm():
    found = settle_arguments(Batch.of(X, OTHER), lambda some: some.inputs[0] * 2)
    assert found.cut(0, 2).rows == 2


def test_dropout_and_batch_statistics_do_not_hide_the_shape():
    noisy = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.BatchNorm1d(1), nn.Dropout(0.5), nn.Flatten())
    for net in (noisy, nn.Dropout(0.5)):
        each = settle_arguments(Batch.of(X, OTHER), lambda some, net=net: net(some.inputs[0]) * some.args[0])
        bank = settle_arguments(Batch.of(X, OTHER), lambda some, net=net: net(some.inputs[0]) @ some.args[0].T)
        assert (each.args.aligned, bank.args.aligned) == ({0}, set())


def test_inseparable_arguments_raise_errors_when_the_batch_is_sliced():
    def model(x, adjacency):
        return (adjacency @ x).reshape(ROWS, 3)

    found = settle_arguments(Batch.of(X, torch.eye(ROWS)), lambda some: model(*some.inputs, *some.args))
    assert found.cut(0, ROWS) is found  # the whole batch is what the user asked for
    for cut in (lambda: found.cut(0, 2), lambda: found.repeat(2), lambda: found.take(torch.tensor([1]))):
        with pytest.raises(
            ValueError, match=r"as many rows as the 4 inputs \(0: \(4, 4\)\).*lambda x: model\(x, shared\)"
        ):
            cut()


def test_the_model_does_not_run_without_need():
    def refuse(_):
        raise AssertionError("the model ran")

    for args in (None, (OTHER[:3], "word", 2.0), ({"bank": OTHER},)):
        batch = Batch.of(X, args)
        assert settle_arguments(batch, refuse) is batch
    known = settle_arguments(Batch.of(X, OTHER), lambda some: some.inputs[0] * some.args[0])
    assert settle_arguments(known, refuse) is known
    assert settle_arguments(known.cut(1, 3), refuse).args.aligned == {0}
    assert settle_arguments(Batch.of(X[:2], known.cut(1, 3).args), refuse).args.aligned == {0}


def test_a_chunk_with_a_coincident_number_of_rows_slices_nothing_else():
    bank = torch.rand(3, 5)
    part = Batch.of(X, bank).cut(0, 3)  # three of four samples, three classes
    assert part.repeat(2).args[0] is bank and part.cut(0, 1).args[0] is bank
    again = Batch.of(part.inputs, part.args)
    assert again.repeat(2).args[0] is bank


def test_marked_arguments_are_a_tuple():
    args = Args(("a", 1), (1,), True)
    assert args == ("a", 1) and copy.deepcopy(args).aligned == {1} and copy.deepcopy(args).known


def test_out_of_memory_errors_are_raised():
    def run(_):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        settle_arguments(Batch.of(X, OTHER), run)
