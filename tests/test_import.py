import subprocess
import sys

import gpa_nd


def test_import_brings_nothing_that_is_optional():
    code = "import sys, gpa_nd; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "gpa_nd" in loaded
    assert not {"triton", "torch_geometric", "pymetis", "matplotlib", "examples"} & set(loaded)


def test_backends_do_not_import_one_another():
    code = "import sys; from gpa_nd.engine import {}; print(' '.join(sys.modules))"
    for backend, other in (("reference", "blocked"), ("blocked", "reference")):
        run = subprocess.run([sys.executable, "-c", code.format(backend)], capture_output=True, text=True, check=True)
        assert f"gpa_nd.engine.{backend}" in run.stdout.split()
        assert f"gpa_nd.engine.{other}" not in run.stdout.split()


def test_public_names_are_there():
    for name in gpa_nd.__all__:
        assert getattr(gpa_nd, name).__doc__
