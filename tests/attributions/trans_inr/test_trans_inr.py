import copy

import numpy as np
import pytest
import torch

from xinc_captum import TokenContribution, inr
from xinc_captum.attributions.trans_inr import PatchTokens, TransINR
from xinc_captum.attributions.trans_inr.token_contribution import patch_masks
from xinc_captum.inr import HypoNet, pixel_centres


def close(a, b, tolerance):
    torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_every_step_equals_the_original_implementation(original, recorded):
    """Recorded from the released code: tokens, transformer, generated weights, and what the network draws."""
    image = recorded["image"]
    assert sum(p.numel() for p in original.parameters()) == recorded["num_params"]
    with torch.no_grad():
        tokens, seen = original.tokens(image)
        assert seen is None
        close(tokens, recorded["dtokens"], 1e-6)
        whole = torch.cat([tokens, original.writer.tokens.expand(2, -1, -1)], 1)
        close(whole, recorded["trans_in"], 1e-6)
        close(original.writer.encoder(whole), recorded["trans_out"], 1e-5)
        weights = original.weights(original.modulations(image))
        for i, (matrix, bias) in enumerate(zip(*weights, strict=True)):
            theirs = recorded[f"generated/wb{i}"]
            close(matrix.mT, theirs[:, :-1], 1e-6)
            close(bias.expand(2, -1), theirs[:, -1], 1e-6)
        shapes = [(matrix.shape[2] + 1, matrix.shape[1]) for matrix in weights.matrices]  # theirs have the bias below
        assert shapes == [tuple(shape) for shape in recorded["param_shapes"].tolist()]
        close(original.encoded((8, 8)).expand(2, -1, -1), recorded["hyponet/posenc"], 1e-5)
        close(original(image), recorded["hyponet/output"].permute(0, 3, 1, 2), 1e-5)
    assert original.writer.rows == tuple(int(b - a) for a, b in recorded["wtoken_ranges"])


def test_generated_networks_agree_with_the_model(original, recorded):
    inrs = original.generate(recorded["image"])
    where = pixel_centres((8, 8))
    for i, net in enumerate(inrs):
        assert type(net) is HypoNet
        drawn = net(where).reshape(8, 8, 1)
        close(drawn, recorded["hyponet/output"][i], 1e-5)
        for j in range(3):
            close(net[: 2 * j + 1](where), recorded[f"hyponet/layer_in{j}"][i], 1e-5)


def test_generated_networks_are_independent_modules(tiny, found, tmp_path):
    images = torch.rand(3, 3, 6, 6)
    before = found(tiny)
    first = tiny.generate(images)
    drawn = [net(pixel_centres((6, 6), dtype=torch.float64)) for net in first]
    second = tiny.generate(1 - images)
    where = pixel_centres((6, 6), dtype=torch.float64)
    for net, kept in zip(first, drawn, strict=True):
        assert torch.equal(net(where), kept), "a later call changes nothing"
    assert before.differences(tiny) == []
    pointers = [t.data_ptr() for net in (*first, *second) for t in net.state_dict().values()]
    pointers += [t.data_ptr() for t in tiny.state_dict().values()]
    assert len(set(pointers)) == len(pointers), "nothing is shared"
    optimizer = torch.optim.SGD(first[0].parameters(), 0.1)
    first[0](where).sum().backward()
    optimizer.step()
    assert not torch.equal(first[0](where), drawn[0]) and torch.equal(first[1](where), drawn[1])
    inr.save(first[1], tmp_path / "one.safetensors", size=(6, 6))
    again = inr.load(tmp_path / "one.safetensors")
    assert again.size == (6, 6) and torch.equal(again.model(where), drawn[1])
    assert torch.equal(copy.deepcopy(first[2])(where), drawn[2])


def test_many_images_are_processed_in_chunks(tiny, monkeypatch):
    images, seen = torch.rand(5, 3, 6, 6), torch.rand(5, 4) > 0.3
    seen[:, 0] = True
    whole = tiny.generate(images, seen)
    monkeypatch.setattr("xinc_captum.attributions.trans_inr.writer.WeightWriter.max_batch_size", lambda *_: 2)
    for a, b in zip(whole, tiny.generate(images, seen), strict=True):
        close(a.linear1.weight, b.linear1.weight, 1e-12)


