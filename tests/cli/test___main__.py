import subprocess
import sys

from xinc_captum import __version__


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "xinc_captum.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"xinc-captum {__version__}"
