import subprocess
import sys


def test_run_as_a_module_an_error_is_one_line_and_status_one(tmp_path):
    """Status and output in a shell; other tests need no new process."""
    words = ["canvas", str(tmp_path / "none.png"), "--out", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-m", "xinc_captum.cli", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("xinc: ") and "is not a file; expected a photo" in done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    assert not (tmp_path / "out").exists()
