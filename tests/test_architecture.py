"""The import rules, and what must not stand anywhere in the product."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shared_model", "client", "server")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def importers(package: str) -> set[str]:
    """Files that import a package, as paths below the root."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path))
    }


def outside(files: set[str], *allowed: str) -> list[str]:
    return sorted(file for file in files if not file.startswith(allowed))


def test_there_are_files_to_check() -> None:
    assert len(FILES) > 30
    assert "server/app.py" in importers("flwr")


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        (
            "flwr",
            (
                "client/app.py",
                "client/executor.py",
                "client/supernode.py",
                "server/app.py",
                "server/simulation/engine.py",
                "server/superlink/",
                "shared_model/flower_message.py",
            ),
        ),
        ("ray", ()),
        ("opacus", ("client/privacy/", "shared_model/accounting.py")),
        ("grpc", ("shared_model/health.py",)),
        ("monai", ("shared_model/monai_parts.py",)),
        ("client", ("client/", "server/simulation/")),
        ("server", ("server/",)),
        ("nilearn", ("client/data/phantom/", "client/data/preparation/registration.py")),
        ("ants", ("client/data/preparation/registration.py",)),
        ("dcm2niix", ("client/data/preparation/dicom.py",)),
        ("matplotlib", ("server/plots.py",)),
        ("jinja2", ("server/report.py",)),
        ("typer", ("server/cli.py", "server/simulation/cli.py", "client/cli.py")),
        ("click", ("shared_model/command_line.py",)),
        ("blosc2", ("client/data/cache.py",)),
        ("zstandard", ("shared_model/compression.py",)),
        ("PIL", ("client/data/sheet.py", "server/plots.py")),
        ("psutil", ("client/join.py", "shared_model/process.py", "server/simulation/reaper.py")),
        ("httpx", ("client/connection.py", "server/superlink/control.py")),
        ("socket", ("client/join.py",)),
        ("starlette", ("server/superlink/",)),
        ("sqlalchemy", ("server/superlink/link.py", "server/superlink/objects.py")),
        ("uvicorn", ("server/superlink/serve.py",)),
    ],
)
def test_a_package_is_imported_only_where_it_belongs(package: str, allowed: tuple[str, ...]) -> None:
    found = importers(package)
    assert (outside(found, *allowed) if allowed else sorted(found)) == []


def test_the_shared_model_imports_neither_side() -> None:
    assert outside(importers("client") | importers("server"), "client/", "server/") == []


def test_the_client_never_imports_the_server() -> None:
    assert [file for file in importers("server") if file.startswith("client/")] == []


@pytest.mark.parametrize("module", ["pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"])
def test_nothing_pickles(module: str) -> None:
    assert importers(module) == set()


def test_tensors_are_loaded_without_objects() -> None:
    loads = re.compile(r"torch\.load\((?![^)]*weights_only=True)")
    arrays = re.compile(r"np\.load\((?![^)]*allow_pickle=False)")
    for path in FILES:
        assert not loads.search(path.read_text()), path
        assert not arrays.search(path.read_text()), path


def test_nothing_else_reaches_the_network() -> None:
    for module in ("requests", "urllib", "urllib3", "http", "ftplib", "aiohttp", "websockets"):
        assert importers(module) == set(), module


@pytest.mark.parametrize(
    "module", ["client.app", "client.cli", "client.join", "client.status", "server.cli", "server.conduct"]
)
def test_commands_start_without_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit(len({{'torch', 'monai', 'ray'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_our_benchmarks_are_the_ones_imported() -> None:
    import benchmarks

    assert Path(str(benchmarks.__file__)).is_relative_to(ROOT)
