"""`reconcile verify`: one changed byte anywhere is found and its file named; what was not changed is proven."""

import json
import random
import shutil
from datetime import UTC, datetime

import pytest
from sites import OCTOBER, Desk, quiet_month

from reconcile import cli, run
from reconcile.config import load_config
from reconcile.errors import InvariantError

NOW = datetime(2026, 11, 5, 9, tzinfo=UTC)


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Desk:
    """A month with two revisions, closed and signed; every test puts back what it changes."""
    desk = quiet_month(tmp_path_factory.mktemp("verified"))
    desk.close()
    desk.configure(tolerance={"usd": 2})
    desk.close(final=True)
    run.approve(load_config(desk.config), period=OCTOBER, by="Ann", role="preparer", now=NOW)
    return desk


def problems(desk) -> list[str]:
    """What `verify` finds, a line each."""
    try:
        run.verify(load_config(desk.config))
    except run.ChangedError as error:
        return [str(problem) for problem in error.problems]
    return []


def kept(desk):
    """Every file that a digest was taken of; the link is the newest revision itself."""
    left_out = {".lock", "2026-10.duckdb"}
    names = [path for path in sorted(desk.var.rglob("*")) if path.is_file() and path.name not in left_out]
    assert len(names) > 40
    return names


def test_what_was_not_changed_is_proven(desk, capsys):
    """Counts of everything, and the digest of the register's last line, to be kept elsewhere."""
    proof = run.verify(load_config(desk.config))
    assert (proof.lines, proof.pulls, proof.pages, proof.revisions) == (4, 1, 6, 2)
    assert proof.head == run.Room(desk.var).register.head
    assert cli.invoke(["verify", "-c", str(desk.config)]) == 0
    assert capsys.readouterr().out.endswith("Nothing was changed.\n")
    assert cli.invoke(["verify", "-c", str(desk.config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["head"] == proof.head


def test_one_flipped_bit_anywhere_is_found_and_named(desk):
    """In every file of the data_dir, at its first and last byte and in between."""
    moments = random.Random(3)  # noqa: S311 - places
    for path in kept(desk):
        whole = path.read_bytes()
        for position in {0, len(whole) - 1, moments.randrange(len(whole))}:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
            found = problems(desk)
            assert found, (path, position)
            assert str(path) in found[0], (path, position, found)
        path.write_bytes(whole)
    assert problems(desk) == []


def test_a_file_that_is_gone_or_was_added_is_found(desk, tmp_path):
    """A page, a revision, a report that was taken away; a report and a revision that nobody closed."""
    for name in (
        "raw/2026-10/20261102T060012Z/cost_day.json",
        "ledger/2026-10.r1.duckdb",
        "reports/2026-10/bridge.csv",
    ):
        shutil.move(desk.var / name, tmp_path / "aside")
        assert name in problems(desk)[0]
        shutil.move(tmp_path / "aside", desk.var / name)
    for name in ("reports/2026-10/extra.html", "ledger/2026-10.r3.duckdb"):
        shutil.copy(desk.var / "ledger" / "2026-10.r1.duckdb", desk.var / name)
        assert any(name in problem for problem in problems(desk))
        (desk.var / name).unlink()
    assert problems(desk) == []


def test_a_shortened_register_is_found(desk):
    """Without its last line the reports are others than it tells of; without the closes nothing closes a revision."""
    register = desk.var / "register.jsonl"
    whole = register.read_bytes()
    lines = whole.splitlines(keepends=True)
    for count, says in (
        (3, "reports/2026-10: was written with sha256"),
        (2, "r2.duckdb: no line of the register closes"),
    ):
        register.write_bytes(b"".join(lines[:count]))
        assert any(says in problem for problem in problems(desk))
    register.write_bytes(whole[:-1])
    assert "its last line has no end" in problems(desk)[0]
    register.write_bytes(whole)
    assert problems(desk) == []


def test_what_was_changed_ends_with_4(desk, capsys):
    """Each on a line of its own, the first as JSON."""
    names = ("index.html", "bridge.csv")
    before = {name: (desk.var / "reports" / "2026-10" / name).read_bytes() for name in names}
    for name in names:
        (desk.var / "reports" / "2026-10" / name).write_text("x")
    assert cli.invoke(["verify", "-c", str(desk.config), "--json"]) == InvariantError.exit_code
    said = capsys.readouterr()
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in said.err.splitlines()] == ["bridge.csv", "index.html"]
    assert json.loads(said.out)["error"]["where"].endswith("bridge.csv")
    for name, content in before.items():
        (desk.var / "reports" / "2026-10" / name).write_bytes(content)
