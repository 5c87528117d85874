"""The DINOv2 block of docs/features.md runs where the weights are installed. test_pages.py runs its other blocks."""

import re
from pathlib import Path

import pytest

from xinc_captum.zoo import AssetError, dinov2_vits14

PAGE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


def test_dinov2_block_runs():
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
    assert dict.fromkeys(namespace["comparison"].maps).keys() >= {"attribute", "places", "centre blob"}
