"""The wheel and the sdist: what is installed elsewhere holds everything that a close needs, and runs."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


def python(*arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # noqa: S603 - our own command


def built(kind: str, folder: Path) -> Path:
    """The one file that the build backend writes for the repository, without network."""
    ran = python("-m", "hatchling", "build", "-t", kind, "-d", str(folder), cwd=REPOSITORY)
    assert ran.returncode == 0, ran.stderr
    (found,) = folder.iterdir()
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return built("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory, wheel) -> Path:
    """A folder that the wheel was installed into, offline."""
    target = tmp_path_factory.mktemp("installed")
    ran = python("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target), str(wheel))
    assert ran.returncode == 0, ran.stderr
    return target


def carried() -> set[str]:
    """What the wheel must hold of the repository: the package, and the templates as a part of it."""
    kept = {".py", ".sql", ".yaml"}
    package = {path for path in (REPOSITORY / "reconcile").rglob("*") if path.suffix in kept}
    templates = {path for path in (REPOSITORY / "reports").rglob("*") if path.is_file()}
    return {str(path.relative_to(REPOSITORY)) for path in package} | {
        f"reconcile/{path.relative_to(REPOSITORY)}" for path in templates
    }


def test_the_wheel_holds_the_package_and_the_templates(wheel):
    """SQL, price book and templates are inside; tests, docs and what a run wrote are not."""
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == carried()
    assert {"reconcile/sql/load.sql", "reconcile/prices.yaml", "reconcile/reports/index.html.j2"} <= held


def test_the_sdist_gives_the_same_wheel(wheel, tmp_path):
    """What is published as source builds the wheel that the repository builds."""
    source = built("sdist", tmp_path / "sdist")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (root,) = (tmp_path / "source").iterdir()
    ran = python("-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "again"), cwd=root)
    assert ran.returncode == 0, ran.stderr
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(tmp_path / "again" / wheel.name) as theirs:
        assert {name: theirs.read(name) for name in theirs.namelist()} == {
            name: ours.read(name) for name in ours.namelist()
        }


def test_the_installed_package_runs_the_whole_job(installed, tmp_path):
    """Away from the repository, the demo pulls, loads, matches, explains, allocates and renders."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    where = python("-c", "import reconcile; print(reconcile.__file__)", cwd=tmp_path, env=environment)
    assert Path(where.stdout.strip()) == installed / "reconcile" / "__init__.py"
    ran = python("-m", "reconcile", "demo", "--requests", "300", cwd=tmp_path, env=environment)
    assert ran.returncode == 0, ran.stderr
    reports = tmp_path / "var" / "demo" / "var" / "reports" / "2026-10"
    assert {"index.html", "discrepancy.html", "allocation.html", "bridge.csv"} <= {p.name for p in reports.iterdir()}
