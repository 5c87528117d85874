import csv
import json
import sys
from dataclasses import replace

import pytest
import torch

from xinc_captum.attributions.linking import LatentLink
from xinc_captum.attributions.linking.unit_tables import UnitTable, quantify, screen, shuffled_directions
from xinc_captum.attributions.linking.unit_tables.table import Discoveries

NAN = float("nan")


def table(null=True):
    change = torch.tensor([[[[1.0], [NAN]], [[3.0], [0.5]]], [[[-9.0], [2.0]], [[-1.0], [0.0]]]])
    return UnitTable(
        torch.tensor([4, 7]),
        (0, 5),
        ("ear", "tail"),
        ("area",),
        change,
        change.abs() / 2,
        torch.full(change.shape, 3, dtype=torch.int32),
        torch.ones(2, 2, 1),
        torch.zeros(1, 2, 2, 1) if null else None,
        {"reach": 0.5},
    )


def test_columns_over_classes():
    assert table().column("ear", "area").tolist() == [2, -5]
    assert table().column("ear", "area", classes=[5]).tolist() == [3, -1]
    assert table().column("tail", "area").tolist() == [0.5, 1], "the class that has no tail says nothing about it"
    assert table().strongest("ear", "area", 1).tolist() == [7]
    assert table().strongest("ear", "area", 9, classes=[5]).tolist() == [4, 7]


def test_long_form_in_a_file(tmp_path):
    table().save(tmp_path / "out")
    with (tmp_path / "out" / "units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2 + 4
    assert rows[0] == {
        "link": "fitted", "unit": "4", "class": "0", "part": "ear", "measure": "area", "change": "1.0", "sd": "0.5",
        "bases": "3", "base_value": "1.0",
    }  # fmt: skip
    assert rows[1]["change"] == "" and rows[-1]["link"] == "shuffled" and rows[-1]["sd"] == ""
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["reach"] == 0.5


def test_parquet_equals_csv(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table(null=False).save(tmp_path / "out", format="parquet")
    rows = parquet.read_table(tmp_path / "out" / "units.parquet").to_pylist()
    assert [r["change"] for r in rows] == [1, None, 3, 0.5, -9, 2, -1, 0]
    assert {r["class"] for r in rows} == {0, 5} and {r["part"] for r in rows} == {"ear", "tail"}


def test_without_pyarrow_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"Parquet needs pyarrow.*xinc-captum\[table\]"):
        table().save(tmp_path / "out", format="parquet")
    assert not (tmp_path / "out").exists()


def test_unknown_parts_measures_and_classes_raise(tmp_path):
    with pytest.raises(ValueError, match="part 'nose' is not in this table; it has ear, tail"):
        table().column("nose", "area")
    with pytest.raises(ValueError, match="measure 'red' is not in this table; it has area"):
        table().where("ear", "red")
    with pytest.raises(ValueError, match="class 3 is not in this table; it has 0, 5"):
        table().strongest("ear", "area", 1, classes=[3])
    with pytest.raises(ValueError, match="part 'sky' is not"):
        table().where("ear", "area", only=True, ignoring=["sky"])
    with pytest.raises(ValueError, match="this table has no null"):
        table(null=False).where("ear", "area")
    with pytest.raises(ValueError, match="format is 'xls'"):
        table().save(tmp_path / "out", format="xls")


def test_repr_of_a_table():
    values = torch.zeros(5, 1, 2, 1)
    parts, measures = ("eye", "mouth"), ("luminance",)
    bare = UnitTable(torch.arange(5), (None,), parts, measures, values, values, values.int(), values[0])
    words = "UnitTable(5 units, 1 classes, parts: eye, mouth; measures: luminance; "
    assert repr(bare) == f"{words}no null)" and repr(replace(bare, null=values[:3])) == f"{words}a null of 3 units)"


def test_where_returns_the_units_of_the_left_part(planted):
    g = torch.Generator().manual_seed(0)
    null = shuffled_directions(planted.representations, planted.latents, range(200), repeats=2, generator=g)
    table = quantify(
        planted.generator, planted.link, planted.latents[:3], parts=planted.parts, measures=["luminance"], null=null
    )
    result = table.where("left", "luminance", only=True)
    hits = torch.isin(result.units, planted.to_left).float()
    assert hits.mean() >= 0.9, "precision"
    assert hits.sum() >= 27, "recall"
    assert result.asked == 200 and (result.q <= 0.05).all() and (result.p >= 1 / 401).all()
    assert (result.strength.diff() <= 0).all() and (result.change > 0).float().mean() > 0.9
    assert not torch.isin(table.where("right", "luminance", only=True).units, planted.to_left).any()
    assert not len(table.where("left", "luminance", only=True, sign="down").units)


def test_where_does_not_return_shuffled_units(planted):
    """Units that say nothing about the latents: p-values are even, and few queries find any."""
    values, any_found = [], []
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        noise = torch.randn(600, 150, generator=g)
        latents = planted.latents[:600]
        null = shuffled_directions(noise, latents, range(150), repeats=4, generator=g)
        settings = {"parts": planted.parts, "measures": ["luminance"], "null": null}
        table = screen(planted.generator, LatentLink().fit(noise, latents), latents[:3], **settings)
        values.append(table.where("left", "luminance", fdr=1.0).p)
        any_found.append(float(len(table.where("left", "luminance", only=True, fdr=0.2).units) > 0))
    p = torch.cat(values)
    assert len(p) == 20 * 150
    for level in (0.02, 0.1, 0.5):
        assert (p <= level).double().mean().item() == pytest.approx(level, rel=0.3)
    assert sum(any_found) / 20 <= 0.4, "where nothing is true, a rate of .2 is the chance of any discovery"


def two_parts(change, null):
    change, null = change[:, None, :, None], null[:, None, :, None]
    blank = torch.zeros_like(change)
    return UnitTable(
        torch.arange(len(change)), (None,), ("one", "other"), ("m",), change, blank, blank.int(), blank[0], null
    )


def test_by_hand():
    null = torch.tensor([[1.0, 0.1], [-1.0, 0.1], [1.0, -0.1], [-1.0, -0.1]])
    table = two_parts(torch.tensor([[3.0, 0.0], [-2.0, 0.01], [3.0, 0.9], [0.5, 0.0]]), null)
    result = table.where("one", "m", only=True, fdr=0.5)
    assert result.units.tolist() == [0, 1, 3], "no unit of the null leaves the other part alone; unit 2 neither"
    assert result.strength.tolist() == [3, 2, 0.5]
    assert result.p.tolist() == [0.2] * 3 and result.q.tolist() == pytest.approx([4 * 0.2 / 3] * 3)
    assert table.where("one", "m", fdr=0.5).units.tolist() == [0, 2, 1]
    assert table.where("one", "m", sign="up", fdr=0.5).units.tolist() == [0, 2]
    assert table.where("one", "m", sign="down", fdr=1.0).units.tolist() == [1]


def test_invalid_arguments_raise():
    one = torch.ones(2, 2)
    with pytest.raises(ValueError, match="sign is 'left', leak 0.5 and fdr 0.05"):
        two_parts(one, one).where("one", "m", sign="left")
    with pytest.raises(ValueError, match="the null does not change this measure"):
        two_parts(one, one * 0).where("one", "m", sign="up")


def test_repr_of_discoveries():
    of = lambda n: Discoveries(torch.arange(n) + 3, *(torch.zeros(n) for _ in range(4)), asked=99)
    assert [repr(of(n)) for n in (0, 2)] == ["Discoveries(none of 99 units)", "Discoveries(2 of 99 units: 3, 4)"]
    assert repr(of(40)) == "Discoveries(40 of 99 units: 3, 4, 5, 6, 7, 8, 9, 10, …)"


def pairs(n=300):
    g = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 3, (n,), generator=g)
    w = torch.randn(n, 4, generator=g).double() + 5 * classes[:, None]
    r = w @ torch.randn(4, 6, generator=g).double()
    return r, w, classes


