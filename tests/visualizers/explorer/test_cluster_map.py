import torch

from xinc_captum.visualizers.explorer.cluster_map import nearest, places_of


def test_two_groups_stand_apart_and_the_first_direction_says_so():
    vectors = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 0, 1], [0, 0.1, 1]])
    places, spread = places_of(vectors)
    assert sorted(places[:2, 0].round().tolist() + places[2:, 0].round().tolist()) == [0, 0, 1, 1]
    assert places[0, 0].round() == places[1, 0].round() != places[2, 0].round()
    centred = (vectors - vectors.mean(0)).double()
    variances = torch.linalg.svdvals(centred).square()
    torch.testing.assert_close(spread, (variances / variances.sum())[:2].float())


def test_units_that_are_all_alike_stand_somewhere():
    places, spread = places_of(torch.ones(5, 4))
    assert bool(places.isfinite().all()) and spread.tolist() == [0, 0]


def test_the_order_of_units_does_not_matter(g):
    vectors = torch.rand(40, 9, generator=g)
    order = torch.randperm(40, generator=g)
    torch.testing.assert_close(places_of(vectors[order])[0], places_of(vectors)[0][order], atol=1e-4, rtol=0)


def test_nearest_by_direction_never_itself(g):
    vectors = torch.rand(1100, 6, generator=g)  # more than a piece
    found = nearest(vectors, 3)
    for unit in (0, 7, 1050):
        alike = torch.nn.functional.cosine_similarity(vectors[unit][None], vectors)
        alike[unit] = -2
        assert found[unit].tolist() == alike.topk(3).indices.tolist()
