import subprocess
import sys
from pathlib import Path

import gpa_nd


def test_import_brings_nothing_that_is_optional():
    code = "import sys, gpa_nd; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "gpa_nd" in loaded
    optional = {"triton", "torch_geometric", "diffusers", "transformers", "pymetis", "matplotlib", "examples"}
    assert not optional & set(loaded)


def test_backends_do_not_import_one_another():
    engine = Path(gpa_nd.__file__).parent / "engine"
    backends = {"reference": [engine / "reference.py"]}
    backends |= {name: sorted((engine / name).glob("*.py")) for name in ("blocked", "fused")}
    for backend, files in backends.items():
        assert files
        for file in files:
            for other in backends.keys() - {backend}:
                assert f"gpa_nd.engine.{other}" not in file.read_text()
                assert f"gpa_nd.engine import {other}" not in file.read_text()


def test_public_names_are_there():
    for name in gpa_nd.__all__:
        assert getattr(gpa_nd, name).__doc__
