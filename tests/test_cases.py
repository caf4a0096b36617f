"""Every folder of tests/cases is a month: usage and cost rows, logs, and what a close must find in it."""

import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from month import bridge, closed, cost, usage, write_config

from reconcile import explain, ledger
from reconcile.errors import ReconcileError

CASES = Path(__file__).parent / "cases"
NAMES = sorted(folder.name for folder in CASES.iterdir() if folder.is_dir())
COLUMNS_AS_JSON = {"evidence"}


def read(case, name, default):
    path = case / name
    return json.loads(path.read_text()) if path.exists() else default


def configured(case, folder):
    """The case's config over the usual one; its logs are one log, unless it says otherwise."""
    sections = {}
    if (case / "logs").is_dir():
        shutil.copytree(case / "logs", folder / "logs")
        sections["request_logs"] = [{"name": "app", "path": "logs/*"}]
    else:
        sections["request_logs"] = []
    if (case / "config.yaml").exists():
        sections |= yaml.safe_load((case / "config.yaml").read_text())
    return write_config(folder, **sections)


def shown(value):
    """A value of a view as expected.json writes it."""
    if isinstance(value, Decimal):
        text = format(value.normalize(), "f")
        return "0" if text in {"-0", "0"} else text
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def spelled(row, wanted):
    """The columns of ``row`` that ``wanted`` names; of a JSON column only the keys that it names."""
    found = {}
    for column, value in wanted.items():
        if column in COLUMNS_AS_JSON:
            held = json.loads(row[column])
            found[column] = {key: held.get(key) for key in value}
        else:
            found[column] = shown(row[column])
    return found


def assert_holds(connection, view, wanted, *, whole):
    """Every wanted row stands in ``view`` exactly once; with ``whole`` no other row does."""
    left = ledger.rows(connection, f"select * from {view}")
    for expected in wanted:
        fitting = [row for row in left if spelled(row, expected) == expected]
        near = [spelled(row, expected) for row in left]
        assert len(fitting) == 1, f"{view}: {expected} stands {len(fitting)} times among {near}"
        left.remove(fitting[0])
    if whole:
        assert left == [], f"{view} holds more than was expected"


def reasons_of(expected):
    """The reasons that a case is about, those of findings that net to $0.00 included."""
    named = set(expected.get("bridge", {})) | {row["reason"] for row in expected.get("findings", [])}
    return named & {reason for reason, *_ in explain.REASONS}


@pytest.mark.parametrize("name", NAMES)
def test_a_case_closes_as_its_folder_says(name, tmp_path):
    """The close of a case's month finds the bridge, findings, cells and chargeback that were computed by hand."""
    case = CASES / name
    expected = json.loads((case / "expected.json").read_text())
    usages = [usage(**row) for row in read(case, "usage.json", [])]
    costs = [cost(**row) for row in read(case, "cost.json", [])]
    month = closed(tmp_path, usages, costs, [], config=configured(case, tmp_path), **read(case, "pull.json", {}))
    if "error" in expected:
        with pytest.raises(ReconcileError) as caught, month:
            pass
        assert caught.value.exit_code == expected["error"]["exit"]
        assert expected["error"]["says"] in str(caught.value)
        return
    with month as connection:
        assert bridge(connection) == expected["bridge"]
        if "findings" in expected:
            assert_holds(connection, "report.discrepancy", expected["findings"], whole=True)
        assert_holds(connection, "report.cell", expected.get("cells", []), whole=False)
        assert_holds(connection, "source.log", expected.get("logs", []), whole=False)
        assert_holds(connection, "source.default_used", expected.get("defaults", []), whole="defaults" in expected)
        if "chargeback" in expected:
            receivers = connection.execute("select cost_center, total_usd::varchar from report.chargeback").fetchall()
            assert dict(receivers) == expected["chargeback"]
        if "discrepancy_count" in expected:
            count = connection.execute("select discrepancy_count from report.summary").fetchone()
            assert count == (expected["discrepancy_count"],)


def test_every_group_of_complaints_has_a_case():
    """Each group of complaints that users of such tools have begins the name of at least one case."""
    assert {name[0] for name in NAMES} == set("abcdmprtux")


def test_every_reason_has_a_case():
    """Each reason stands in the bridge of at least one case."""
    expected = [json.loads((CASES / name / "expected.json").read_text()) for name in NAMES]
    assert sorted({reason for reason, *_ in explain.REASONS} - set().union(*map(reasons_of, expected))) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_case_says_what_it_is_about(name):
    """A case's figures can be followed with a pencil: `about` says how they come about."""
    assert len(json.loads((CASES / name / "expected.json").read_text())["about"]) > 40
