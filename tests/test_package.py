"""What a user installs: the wheel in a folder of its own, without the engines."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[[str], str]

ROOT = Path(__file__).parents[1]
ENGINES = ["torch", "transformers", "openvino", "openvino_genai", "optimum", "nncf", "tokenizers", "safetensors"]
#: Too slow to load for those who only ask for help or submit a job.
HEAVY = ["libp2p", "numpy", "rich", "trio", *ENGINES]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(ROOT, source, ignore=LEFT_OUT)
    target = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-build-isolation", "--no-deps", "-w", str(target), str(source))
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip("install", "--no-deps", "--target", str(target), str(wheel))
    return target


def pip(*args: str) -> None:
    command = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--no-input", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's libraries without the engines and without the editable source tree."""
    folder = tmp_path_factory.mktemp("libraries")
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if entry.name not in ENGINES and not entry.name.startswith("__editable__"):
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def run(installed: Path, libraries: Path) -> Run:
    """Runs a program that sees the installed wheel and those libraries alone."""

    def run(program: str) -> str:
        path = f"import sys\nsys.path[:0] = {[str(installed), str(libraries)]!r}\n"
        command = [sys.executable, "-I", "-S", "-c", path + program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=installed)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"ipfs_accel_node"}
    inside = {name.split("/")[1] for name in names if name.startswith("ipfs_accel_node/")}
    assert inside == {"__init__.py", "py.typed", "protocols", "backends", "node"}


def test_it_runs_where_no_engine_is_installed(run):
    assert "start" in run("from ipfs_accel_node.node.cli import main\nsys.exit(main(['--help']))")


def test_everything_public_can_be_imported(run, installed):
    places = "[sys.modules[getattr(package, name).__module__].__file__ for name in package.__all__[:-1]]"
    files = json.loads(run(f"import json, ipfs_accel_node as package\nprint(json.dumps({places}))"))
    assert files
    assert all(Path(file).is_relative_to(installed) for file in files)


def test_a_backend_that_is_not_installed_says_how_to_install_it(run):
    said = run(
        "from ipfs_accel_node.backends import registry\n"
        "from ipfs_accel_node.backends.interface import BackendError\n"
        "assert registry.available() == []\n"
        "try: registry.create('cpu')\n"
        "except BackendError as error: print(error.code, error.hint)"
    )
    assert said.startswith("backend-missing")
    assert "pip install" in said


@pytest.mark.parametrize(
    "program",
    ["import ipfs_accel_node", "from ipfs_accel_node.node.cli import main\n main(['--help'])"],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded_before_it_is_needed(run, program):
    shown = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    said = run(f"try:\n {program}\nexcept SystemExit: pass\n{shown}")
    assert said.splitlines()[-1] == "[]"
