"""The plan of the house, held: which room may know whom, and how big things may get.

The rooms and the gates are described in docs/concepts/architecture.md. Every exception is listed here with its
reason, and an exception that is no longer needed fails.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "qiao"
FILES = sorted(SOURCE.rglob("*.py"))

# Low to high; a room may import rooms of a lower level, and its own. `errors`, `options`, `config` are not rooms.
LEVELS = [
    {"errors", "options", "__init__"},
    {"core"},
    {"profiles"},
    {"policies", "planner", "exports"},
    {"config"},
    {"upstream", "engines", "hardware", "ledger", "observability", "documents"},
    {"app", "doctor", "clients", "web"},
    {"cli"},
    {"__main__"},
]
LEVEL_OF = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

# Rooms of one level that may know each other, with the reason.
NEIGHBOURS = {
    ("engines", "hardware"): "an engine is started on the machine that was looked at",
    ("engines", "upstream"): "model files are downloaded with the one HTTP client",
    ("web", "app"): "the dashboard is served by the gateway's server",
    ("clients", "app"): "none yet",
    ("doctor", "clients"): "the doctor looks at Claude Code where `qiao claude` finds it",
    ("exports", "planner"): "a plan is what is written out",
}

PURE_ROOMS = {"core", "profiles", "policies", "planner", "exports"}
IMPURE_MODULES = {
    *("asyncio", "socket", "os", "time", "logging", "random", "subprocess", "threading", "multiprocessing"),
    *("secrets", "tempfile", "shutil", "pathlib", "urllib.request", "http", "sqlite3", "signal", "select", "ssl"),
}
PURE_PACKAGES = {"msgspec", "qiao"}

# One room for each thing outside.
OUTSIDE = {
    "aiohttp": {"upstream", "app", "web"},
    "click": {"cli"},
    "subprocess": {"engines", "hardware", "clients"},
    "sqlite3": {"ledger"},
    "pypdf": {"documents"},
    "prometheus_client": {"observability"},
    "xllamacpp": {"engines"},
    "pynvml": {"hardware"},
}

MAX_LINES = 600
MAX_FUNCTION = 60
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}
BROAD_EXCEPTS = {
    "app/server.py": "the request boundary: whatever happened, the client gets an answer",
    "engines/supervisor.py": "the supervisor's loop: an engine's end must not end the watch",
}
LATE_IMPORTS: dict[str, str] = {
    "cli/main.py:import_module": "a subcommand is imported when it is run: `qiao --help` stays fast",
    "engines/llamacpp_child.py:xllamacpp": "100 MB of engine, only for the process that runs it, after its checks",
    "upstream/vocabulary.py:tiktoken": "an optional extra, for engines that do not count",
    "documents/pdf.py:pypdf": "an eighth of a second at start, for gateways that never see a PDF",
}
ENVIRONMENT_READERS: dict[str, str] = {"config.py": "the one reader of the environment"}


def room_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).parts
    return parts[0].removesuffix(".py")


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in FILES:
        yield path, ast.parse(path.read_text("utf-8"), filename=str(path))


TREES = dict(trees())


def imports_of(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name
        elif isinstance(node, ast.ImportFrom):
            yield node, "." * node.level + (node.module or "")


def functions_of(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def expect_exact(found: dict[str, str], allowed: dict[str, str], what: str) -> None:
    """Nothing beyond the list, and nothing on the list that is no longer there."""
    surplus = {place: detail for place, detail in found.items() if place not in allowed}
    assert not surplus, f"{what}: {surplus}"
    stale = set(allowed) - set(found)
    assert not stale, f"{what}: these exceptions are no longer needed: {stale}"


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in FILES} <= set(LEVEL_OF)


def test_imports_never_point_up() -> None:
    wrong = []
    for path, tree in TREES.items():
        own = room_of(path)
        for node, module in imports_of(tree):
            if not module.startswith("qiao"):
                assert not module.startswith("."), f"{name_of(path)}:{node.lineno}: relative import"
                continue
            parts = module.split(".")
            other = parts[1] if len(parts) > 1 else "__init__"
            if other == own or LEVEL_OF.get(other, -1) < LEVEL_OF[own] or (own, other) in NEIGHBOURS:
                continue
            wrong.append(f"{name_of(path)}:{node.lineno} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_pure_rooms_stay_pure() -> None:
    wrong = []
    for path, tree in TREES.items():
        if room_of(path) not in PURE_ROOMS:
            continue
        for node, module in imports_of(tree):
            top = module.split(".")[0]
            is_outside = top not in sys.stdlib_module_names and top not in PURE_PACKAGES
            if is_outside or module in IMPURE_MODULES or top in IMPURE_MODULES:
                wrong.append(f"{name_of(path)}:{node.lineno} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_one_room_for_each_outside_thing() -> None:
    wrong = []
    for path, tree in TREES.items():
        for node, module in imports_of(tree):
            rooms = OUTSIDE.get(module.split(".")[0])
            if rooms is not None and room_of(path) not in rooms:
                wrong.append(f"{name_of(path)}:{node.lineno} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_upstream_has_the_client_and_app_the_server() -> None:
    for path, tree in TREES.items():
        text = ast.unparse(tree)
        if "aiohttp" not in text:
            continue
        uses_client = "ClientSession" in text
        uses_server = "web.Server" in text or "StreamResponse" in text
        assert not uses_client or room_of(path) == "upstream", name_of(path)
        assert not uses_server or room_of(path) in ("app", "web"), name_of(path)


def test_only_config_reads_the_environment() -> None:
    found = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                found[name_of(path)] = f"line {node.lineno}"
    expect_exact(found, ENVIRONMENT_READERS, "reads the environment")


def test_files_fit_in_one_reading() -> None:
    found = {}
    for path in FILES:
        lines = len(path.read_text("utf-8").splitlines())
        if lines > MAX_LINES:
            found[name_of(path)] = f"{lines} lines"
    expect_exact(found, LONG_FILES, f"longer than {MAX_LINES} lines")


def test_functions_fit_on_a_screen() -> None:
    found = {}
    for path, tree in TREES.items():
        for function in functions_of(tree):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > MAX_FUNCTION:
                found[f"{name_of(path)}:{function.name}"] = f"{length} lines"
    expect_exact(found, LONG_FUNCTIONS, f"longer than {MAX_FUNCTION} lines")


def test_no_global_and_no_star_import() -> None:
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Global), f"{name_of(path)}:{node.lineno}: global"
            if isinstance(node, ast.ImportFrom):
                assert all(alias.name != "*" for alias in node.names), f"{name_of(path)}:{node.lineno}: star import"


def test_imports_stand_at_the_top() -> None:
    found = {}
    for path, tree in TREES.items():
        for function in functions_of(tree):
            for node, module in imports_of(function):
                found[f"{name_of(path)}:{module}"] = f"line {node.lineno}"
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                    found[f"{name_of(path)}:import_module"] = f"line {node.lineno}"
    expect_exact(found, LATE_IMPORTS, "import inside a function")


def test_broad_excepts_are_listed() -> None:
    found = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                if caught in ("", "Exception", "BaseException"):
                    found[name_of(path)] = f"line {node.lineno}"
    expect_exact(found, BROAD_EXCEPTS, "broad except")


def test_importing_opens_nothing_and_prints_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import qiao"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == ""
    total = next(line for line in done.stderr.splitlines() if line.endswith("| qiao"))
    assert int(total.split("|")[1]) < 300_000, total


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_file_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(TREES[path]), "a module docstring: what the file is for"
