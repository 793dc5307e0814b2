"""Build the sdist and the wheel, look into them, and test the wheel where there is no checkout.

python .ci/wheels.py            with this Python and the packages that it has: what CI runs
python .ci/wheels.py --nightly  with every Python from 3.10 to 3.13 that is found and what pip installs for it, and with
                                every extra alone; downloads gigabytes, and keeps one environment at a time

The tests run in what the sdist holds, without its gpa_nd, so that the wheel's is imported.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
START = time.perf_counter()
TOOLS = ("build==1.6.1", "twine==7.0.0")
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

FEW_TESTS = ("tests/test_import.py", "tests/test_laws.py", "tests/test_partition.py", "tests/ops", "tests/partitioners")
TESTS = (
    *FEW_TESTS,
    "tests/diagnostics", "tests/engine", "tests/nn", "tests/selection", "tests/test_always.py", "tests/test_causal.py",
    "tests/test_layout.py", "tests/test_levels.py", "tests/test_masks.py", "tests/test_testing.py",
)  # fmt: skip
"""Of the library alone. What compiles needs a compiler, and Triton's kernels have CI of their own."""
LEFT_OUT = ("--ignore=tests/engine/fused", "-k", "not compil and not export")

EVERY_MODULE = """
import importlib, pkgutil, sys, gpa_nd
left_out = ("gpa_nd.engine.fused", "gpa_nd.ops.metis", "gpa_nd.diffusers", "gpa_nd.transformers")  # need extras
def walk(package):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if not found.name.startswith(left_out):
            module = importlib.import_module(found.name)
            if found.ispkg:
                yield from walk(module)
            yield found.name
print(f"{sum(1 for _ in walk(gpa_nd))} modules of {gpa_nd.__file__} imported")
"""

EXTRAS = {
    "train": ("-m", "examples.pose_morph.train", "--max-steps", "1", "--out", "run"),
    "bench": ("-m", "benchmarks.attention", "--help"),
    "docs": ("-m", "sphinx", "-q", "-W", "-n", "-b", "html", "docs", "html"),
    "diffusers": ("-c", "import gpa_nd.diffusers"),
    "transformers": ("-c", "import gpa_nd.transformers"),
    "onnx": (
        "-c",
        "import gpa_nd, torch; x = 3 * (torch.randn(1, 1, 64, 8),); "
        "torch.onnx.export(gpa_nd.audio(4, 4, 2), x, 'gpa.onnx', dynamo=True)",
    ),
    "metis": ("-c", "import gpa_nd.ops.metis"),
    "triton": ("-c", "import os; os.environ['TRITON_INTERPRET'] = '1'; import gpa_nd.engine.fused.attention"),
    "test": ("-m", "pytest", "-q", "-p", "no:cacheprovider", *FEW_TESTS),
}
"""What each extra is for, as a command that must work with it alone."""


def main() -> None:
    """Build, look, and test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nightly", action="store_true", help="every Python and every extra, which takes an hour")
    parser.add_argument("--pythons", help="with --nightly, these versions, which must be here; may be empty")
    parser.add_argument("--extras", help="with --nightly, some of them; may be empty")
    options = parser.parse_args()
    if not options.nightly and (options.pythons, options.extras) != (None, None):
        parser.error("--pythons, --extras: expected beside --nightly, got them without it")
    pythons = pythons_of(options.pythons) if options.nightly else {}
    extras = extras_of(options.extras) if options.nightly else []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        sdist, wheel = build(work)
        check_wheel(wheel)
        outside = unpack(sdist, work)
        if not options.nightly:
            beside_installed(wheel, outside, work)
            return
        for version, python in pythons.items():
            with_python(version, python, wheel, outside, work)
        for extra in extras:
            with_extra(extra, wheel, outside, work)


def pythons_of(named: str | None) -> dict[str, Path]:
    """Interpreters of the versions that are named, of which none may be missing; by default those that are found."""
    versions = PYTHONS if named is None else list(filter(None, named.split(",")))
    found = {version: python for version in versions if (python := find_python(version))}
    missing = [version for version in versions if version not in found]
    if named is not None and missing:
        sys.exit(f"--pythons: expected versions on the path or kept by pyenv, got {', '.join(missing)}, not found")
    for version in missing:
        say(f"Python {version}: none is installed here")
    return found


def extras_of(named: str | None) -> list[str]:
    """The extras that are named, or all."""
    extras = list(EXTRAS) if named is None else list(filter(None, named.split(",")))
    if unknown := [extra for extra in extras if extra not in EXTRAS]:
        sys.exit(f"--extras: expected some of {', '.join(EXTRAS)}, got {', '.join(unknown)}")
    return extras


def say(text: str) -> None:
    """A line with the time that has passed."""
    print(f"[{time.perf_counter() - START:5.0f} s] {text}", flush=True)


def call(*command: str | Path, at: Path) -> None:
    """Run a command in a folder; stop everything where it fails."""
    subprocess.run(command, cwd=at, check=True, env=ENVIRONMENT)


def answer(python: Path, code: str, *, at: Path) -> str:
    """What a line of Python prints."""
    done = subprocess.run([python, "-c", code], cwd=at, check=True, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip()


def new_environment(python: str | Path, folder: Path) -> Path:
    """Make a virtual environment; return its Python."""
    call(python, "-m", "venv", "--clear", folder, at=folder.parent)
    return folder / "bin" / "python"


def build(work: Path) -> tuple[Path, Path]:
    """Build from a copy of what git tracks, the wheel from the sdist; let twine judge what the index would show."""
    tools = new_environment(sys.executable, work / "tools")
    call(tools, "-m", "pip", "install", "-q", *TOOLS, at=work)
    source = work / "source"
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    call(tools, "-m", "build", source, "--outdir", work / "dist", at=work)
    (sdist,), (wheel,) = (work / "dist").glob("*.tar.gz"), (work / "dist").glob("*.whl")
    call(tools, "-m", "twine", "check", "--strict", sdist, wheel, at=work)
    return sdist, wheel


def tracked(below: str = ".") -> set[str]:
    """The files that git knows."""
    listed = subprocess.run(["git", "ls-files", "-z", below], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}


def check_wheel(wheel: Path) -> None:
    """The package as git has it, with its marker for types, its licence and its metadata; nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
    about = {name for name in found if ".dist-info/" in name}
    expect("the wheel's package", found - about, tracked("gpa_nd"))
    papers = {name.partition("/")[2] for name in about}
    expect("the wheel's metadata", papers, {"METADATA", "RECORD", "WHEEL", "licenses/LICENSE"})
    assert "gpa_nd/py.typed" in found
    say(f"{wheel.name}: {len(found)} files, {wheel.stat().st_size / 1e3:.0f} kB")


