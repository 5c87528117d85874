import subprocess
import sys

import pytest
from typer.testing import CliRunner

import xinc_captum
from xinc_captum.cli.main import app


def test_version():
    assert CliRunner().invoke(app, ["--version"]).output.strip() == f"xinc-captum {xinc_captum.__version__}"


@pytest.mark.parametrize("words", [["--help"], ["canvas", "--help"], ["demo", "--help"]])
def test_help_says_what_it_does(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_foreseeable_failures_are_one_line_and_status_one(tmp_path):
    command = [sys.executable, "-c", "from xinc_captum.cli import main; main()", "canvas"]
    done = subprocess.run(
        [*command, str(tmp_path / "none.png"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("xinc: ") and "is not a file; wanted a photo" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
