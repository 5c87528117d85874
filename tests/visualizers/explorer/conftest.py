"""Canvases with known contributions, a page of 10,000 neurons, and a browser."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from xinc_captum.visualizers.explorer import explore_canvases


@pytest.fixture(scope="session")
def three():
    """Canvases (3, 3, 4, 8): one brightens the left half, one darkens the right half, a weak one brightens all pixels."""
    maps = torch.zeros(3, 3, 4, 8)
    maps[0, :, :, :4] = 0.5
    maps[1, :, :, 4:] = -0.25
    maps[2] = 0.1
    return maps


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A page of 10,000 neurons at 64 x 64, smooth maps of noise, and the maps."""
    generator = torch.Generator().manual_seed(0)
    seeds = torch.randn(1_000, 1, 12, 12, generator=generator)
    maps = F.interpolate(seeds * seeds.abs(), size=(64, 64), mode="bilinear").half().repeat(10, 1, 1, 1)
    maps *= torch.linspace(1, 0.5, 10_000, dtype=torch.float16)[:, None, None, None]  # no two alike
    photo = F.interpolate(torch.rand(1, 3, 16, 16, generator=generator), size=(64, 64), mode="bilinear")[0]
    path = tmp_path_factory.mktemp("large") / "large.html"
    return explore_canvases(path, photo, {"h1": maps}, title="Ten thousand"), maps


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium, started with Playwright."""
    where = shutil.which("chromium")
    if where is None:
        pytest.skip("no chromium; install it: apt-get install -y chromium")
    reason = "no playwright; install it: pip install 'xinc-captum[browser]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=where, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open a page from disk; after the test, check that it logged nothing and requested nothing."""
    contexts, messages, requests = [], [], []

    def open_page(path, **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 900}} | options))
        contexts[-1].set_offline(True)
        page = contexts[-1].new_page()
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(path.resolve().as_uri())
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert messages == []
    assert len(requests) == len(contexts) and all(url.startswith("file:") for url in requests), requests
