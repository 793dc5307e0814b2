"""No file runs code: not where some is planted in it; and nothing here reads pickles, YAML or expressions freely."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from examples.pose_morph.data.folder_store import decode_picture, header_size
from tests.files.kinds import KINDS

ROOT = Path(__file__).parents[2]


class Plant:
    """Where its pickle is loaded freely, a folder is made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.folder),)


def as_pickle(plant: Plant) -> bytes:
    return pickle.dumps(plant)


def as_archive(plant: Plant) -> bytes:
    written = io.BytesIO()
    torch.save({"settings": "{}", "weights": plant}, written)
    return written.getvalue()


def as_old_format(plant: Plant) -> bytes:
    written = io.BytesIO()
    torch.save(plant, written, _use_new_zipfile_serialization=False)
    return written.getvalue()


def as_arrays(plant: Plant) -> bytes:
    written = io.BytesIO()
    np.savez(written, source=np.array([plant], dtype=object), truth=np.zeros(1), result=np.zeros(1))
    return written.getvalue()


def as_data_pkl(plant: Plant) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(plant, protocol=2))
        archive.writestr("archive/version", b"3\n")
    return written.getvalue()


@pytest.mark.parametrize("planted", [as_pickle, as_archive, as_old_format, as_arrays, as_data_pkl])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore::UserWarning")  # PyTorch's about protocols
def test_a_planted_pickle_does_not_run(kind, planted, tmp_path):
    path, grown = kind.write(tmp_path), tmp_path / "grown"
    path.write_bytes(planted(Plant(grown)))
    with contextlib.suppress(*kind.errors):
        kind.read(path)
    assert not grown.exists()


def test_the_plant_grows_where_pickles_are_loaded_freely(tmp_path):
    pickle.loads(as_pickle(Plant(tmp_path / "grown")))
    assert (tmp_path / "grown").is_dir()


def test_postscript_is_not_run_whatever_its_name(tmp_path):
    path = tmp_path / "person.png"
    Image.new("RGB", (4, 4)).save(path, "EPS")
    for read in (header_size, lambda path: decode_picture(path, path)):
        with pytest.raises(ValueError, match=r"PostScript|cannot be read"):
            read(path)


def test_nothing_loads_freely():
    free = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("gpa_nd", "examples", "benchmarks", "docs")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in calls_and_imports(path.read_text(encoding="utf-8"))
        if not is_safe(node)
    ]
    assert not free


@pytest.mark.parametrize(
    "code",
    ["torch.load(p)", "torch.load(p, weights_only=False)", "import dill as pickle", "np.load(p, allow_pickle=True)",
     "import yaml", "eval(p)", "exec(p)", "import pickle", "from joblib import load", "os.system(p)",
     "subprocess.run(p, shell=True)", "from torch import load"],
)  # fmt: skip
def test_what_loads_freely_is_seen(code):
    assert not all(map(is_safe, calls_and_imports(code)))


def calls_and_imports(code: str) -> Iterator[ast.Call | ast.Import | ast.ImportFrom]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call | ast.Import | ast.ImportFrom):
            yield node


def is_safe(node: ast.Call | ast.Import | ast.ImportFrom) -> bool:
    """Whether a call or an import cannot run what a file holds."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = {getattr(node, "module", None), *(name.name for name in node.names)}
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy") and "load" in names:
            return False
        return not names & {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve", "yaml"}
    match ast.unparse(node.func):
        case "torch.load" | "torch.jit.load" | "torch.hub.load":
            return {"weights_only": True}.items() <= settings_of(node).items()
        case "np.load" | "numpy.load":
            return settings_of(node).get("allow_pickle") is False
        case "eval" | "exec" | "os.system" | "os.popen" | "builtins.eval" | "builtins.exec":
            return False
        case _:
            return settings_of(node).get("shell") is not True


def settings_of(call: ast.Call) -> dict[str | None, Any]:
    return {word.arg: getattr(word.value, "value", None) for word in call.keywords}
