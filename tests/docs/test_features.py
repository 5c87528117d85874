"""The page on features is true for DINOv2 too, where its weights are: its other blocks run with the other pages'."""

import re
from pathlib import Path

import pytest

from xinc_captum.zoo import AssetError, dinov2_vits14

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


def test_its_dinov2_block_runs_too():
    try:
        dinov2_vits14()
    except AssetError as error:
        pytest.skip(f"needs the weights of DINOv2: {error}")
    namespace = {}
    for kind, block in re.findall(r"```(python|py)\n(.*?)```", PAGE, re.S):
        exec(compile(block, "features.md", "exec"), namespace)
        if kind == "py":
            assert namespace["maps"].shape == (4, 1, 16, 16)
    assert namespace["net"].name == "dinov2_vits14"
    assert dict.fromkeys(namespace["found"].maps).keys() >= {"alike", "places", "centre blob"}