def unpack(sdist: Path, work: Path) -> Path:
    """Unpack the sdist, see that it is what git tracks, and take its gpa_nd away."""
    with tarfile.open(sdist) as archive:
        archive.extractall(work, filter="data")
    outside = work / sdist.name.removesuffix(".tar.gz")
    found = {path.relative_to(outside).as_posix() for path in outside.rglob("*") if path.is_file()}
    expect("the sdist", found, tracked() | {"PKG-INFO"})
    say(f"{sdist.name}: {len(found)} files, {sdist.stat().st_size / 1e6:.1f} MB")
    shutil.rmtree(outside / "gpa_nd")
    return outside


def expect(what: str, found: set[str], wanted: set[str]) -> None:
    """Name what lacks and what is too much."""
    if found != wanted:
        sys.exit(f"{what} lacks {sorted(wanted - found)[:9]} and has too much: {sorted(found - wanted)[:9]}")


def beside_installed(wheel: Path, outside: Path, work: Path) -> None:
    """Install the wheel alone, beside all that this Python has, and run a few tests."""
    python = new_environment(sys.executable, work / "installed")
    call(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, at=outside)
    packages = Path(answer(python, "import sysconfig; print(sysconfig.get_path('purelib'))", at=outside))
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib") + "\n")  # comes after its own packages
    call(python, "-c", EVERY_MODULE, at=outside)
    run_tests(python, FEW_TESTS, outside, packages)


def with_python(version: str, python: Path, wheel: Path, outside: Path, work: Path) -> None:
    """All the library's tests with one Python, having imported everything with no more than what the wheel asks for."""
    say(f"Python {version}")
    try:
        python = new_environment(python, work / "python")
        install(python, wheel, "", outside)
        call(python, "-c", EVERY_MODULE, at=outside)
        install(python, wheel, "test", outside)
        run_tests(python, (*TESTS, *LEFT_OUT), outside, work / "python")
    finally:
        shutil.rmtree(work / "python", ignore_errors=True)


def with_extra(extra: str, wheel: Path, outside: Path, work: Path) -> None:
    """One extra, and the command that it is there for."""
    say(f"extra {extra}: python {' '.join(EXTRAS[extra][:2])} …")
    try:
        python = new_environment(sys.executable, work / "extra")
        install(python, wheel, extra, outside)
        call(python, *EXTRAS[extra], at=outside)
    finally:
        shutil.rmtree(work / "extra", ignore_errors=True)


def install(python: Path, wheel: Path, extra: str, outside: Path) -> None:
    """Install the wheel with one extra, or none, as the README says it."""
    wanted = f"gpa_nd[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    call(python, "-m", "pip", "install", "-q", "-c", "constraints.txt", wanted, at=outside)


def run_tests(python: Path, arguments: tuple[str, ...], outside: Path, environment: Path) -> None:
    """Run tests, having seen that it is the installed package that they import."""
    where = answer(python, "import gpa_nd; print(gpa_nd.__file__)", at=outside)
    assert Path(where).is_relative_to(environment), f"{where} is not what was installed in {environment}"
    call(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, at=outside)
    say("tests passed")


def find_python(version: str) -> Path | None:
    """An interpreter of this version: on the path, or one that pyenv keeps."""
    kept = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    found = shutil.which(f"python{version}")
    return kept[-1] if kept else Path(found) if found else None


if __name__ == "__main__":
    main()
