import subprocess
import sys
from importlib import metadata, resources

import xinc_captum


def test_every_public_name_is_there():
    for name in xinc_captum.__all__:
        assert getattr(xinc_captum, name) is not None


def test_versions_agree():
    assert xinc_captum.__version__ == metadata.version("xinc-captum")


def test_it_is_typed():
    assert resources.files("xinc_captum").joinpath("py.typed").is_file()


def loaded_after(statement, module):
    code = f"import sys\n{statement}\nprint({module!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_importing_it_initialises_no_compiler_and_no_demo_packages():
    for module in ("torch._dynamo", "skimage", "sklearn", "umap", "lucent"):
        assert not loaded_after("import xinc_captum", module), module
    assert loaded_after("import xinc_captum, skimage", "skimage"), "the check must be able to fail"
