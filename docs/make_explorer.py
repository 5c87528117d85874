"""Make the figure of the explorer in docs/command_line.md: a fitted photo of a cat with one neuron selected."""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from xinc_captum.zoo import photo

HERE = Path(__file__).parent / "pictures"
EYE = (0.37, 0.37)  # share of the image's width and height
CLIP = {"x": 0, "y": 0, "width": 1180, "height": 790}


def main() -> None:
    """Fit the photo, open its page, select the neuron that contributes most at the eye, and take a screenshot."""
    with tempfile.TemporaryDirectory() as place:
        file, out = Path(place) / "chelsea.png", Path(place) / "cat"
        cat = (photo("chelsea").image.permute(1, 2, 0) * 255).round().byte().numpy()
        Image.fromarray(cat).save(file)
        for words in (["canvas", file, "--out", out, "--steps", "600"], ["explore", out]):
            subprocess.run([sys.executable, "-m", "xinc_captum.cli", *map(str, words)], check=True)
        with sync_playwright() as started:
            browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light")
            page.goto(out.with_suffix(".html").as_uri())
            page.wait_for_selector("html[data-ready]")
            page.click("[data-layer='1']")
            page.wait_for_selector("[data-layer='1'][aria-pressed='true']")
            box = page.locator("#picture").bounding_box()
            page.mouse.click(box["x"] + EYE[0] * box["width"], box["y"] + EYE[1] * box["height"])
            page.locator("#pixel", has_text="fixed").wait_for()
            page.locator("#top button").first.click()
            page.wait_for_selector("#unit:not([hidden])")
            taken = page.screenshot(clip=CLIP)
            browser.close()
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    few = picture.quantize(
        256, Image.Quantize.MAXCOVERAGE, kmeans=2
    )  # the default method loses the green of the verdict
    few.save(HERE / "explorer.png", optimize=True)


if __name__ == "__main__":
    main()
