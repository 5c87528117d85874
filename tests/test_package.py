import subprocess
import sys
from importlib import metadata, resources

import xinc_captum

HEAVY = ("torch._dynamo", "torchvision", "scipy", "skimage", "sklearn", "umap", "lucent", "timm")


def test_every_public_name_is_there():
    for name in xinc_captum.__all__:
        assert getattr(xinc_captum, name) is not None


def test_versions_agree():
    assert xinc_captum.__version__ == metadata.version("xinc-captum")


def test_it_is_typed():
    assert resources.files("xinc_captum").joinpath("py.typed").is_file()


def loaded_after(*modules):
    """Which packages that take long are there once these were imported in a new process."""
    code = f"import sys, {', '.join(modules)}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_loads_no_compiler_and_no_demo_packages():
    """Nor does the command, which a person starts again and again; torchvision brings the compiler."""
    assert loaded_after("xinc_captum.cli") == set()
    assert loaded_after("xinc_captum", "skimage") == {"skimage"}, "the check must be able to fail"
