import math

from xinc_captum.cli.manifests import differences


def test_what_is_about_the_run_does_not_count():
    before = {"command": ["a"], "versions": {}, "outputs": {"x": "1"}, "call": {"out": "a"}, "seed": 0}
    after = {"command": ["b"], "versions": {"y": 1}, "outputs": {"x": "2"}, "call": {"out": "b"}, "seed": 0}
    assert list(differences(before, after)) == []
    assert list(differences({"at": {"call": 1}}, {"at": {"call": 2}})) == ["at.call: 1 then, 2 now"], "only at the top"


def test_where_an_input_lies_does_not_count():
    before = {"link": {"folder": "out/link", "trust": "holds"}}
    assert list(differences(before, {"link": {"folder": "/there/link", "trust": "holds"}})) == []
    assert list(differences(before, {"link": {"folder": "/there/link", "trust": "fails"}})) == [
        "link.trust: 'holds' then, 'fails' now"
    ]


def test_numbers_within_a_tolerance():
    before, after = {"rho": 0.5, "units": 3, "sum": 2000.0}, {"rho": 0.50004, "units": 4, "sum": 2000.1}
    assert list(differences(before, after, tolerance=1e-4)) == ["units: 3 then, 4 now"]
    assert len(list(differences(before, after, tolerance=1e-6))) == 3
    one, other = {"sha256": "0" * 64}, {"sha256": "a" * 64}
    assert list(differences(one, other, tolerance=1e-4)) == [] and len(list(differences(one, other))) == 1


def test_where_it_differs():
    before = {"layers": [{"rho": 0.5, "verdict": "holds"}, {"rho": math.nan}], "gone": 1}
    after = {"layers": [{"rho": 0.5, "verdict": "weak"}, {"rho": math.nan}], "new": [2]}
    assert list(differences(before, after)) == [
        "layers[0].verdict: 'holds' then, 'weak' now", "gone: 1 then, None now", "new: None then, [2] now"
    ]  # fmt: skip
    assert list(differences({"units": [1]}, {"units": [1, 2]})) == ["units: [1] then, [1, 2] now"]
