"""One name, one thing: files and constants of the package and the examples; and what tests may import."""

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path


ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "peft_mmrl").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])


def names_of(file):
    """Constants that a file sets at its top level, one or several in a line."""
    for node in ast.parse(file.read_text()).body:
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            names = [] if target is None else [one for one in ast.walk(target) if isinstance(one, ast.Name)]
            yield from (one.id for one in names if isinstance(one.ctx, ast.Store) and one.id.isupper())


def several(places):
    return {name: sorted(found) for name, found in places.items() if len(found) > 1}


def test_no_two_files_set_a_constant_of_one_name():
    places = defaultdict(list)
    for file in FILES:
        for name in names_of(file):
            places[name].append(str(file.relative_to(ROOT)))
    assert several(places) == {}


def test_no_two_modules_have_one_name():
    """But for scripts and commands, which are named after what they call, and the folders that `evaluate` asks for."""
    places = defaultdict(list)
    for file in FILES:
        folder = str(file.parent.relative_to(ROOT))
        is_named_after = folder in ("examples", "peft_mmrl/commands", f"peft_mmrl/metrics/{file.stem}")
        if not is_named_after and not file.stem.startswith("__"):
            places[file.stem].append(folder)
    assert several(places) == {}


def test_no_file_holds_marks_of_an_unfinished_merge():
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    marks = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
    files = [ROOT / name for name in tracked.split("\0") if name]
    contents = {file: file.read_bytes() for file in files if file.is_file()}
    assert [file for file, content in contents.items() if b"\0" not in content and marks.search(content)] == []


def test_no_test_imports_from_another_test_file():
    """What several need lies in conftest.py or in a file beside it that says what it holds."""
    for file in (ROOT / "tests").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in imported if name.startswith("test_")], file