def test_outputs_of_any_size(tiny):
    images = torch.rand(2, 3, 9, 12).double()
    with torch.no_grad():
        assert tiny(images).shape == (2, 3, 9, 12)
        assert tiny(images, size=(5, 7)).shape == (2, 3, 5, 7)
        net = tiny.generate(images)[1]
        drawn = net(pixel_centres((5, 7), dtype=torch.float64)).T.reshape(3, 5, 7)
        close(drawn, tiny(images, size=(5, 7))[1], 1e-12)


def test_masked_patches_have_no_effect(tiny):
    images = torch.rand(2, 3, 6, 6).double()
    seen = torch.tensor([[True, False, True, True], [True, True, True, True]])
    other = images.clone()
    other[0, :, :3, 3:] = 0.5
    with torch.no_grad():
        assert torch.equal(tiny(images, seen), tiny(other, seen))
        assert not torch.allclose(tiny(images)[0], tiny(images, seen)[0])
        close(tiny(images, seen)[1], tiny(images)[1], 1e-12)
        close(tiny(images, seen[0])[1], tiny(images[1:], seen[:1])[0], 1e-12)
        drawn = tiny(images, seen)
    for net, picture in zip(tiny.generate(images, seen), drawn, strict=True):
        close(net(pixel_centres((6, 6), dtype=torch.float64)).T.reshape(3, 6, 6), picture, 1e-12)


def test_groups_and_single_vector():
    images = torch.rand(2, 1, 8, 8)
    for groups, rows, tokens in (
        (1, (1, 1, 1), 3),
        (4, (4, 4, 1), 9),
        (16, (16, 16, 1), 33),
        ("vector", (16, 16, 1), 1),
    ):
        model = TransINR(hidden=16, groups=groups, seed=0)
        assert model.writer.rows == rows and len(model.writer.tokens) == tokens
        assert [x.shape for x in model.modulations(images)] == [(2, r, 16) for r in rows]
        assert model(images).shape == (2, 1, 8, 8)


def test_routing_is_attention_of_the_weight_tokens(tiny):
    images = torch.rand(2, 3, 6, 6)
    routing = tiny.routing(images)
    assert routing.to_patches.shape == (2, 1, 2, 9, 4) and routing.to_tokens.shape == (2, 1, 2, 9, 9)
    close(routing.to_patches.sum(-1) + routing.to_tokens.sum(-1), torch.ones(2, 1, 2, 9).double(), 1e-12)
    blind = tiny.routing(images, torch.tensor([True, False, True, True]))
    assert (blind.to_patches[..., 1] == 0).all() and (blind.to_patches[..., 0] > 0).all()


def test_seed_determines_weights_and_keeps_the_global_state():
    state = torch.get_rng_state()
    first, second, third = (TransINR(seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    for (name, a), b, c in zip(
        first.state_dict().items(), second.state_dict().values(), third.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
        if a.flatten().unique().numel() > 1 and "frequencies" not in name:
            assert not torch.equal(a, c), name


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"size": (8, 9)},
            r"an image of \(8, 9\) pixels with padding 0 does not tile into patches of 2 x 2; .*\(8, 8\)",
        ),
        ({"size": (178, 178), "patch": 9}, r"padding 0 does not tile .*such as \(180, 180\)"),
        (
            {"groups": 5},
            r"layer 'linear1' has 32 outputs, which 5 groups do not divide; choose groups among 1, 2, 4, 8",
        ),
        (
            {"channels": 3, "groups": 2},
            r"layer 'output' has 3 outputs, which 2 groups do not divide; .* 1, 3, or at le",
        ),
        ({"groups": 0}, r'groups is 0; expected a number of at least 1, or "vector"'),
        ({"heads": 5}, r"dim 48 is not divisible by heads 5"),
        ({"groups": True}, r"groups is True; expected a number of at least 1"),
        ({"depth": 0}, r"depth is 0; expected at least 1"),
        ({"hidden": 0}, r"hidden is 0; expected at least 1"),
        ({"channels": 0}, r"channels is 0; expected at least 1"),
        ({"size": 8}, r"size is 8; expected \(height, width\), for example \(8, 8\)"),
        ({"patch": 0}, r"patch is 0; expected a side in pixels, at least 1"),
        ({"padding": -1}, r"padding is -1; expected at least 0"),
        ({"layers": 0}, r"layers is 0; expected at least 1"),
        ({"count": -1}, r"count is -1"),
    ],
)
def test_invalid_settings_are_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        TransINR(**arguments)


