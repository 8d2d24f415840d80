"""The tree itself: what is packaged, who may import whom, how large files grow, what the documents promise."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipfs_accel_node import __version__
from ipfs_accel_node.protocols.errors import WORTH_ANOTHER_NODE, ErrorCode

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE = "ipfs_accel_node"
PACKAGED = ("backends", "node", "protocols")
ENGINES = {
    *("torch", "transformers", "tokenizers", "safetensors"),
    *("openvino", "openvino_genai", "openvino_tokenizers", "optimum", "nncf"),
}
#: Where a module of the package stands → what it must not import; the longest prefix that fits counts.
FORBIDDEN = {
    "protocols": ENGINES | {"node", "backends", "trio", "anyio", "libp2p"},
    "backends": {"node", "protocols", "trio", "anyio", "libp2p"},
    "node": ENGINES | {"libp2p"},
    "node/mesh": ENGINES,
}


def modules() -> list[Path]:
    return [ROOT / "__init__.py", *(file for top in PACKAGED for file in sorted((ROOT / top).rglob("*.py")))]


def scripts() -> list[Path]:
    found = [*(ROOT / "scripts").rglob("*"), *(ROOT / ".ci").iterdir()]
    return [file for file in found if file.is_file() and file.suffix in {"", ".py", ".sh"}]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports_of(file: Path) -> Iterator[tuple[str, bool]]:
    """Each module that a file imports, from the package's root where it is relative, and whether it is relative."""
    here = file.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or "", False
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1]
            for alias in [None] if node.module else node.names:
                yield ".".join([*base, node.module or alias.name]), True


def forbidden_for(file: Path) -> set[str]:
    places = [place for place in FORBIDDEN if name_of(file).startswith(f"{place}/")]
    return FORBIDDEN[max(places, key=len)] if places else set()


def test_the_packages_listed_are_those_of_the_tree():
    found = {
        ".".join([PACKAGE, *folder.relative_to(ROOT).parts])
        for top in PACKAGED
        for folder in [ROOT / top, *(ROOT / top).rglob("*")]
        if folder.is_dir() and any(folder.glob("*.py"))
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found | {PACKAGE}
    assert [name for name in found if not (ROOT / Path(*name.split(".")[1:]) / "__init__.py").exists()] == []


def test_the_version_stands_in_one_place_and_its_copy():
    assert PROJECT["project"]["version"] == __version__


@pytest.mark.parametrize("file", modules(), ids=name_of)
def test_nobody_imports_what_it_must_not(file):
    imported = {module.partition(".")[0] for module, _ in imports_of(file)}
    assert imported & forbidden_for(file) == set()


@pytest.mark.parametrize("file", modules()[1:], ids=name_of)
def test_inside_the_package_imports_are_relative(file):
    assert [module for module, relative in imports_of(file) if not relative and module.startswith(PACKAGE)] == []


def test_the_rule_sees_through_relative_imports():
    seen = dict(imports_of(ROOT / "node" / "app.py"))
    assert seen["protocols.sealing"] is True
    assert "libp2p" in forbidden_for(ROOT / "node" / "app.py")
    assert "libp2p" not in forbidden_for(ROOT / "node" / "mesh" / "host.py")


def test_no_file_is_over_400_lines():
    files = [*modules(), *(ROOT / "tests").rglob("*.py"), *scripts()]
    lengths = {name_of(file): len(file.read_text().splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_scripts_that_begin_with_a_shebang_can_be_run():
    shebang = [file for file in scripts() if file.read_text().startswith("#!")]
    assert shebang
    assert [name_of(file) for file in shebang if not os.access(file, os.X_OK)] == []


def test_every_error_code_is_explained_and_no_other():
    rows = re.findall(r"^\| `([a-z-]+)` \| .+ \| .+ \| (yes|no) \|$", (ROOT / "docs" / "errors.md").read_text(), re.M)
    assert [code for code, _ in rows] == [str(code) for code in ErrorCode]
    assert {code for code, retried in rows if retried == "yes"} == set(WORTH_ANOTHER_NODE)
