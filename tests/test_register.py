"""The register: a chain that no byte of leaves unseen, and where a month stands because of it."""

import json
import stat
from hashlib import sha256

import pytest

from reconcile.errors import InvariantError
from reconcile.period import Period
from reconcile.register import Register, last_published, standing

OCTOBER = Period.parse("2026-10")


@pytest.fixture
def register(tmp_path) -> Register:
    return Register(tmp_path / "register.jsonl")


# The file


def test_every_line_names_the_one_before(register):
    """Entries come back in order, each with its own digest and that of the line before it."""
    assert register.entries() == []
    assert register.head == ""
    register.append("close", period="2026-10", revision=1, final=False)
    register.append("close", period="2026-10", revision=2, final=True, inputs={"pages": "ab"})
    first, second = register.path.read_bytes().splitlines()
    assert register.entries() == [json.loads(first), json.loads(second)]
    assert [entry["before"] for entry in register.entries()] == ["", sha256(first).hexdigest()]
    assert register.head == sha256(second).hexdigest()
    assert register.entries()[1]["inputs"] == {"pages": "ab"}
    assert stat.S_IMODE(register.path.stat().st_mode) == 0o600


def test_any_changed_byte_is_found_and_its_line_named(register):
    """Whatever byte of whichever line is changed, the last one's too, that line is named; a missing one, the next."""
    for revision in (1, 2, 3):
        register.append("close", revision=revision)
    whole = register.path.read_bytes()
    begin = 0
    for number, line in enumerate(whole.splitlines(keepends=True), start=1):
        for position in range(begin, begin + len(line) - 1):
            register.path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
            with pytest.raises(InvariantError, match=rf"register\.jsonl:{number}: has sha256"):
                register.entries()
        if number < 3:
            register.path.write_bytes(whole[:begin] + whole[begin + len(line) :])
            with pytest.raises(InvariantError, match=f":{number}: follows a line"):
                register.entries()
        begin += len(line)


def test_a_line_that_was_cut_off_never_counted(register):
    """What a crash left of a last line is ignored, and the next line takes its place."""
    register.append("close", revision=1)
    whole = register.path.read_bytes()
    for cut in (b'{"event": "clo', b"\xff", b'{"event": "close", "before": ""}'):
        register.path.write_bytes(whole + cut)
        assert not register.is_whole
        assert [entry["revision"] for entry in register.entries()] == [1]
        register.append("close", revision=2)
        assert [entry["revision"] for entry in register.entries()] == [1, 2]
        assert register.is_whole


# Where a month stands


def closed(revision=1, *, final=False, figures="f1", at="2026-11-04T06:00:00Z", **inputs):
    """A close of October."""
    return {
        "event": "close", "period": "2026-10", "revision": revision, "final": final, "figures_digest": figures,
        "inputs": {"pages": "p", "logs": "l", "config": "c"} | inputs, "at": at, "reports_digest": "r",
    }  # fmt: skip


def signed(role, who, figures="f1"):
    """A signature under October."""
    return {
        "event": "approve", "period": "2026-10", "revision": 1, "role": role, "by": who, "figures_digest": figures,
        "at": "2026-11-05T09:00:00Z", "reports_digest": "r",
    }  # fmt: skip


REOPENED = {"event": "reopen", "period": "2026-10", "reason": "a log came late", "at": "2026-11-09T09:00:00Z"}
MOVED = {"event": "recheck", "period": "2026-10", "moved": True, "at": "2026-12-01T09:00:00Z"}
UNMOVED = MOVED | {"moved": False}
FINAL = closed(final=True)


@pytest.mark.parametrize(
    ("entries", "state", "closed_at"),
    [
        ([], "open", ""),
        ([{"event": "pull", "period": "2026-10"}], "open", ""),
        ([closed()], "provisional", ""),
        ([FINAL | {"period": "2026-09"}], "open", ""),
        ([closed(), FINAL], "closed", "2026-11-04T06:00:00Z"),
        ([FINAL, closed(at="2026-11-07T06:00:00Z")], "closed", "2026-11-04T06:00:00Z"),
        ([FINAL, closed(final=True, at="2026-11-07T06:00:00Z")], "closed", "2026-11-04T06:00:00Z"),
        ([FINAL, UNMOVED], "closed", "2026-11-04T06:00:00Z"),
        ([FINAL, MOVED], "restated", "2026-11-04T06:00:00Z"),
        ([FINAL, MOVED, UNMOVED], "closed", "2026-11-04T06:00:00Z"),
        ([closed(), MOVED], "provisional", ""),
        ([FINAL, REOPENED], "reopened", ""),
        ([FINAL, REOPENED, closed(2)], "reopened", ""),
        ([FINAL, MOVED, REOPENED, closed(2, final=True, at="2026-12-02T06:00:00Z")], "closed", "2026-12-02T06:00:00Z"),
    ],
)
def test_a_state_follows_from_what_happened(entries, state, closed_at):
    """Open, provisional, closed, restated, reopened: each by what the register says of that month alone."""
    stands = standing(entries, OCTOBER)
    assert (stands.state, stands.closed_at) == (state, closed_at)
    assert stands.is_closed == (state in {"closed", "restated"})


def test_a_recheck_counts_for_what_is_closed():
    """When a month was rechecked last is forgotten when it is closed anew."""
    assert standing([FINAL, UNMOVED], OCTOBER).rechecked_at == "2026-12-01T09:00:00Z"
    assert standing([FINAL, MOVED, REOPENED, closed(2, final=True)], OCTOBER).rechecked_at == ""


def test_signatures_hold_while_the_figures_are_the_same():
    """The preparer comes first; another revision with the same figures takes nothing away."""
    stands = standing([FINAL, signed("reviewer", "Ben"), signed("preparer", "Ann"), closed(2)], OCTOBER)
    assert [(one.role, one.who) for one in stands.holding] == [("preparer", "Ann"), ("reviewer", "Ben")]
    assert stands.withdrawn == ()


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (closed(2, figures="f2", config="x"), "r2 has other figures: the config changed"),
        (
            closed(2, figures="f2", pages="x", logs="y"),
            "r2 has other figures: the provider's pages and the request logs changed",
        ),
        (REOPENED, "reopened: a log came late"),
    ],
)
def test_what_changes_the_figures_takes_signatures_away(entry, why):
    """The reason names what changed; a signature does not come back when the figures do."""
    for later in ([], [closed(3)]):
        stands = standing([closed(), signed("preparer", "Ann"), entry, *later], OCTOBER)
        assert stands.holding == ()
        assert [one.withdrawn for one in stands.withdrawn] == [why]


def test_what_was_published_last_of_a_revision():
    """The newest line of that revision that tells its reports' digest."""
    entries = [closed(1), closed(2), signed("preparer", "Ann") | {"reports_digest": "r2"}, MOVED]
    assert last_published(entries, OCTOBER, 1)["reports_digest"] == "r2"
    assert last_published(entries, OCTOBER, 2)["revision"] == 2
    assert last_published(entries, OCTOBER.next, 2) == {}
