"""What the code imports is declared and locked; what a file says of this project holds on every machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.architecture.project import PACKAGES, PYPROJECT, ROOT

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
# Only `make setup` installs what these need: they are no part of what the image runs.
CHECKOUT_ONLY = (ROOT / "deploy" / "local",)
# Released and required together with another, so that one cannot be there without the other.
TOGETHER = {"botocore": "boto3", "click": "typer", "pydantic_core": "pydantic", "werkzeug": "flask"}
INSTALLED = packages_distributions()
# Only for annotations, under `if TYPE_CHECKING`: nothing of it is there at run time.
TYPES_ONLY = re.compile(r"mypy_boto3_\w+|types_\w+|botocore_stubs|_typeshed")


def test_what_the_engine_imports_is_a_dependency_of_the_image() -> None:
    """A package that happens to be installed with another is gone as soon as the other drops it."""
    declared = _names(PYPROJECT["project"]["dependencies"])
    for file in _code(*PACKAGES):
        if not file.is_relative_to(CHECKOUT_ONLY[0]):
            assert not _undeclared(file, declared), file


def test_what_the_tests_and_the_local_stack_import_is_declared() -> None:
    """The same, with the tools of a checkout."""
    declared = _names(PYPROJECT["project"]["dependencies"] + PYPROJECT["dependency-groups"]["dev"])
    for file in _code("tests", "deploy"):
        assert not _undeclared(file, declared), file


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_has_hashes_and_names_no_host_and_no_path(lock: Path) -> None:
    """It installs alike everywhere, and refuses a package that was altered."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;]+( ; [^\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line


def test_the_image_runs_what_is_tested() -> None:
    """Every version of run.txt is that of dev.txt."""
    tested = set(_pins(ROOT / "requirements" / "dev.txt"))
    assert set(_pins(ROOT / "requirements" / "run.txt")) <= tested


def test_a_requirement_of_the_project_is_in_its_lock() -> None:
    """`make lock` was run after the last change of pyproject.toml."""
    pinned = {pin.partition("==")[0] for pin in _pins(ROOT / "requirements" / "run.txt")}
    assert _names(PYPROJECT["project"]["dependencies"]) <= pinned
    pinned = {pin.partition("==")[0] for pin in _pins(ROOT / "requirements" / "dev.txt")}
    assert _names(PYPROJECT["dependency-groups"]["dev"]) <= pinned


def test_no_file_of_the_repository_names_a_place_of_some_machine() -> None:
    """What one machine calls its directories means nothing to the next reader."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    machine = re.compile(rb"(?:^|[\s\"'=(:])/(?:work|home|Users|opt/(?!eft|standins))/")
    for name in filter(None, listed.split("\0")):
        file = ROOT / name
        if file.is_file() and file != Path(__file__):
            found = machine.search(file.read_bytes())
            assert found is None, (name, found)


def _code(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (ROOT / folder).rglob("*.py")


def _undeclared(file: Path, declared: set[str]) -> set[str]:
    """Returns the imported packages that are neither ours, nor Python's, nor from a declared distribution."""
    missing = set()
    for module in _imports(ast.parse(file.read_text(encoding="utf-8"))):
        top = module.partition(".")[0]
        if top in {*PACKAGES, "tests"} or top in sys.stdlib_module_names or TYPES_ONLY.fullmatch(top):
            continue
        if TOGETHER.get(top) not in declared and not {_normal(name) for name in INSTALLED.get(top, [])} & declared:
            missing.add(top)
    return missing


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def _names(requirements: list[str]) -> set[str]:
    return {_normal(match[0]) for line in requirements if (match := re.match(r"[A-Za-z0-9._-]+", line))}


def _normal(name: str) -> str:
    """Returns a distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(lock: Path) -> list[str]:
    return re.findall(r"^([A-Za-z0-9._-]+==[^\s;]+)", lock.read_text(encoding="utf-8"), flags=re.MULTILINE)