def test_invalid_images_are_refused(tiny):
    with pytest.raises(ValueError, match=r"an image of \(6, 7\) pixels with padding 0 does not tile"):
        tiny.generate(torch.rand(2, 3, 6, 7))
    with pytest.raises(ValueError, match=r"images have shape \(2, 1, 6, 6\); expected \(N, 3, H, W\)"):
        tiny(torch.rand(2, 1, 6, 6).double())
    images = torch.rand(2, 3, 6, 6)
    images[1, 0, 0, 0] = float("nan")
    for call in (tiny.generate, tiny.routing):
        with pytest.raises(ValueError, match="images hold NaN or infinity"):
            call(images)
    with pytest.raises(ValueError, match="images hold NaN or infinity"):
        tiny.fit(images, steps=1)
    with pytest.raises(ValueError, match=r"seen is torch.bool of shape \(5,\); expected torch.bool of shape \(4,\) or"):
        tiny.generate(images.nan_to_num(), torch.ones(5, dtype=torch.bool))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    model = TransINR(seed=0).to(dtype)
    images = torch.rand(2, 1, 8, 8)
    assert model.generate(images)[0].output.weight.dtype == dtype
    assert model(images.to(dtype)).dtype == dtype


@pytest.mark.cuda
def test_on_a_gpu(tiny):
    images = torch.rand(2, 3, 6, 6).double()
    plain = tiny(images)
    there = copy.deepcopy(tiny).cuda()
    close(there(images.cuda()).cpu(), plain, 1e-9)
    assert there.generate(images)[0].output.weight.device.type == "cuda"


def test_oblong_patches_and_other_head_widths_are_explained_and_saved(tmp_path):
    model = TransINR(1, (6, 8), (3, 2), dim=10, heads=3, head_dim=4, hidden=4, groups=2, seed=0)
    images = torch.rand(2, 1, 6, 8)
    assert model.writer.encoder.blocks[0].attention.query.weight.shape == (12, 10)
    assert model.routing(images).to_patches.shape == (2, 2, 3, len(model.writer.tokens), 8)
    masks = patch_masks(model, (6, 8))
    assert masks.shape == (8, 6, 8) and torch.equal(masks.sum(0), torch.ones(6, 8)) and masks[0, :3, :2].sum() == 6
    parts = TokenContribution(model, "patch").attribute(images, n_steps=16)
    assert parts.shape[:2] == (2, 9)
    model.save(tmp_path / "model")
    again = TransINR.load(tmp_path / "model")
    assert again.config["patch"] == (3, 2) and again.config["head_dim"] == 4
    torch.testing.assert_close(again(images), model(images))


def test_head_dim_of_dim_over_heads_is_the_default():
    same = [TransINR(dim=12, heads=3, head_dim=width, seed=1).state_dict() for width in (None, 4)]
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in same), strict=True))


def test_parameters_must_be_finite():
    model, images = TransINR(seed=0), torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        model.writer.tokens[0, 0] = float("nan")
    calls = [
        lambda: model.generate(images),
        lambda: model.routing(images),
        lambda: model.fit(images, steps=1, validation=None, show_progress=False),
        *(lambda level=level: TokenContribution(model, level).attribute(images) for level in ("token", "modulation")),
        lambda: TokenContribution(model, "patch").attribute(images, n_steps=2),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"parameter writer.tokens of this TransINR holds NaN or infinite values"):
            call()


def plain(**arguments):
    """Weights of one and no bias: a token is the sum of its pixels (and of what is seen) plus its place."""
    tokens = PatchTokens(1, (4, 4), 2, 1, **arguments)
    with torch.no_grad():
        tokens.linear.weight.fill_(1.0)
        tokens.linear.bias.zero_()
        tokens.places.copy_(torch.tensor([[0.0, 100.0], [200.0, 300.0]])[None, None])
    return tokens


IMAGE = torch.arange(16.0).reshape(1, 1, 4, 4)


def test_tokens_equal_hand_computed_ones():
    """Patch sums 0+1+4+5 = 10, 18, 42, 50, and the places, row by row."""
    assert plain()(IMAGE)[0].flatten().tolist() == [10, 118, 242, 350]


def test_padding_is_zero():
    tokens = PatchTokens(1, (2, 2), 2, 1, padding=1)
    with torch.no_grad():
        tokens.linear.weight.fill_(1.0)
        tokens.linear.bias.zero_()
        tokens.places.zero_()
        assert tokens(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))[0].flatten().tolist() == [1, 2, 3, 4]


def test_position_embeddings_are_interpolated():
    """Bilinear between centres: 4 columns out of 2 at 0, 25, 75, 100 %."""
    tokens, _ = plain()(torch.zeros(1, 1, 4, 8))
    assert tokens.flatten().tolist() == [0, 25, 75, 100, 200, 225, 275, 300]