def test_each_direction_is_that_of_a_link_fitted_to_permuted_pairs():
    """Few pairs, so that the exchange can be found again among all."""
    from itertools import permutations

    r, w, _ = pairs(5)
    (result,) = shuffled_directions(r, w, [2], generator=torch.Generator().manual_seed(3))
    candidates = [LatentLink(ridge=1.0).fit(r, w[list(order)]).direction([2])[0] for order in permutations(range(5))]
    assert min((c - result).norm() for c in candidates) < 1e-9


def test_directions_within_classes_exclude_differences_of_classes():
    r, w, classes = pairs()
    g = torch.Generator().manual_seed(1)
    within = shuffled_directions(r, w, range(6), classes=classes, repeats=200, generator=g)
    assert within.shape == (1200, 4)
    residual_w = w - torch.stack([w[classes == c].mean(0) for c in range(3)])[classes]
    residual_r = r - torch.stack([r[classes == c].mean(0) for c in range(3)])[classes]
    square = residual_r.square().sum(0)
    for u in range(6):
        own = within.view(200, 6, 4)[:, u]
        expected = (
            sum(
                residual_r[classes == c, u].square().sum()
                * residual_w[classes == c].square().sum(0)
                / (int((classes == c).sum()) - 1)
                for c in range(3)
            )
            / square[u] ** 2
        )
        assert own.mean(0).abs().max() < 4 * (expected / 200).sqrt().max()
        torch.testing.assert_close(own.var(0), expected, rtol=0.45, atol=0)


def test_correlated_units_get_independent_directions():
    r, w, _ = pairs()
    twins = r[:, :1].expand(-1, 40)
    result = shuffled_directions(twins, w, range(40), generator=torch.Generator().manual_seed(2))
    others = torch.corrcoef(result[:, :2].T)
    assert others.shape == (2, 2) and torch.linalg.matrix_rank(result) == 4
    assert len(result.unique(dim=0)) == 40


def test_pairs_that_do_not_match_raise():
    r, w, classes = pairs(20)
    g = torch.Generator()
    with pytest.raises(ValueError, match="with 0 repeats"):
        shuffled_directions(r, w, [0], repeats=0, generator=g)
    with pytest.raises(ValueError, match=r"expected \(n, units\) and \(n, latent_dim\) of the same pairs"):
        shuffled_directions(r[:3], w, [0], generator=g)
    with pytest.raises(ValueError, match=r"classes have shape \(3,\) for 20 pairs"):
        shuffled_directions(r, w, [0], classes=classes[:3], generator=g)
    with pytest.raises(ValueError, match="unit 1 does not vary"):
        shuffled_directions(r * torch.tensor([1.0, 0, 1, 1, 1, 1]), w, [0, 1], generator=g)


def test_constant_units_raise():
    r, w, classes = pairs()
    for value in (0.1, -7.7, 1e6 / 3):
        r[:, 2] = value
        for labels in (None, classes):
            with pytest.raises(ValueError, match="unit 2 does not vary within classes; leave it out"):
                shuffled_directions(r, w, [1, 2], classes=labels, generator=torch.Generator())
    r[:, 2] = 1e-9 * r[:, 1] + 1  # small beside its mean, but no rounding
    shuffled_directions(r, w, [2], generator=torch.Generator())
