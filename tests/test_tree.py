"""The tree itself: what is packaged, who may import whom, how large files grow, what the documents promise."""

from __future__ import annotations

import argparse
import ast
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

from ipfs_accel_node import __version__
from ipfs_accel_node.node.cli import build_parser
from ipfs_accel_node.protocols.errors import WORTH_ANOTHER_NODE, ErrorCode, docs_of

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


def test_nobody_imports_what_it_must_not():
    wrong = {
        name_of(file): sorted(imported & forbidden_for(file))
        for file in modules()
        if (imported := {module.partition(".")[0] for module, _ in imports_of(file)}) & forbidden_for(file)
    }
    assert wrong == {}


def test_inside_the_package_imports_are_relative():
    wrong = [
        f"{name_of(file)}: {module}"
        for file in modules()[1:]
        for module, relative in imports_of(file)
        if not relative and module.startswith(PACKAGE)
    ]
    assert wrong == []


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
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r'^\| <a name="[a-z-]+"></a>`([a-z-]+)` \| .+ \| .+ \| (yes|no) \|$', text, re.M)
    assert [code for code, _ in rows] == [str(code) for code in ErrorCode]
    assert {code for code, retried in rows if retried == "yes"} == set(WORTH_ANOTHER_NODE)


def test_every_error_code_can_be_linked_to():
    anchors = re.findall(r'<a name="([a-z-]+)"></a>`\1`', (ROOT / "docs" / "errors.md").read_text())
    assert anchors == [str(code) for code in ErrorCode]
    for code in ErrorCode:
        page, _, anchor = docs_of(code).partition("#")
        assert (ROOT / page).is_file()
        assert anchor == code
    assert (ROOT / docs_of("a-code-of-a-later-version")).is_file()


def test_every_command_in_the_readme_exists():
    readme = (ROOT / "README.md").read_text()
    lines = re.findall(r"(?:^\.venv/bin/|^\| `)ipfs-accel-node ([^`\n]+)", readme, re.M)
    assert len(lines) > 10
    for line in lines:
        build_parser().parse_args(shlex.split(line, comments=True))
    options = set(re.findall(r"`(--[a-z-]+)", readme)) - {"--include"}
    known = help_of(build_parser())
    assert sorted(option for option in options if option not in known) == []


def test_every_command_stands_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [name for name in leaves(build_parser()) if f"`ipfs-accel-node {name}" not in readme] == []


def test_every_script_in_the_documents_exists():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    named = {script for file in documents for script in re.findall(r"\./(scripts/[\w./]+)", file.read_text())}
    assert named
    assert sorted(script for script in named if not (ROOT / script).is_file()) == []


def test_links_between_the_documents_lead_somewhere():
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    links = [(file, link) for file in documents for link in re.findall(r"\]\(([^)#:]+)\)", file.read_text())]
    assert links
    assert [f"{name_of(file)}: {link}" for file, link in links if not (file.parent / link).exists()] == []


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name: child for action in actions for name, child in action.choices.items()}


def help_of(parser: argparse.ArgumentParser) -> str:
    return "\n".join([parser.format_help(), *map(help_of, subcommands(parser).values())])


def leaves(parser: argparse.ArgumentParser, before: str = "") -> Iterator[str]:
    for name, child in subcommands(parser).items():
        if subcommands(child):
            yield from leaves(child, f"{before}{name} ")
        else:
            yield f"{before}{name}"