def test_masked_pixels_have_no_effect():
    tokens = plain(pixel_mask=True)
    seen = torch.ones(4, 4, dtype=torch.bool)
    assert tokens(IMAGE)[0].flatten().tolist() == [14, 122, 246, 354], "4 pixels seen in each"
    seen[0, :2] = False
    spoilt = IMAGE.clone()
    spoilt[0, 0, 0, 0] = float("nan")
    values, patches = tokens(spoilt, seen)
    assert values.flatten().tolist() == [11, 122, 246, 354] and patches.tolist() == [[True] * 4]
    seen[:2, :2] = False
    values, patches = tokens(spoilt, seen)
    assert patches.tolist() == [[False, True, True, True]] and values.isfinite().all()


def test_masked_patches_are_returned():
    seen = torch.tensor([True, False, True, True])
    _, patches = plain()(IMAGE.expand(2, -1, -1, -1), seen)
    assert patches.tolist() == [seen.tolist()] * 2


@pytest.mark.parametrize(
    ("mask", "seen", "text"),
    [
        (
            False,
            torch.ones(4),
            r"seen is torch.float32 of shape \(4,\); expected torch.bool of shape \(4,\) or \(1, 4\)",
        ),
        (
            False,
            torch.ones(4, 4, dtype=torch.bool),
            r"one for each of the patches; pixel_mask=True builds a model with",
        ),
        (
            True,
            torch.ones(4, dtype=torch.bool),
            r"expected torch.bool of shape \(4, 4\) or \(1, 4, 4\): one for each of the p",
        ),
    ],
)
def test_invalid_masks_are_refused(mask, seen, text):
    with pytest.raises(ValueError, match=text):
        plain(pixel_mask=mask)(IMAGE, seen)


def test_images_that_do_not_fit_are_refused():
    tokens = plain()
    with pytest.raises(ValueError, match=r"an image of \(4, 5\) pixels .* such as \(4, 4\): crop, pad or resize it"):
        tokens(torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match=r"images have shape \(1, 3, 4, 4\); expected \(N, 1, H, W\)"):
        tokens(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"images have shape \(1, 4, 4\)"):
        tokens(torch.zeros(1, 4, 4))


def test_oblong_patches_are_tokens():
    """Patches of 1 x 4 pixels are rows of the picture; of 4 x 2, halves."""
    tokens = PatchTokens(1, (4, 4), (1, 4), 1)
    halves = PatchTokens(1, (4, 4), (4, 2), 1)
    for one in (tokens, halves):
        with torch.no_grad():
            one.linear.weight.fill_(1.0)
            one.linear.bias.zero_()
            one.places.zero_()
    assert tokens(IMAGE)[0].flatten().tolist() == [6, 22, 38, 54]
    assert halves(IMAGE)[0].flatten().tolist() == [52, 68]
    assert tokens.grid((8, 12)) == (8, 3)
    with pytest.raises(
        ValueError, match=r"\(4, 6\) pixels .* does not tile into patches of 1 x 4; .* such as \(4, 8\)"
    ):
        tokens.grid((4, 6))


@pytest.mark.parametrize("patch", [0, (2,), (2, 2, 2), (0, 2), 2.0, "2", None])
def test_invalid_patches_are_refused(patch):
    with pytest.raises(ValueError, match="patch is .*; expected a side in pixels, at least 1, or .height, width."):
        PatchTokens(1, (4, 4), patch, 1)


def test_images_of_another_dtype_are_refused():
    with pytest.raises(
        ValueError, match=r"images are torch.float64 and the weights torch.float32; give images.to\(tor"
    ):
        plain()(IMAGE.double())
    assert plain().double()(IMAGE.double())[0].dtype == torch.float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain()(IMAGE.bfloat16())


def test_numpy_integers_are_sizes_counts_and_seeds(tmp_path):
    images, results = torch.rand(10, 1, 8, 8), []
    for whole in (int, np.int64):
        model = TransINR(size=(whole(8), 8), patch=whole(4), hidden=16, groups=whole(4), seed=whole(0))
        counts = {"steps": whole(2), "batch_size": whole(4), "seed": whole(1), "every": whole(1)}
        model.fit(images, **counts, checkpoint=tmp_path / whole.__name__, show_progress=False)
        model.save(tmp_path / "model.safetensors")
        results.append(TransINR.load(tmp_path / "model.safetensors")(images))
    assert torch.equal(*results)
    assert model.writer.layer_index(np.int64(-1)) == model.writer.layer_index(-1)
