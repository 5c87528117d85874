"""Run the tests that compare numbers under several CPU settings: ``make test-cpus``.

Results of floating point depend on the instruction set, the number of threads and the libraries' kernels. Environment
variables choose among those that this machine has; ``--rounding-by-shape`` (see rounding.py) stands for the others.
Each setting is one run of pytest and prints one line; the exit code is 1 when a test failed in any of them.

Left out, since they compare no numbers of their own: the commands' pages and pictures (tests/cli but for replay,
tests/visualizers), the shipped data (tests/zoo), the documentation (tests/docs, tests/test_readme.py) and the examples.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
FOLDERS = "attributions comparison contract generators hooks inr metrics".split()
FILES = """test_batch.py test_captum_configs.py test_compat.py test_docstrings.py test_images.py test_batch_units.py
    cli/test_replay.py""".split()


class Setting(NamedTuple):
    """Environment variables, threads and options of pytest for one run."""

    variables: dict[str, str]
    threads: int = 1
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [f"{name}={value}" for name, value in self.variables.items()]
        return " ".join([*words, *self.options, f"{self.threads} thread{'s' * (self.threads > 1)}"])


MATRIX = [
    *(Setting({"ATEN_CPU_CAPABILITY": name} if name else {}, n) for name in ("", "avx2", "default") for n in (1, 2)),
    Setting({"ONEDNN_MAX_CPU_ISA": "SSE41"}),
    Setting({"MKL_CBWR": "COMPATIBLE"}),
    Setting({}, options=("--rounding-by-shape",)),
]
OLDEST = Setting({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"})


def environment(setting: Setting) -> dict[str, str]:
    """This process's environment with the variables of the setting and no other variable of the kind."""
    chosen = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    other = {name: value for name, value in os.environ.items() if name not in chosen}
    # idle threads sleep, so that several processes can have more threads together than the machine has cores
    threads = {"OMP_NUM_THREADS": str(setting.threads), "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    return other | setting.variables | threads


def capability(setting: Setting) -> str:
    """The instruction set that torch's own kernels use under a setting."""
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    found = subprocess.run([sys.executable, "-c", code], env=environment(setting), capture_output=True, text=True)
    return found.stdout.strip()


def run(setting: Setting, tests: list[str], workers: int) -> bool:
    """Run the tests under a setting and print one line; whether all passed."""
    expected, used = setting.variables.get("ATEN_CPU_CAPABILITY"), capability(setting)
    if expected and used != expected.upper():
        print(f"{setting}: not run, this machine's kernels are {used}", flush=True)
        return True
    command = [sys.executable, "-m", "pytest", "-q", "--tb=short", "--disable-warnings", *setting.options, *tests]
    command += ["-n", str(workers), "--dist", "loadfile"] if workers > 1 else []
    begun = time.monotonic()
    done = subprocess.run(command, env=environment(setting), cwd=ROOT, capture_output=True, text=True)
    counts = re.findall(r"(\d+) (passed|failed|error)", (done.stdout.splitlines() or [""])[-1])
    said = ", ".join(f"{count} {what}" for count, what in counts) or "no test ran"
    print(f"{setting} ({used}): {said}, {time.monotonic() - begun:.0f} s", flush=True)
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if not line.startswith("SKIPPED")]
        print("\n".join(lines)[-20_000:], done.stderr[-2_000:], flush=True)
    return done.returncode == 0


def main() -> int:
    """Run the matrix, or one setting; 1 when a test failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oldest", action="store_true", help="only the setting with the oldest kernels, as CI does")
    parser.add_argument("--workers", type=int, default=2, help="processes of each setting")
    parser.add_argument("tests", nargs="*", help="folders and files; by default all that compare numbers")
    given = parser.parse_args()
    tests = given.tests or [f"tests/{name}" for name in (*FOLDERS, *FILES)]
    passed = [run(setting, tests, given.workers) for setting in ([OLDEST] if given.oldest else MATRIX)]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
