"""Who is told how a close ended: webhooks, commands, Prometheus; what fails there fails no close."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from month import write_config
from prometheus_client.parser import text_string_to_metric_families

from reconcile.notify import Ending, tell

AT = datetime(2026, 11, 3, 6, 1, tzinfo=UTC)
ENDING = Ending(
    "close", 'Example "Ltd"', "2026-10", 1, datetime(2026, 11, 3, 6, tzinfo=UTC), AT, 2, Decimal("1234.560000000001"),
    Decimal("-0.5"), Decimal(0), Decimal("10.00"), 3,
)  # fmt: skip
FAILED = Ending(
    "close", "Example", "2026-10", 3, AT, AT, error={"where": "GET /v1", "what": "answered 500", "do": "Wait"}
)


@pytest.fixture
def listener():
    """A web server on loopback: its address, what it got, and the status that it answers with."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
            self.send_response(self.server.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_):
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.got, server.status = [], 204
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def told(tmp_path, ending, notify, **sections):
    """What is warned of when this ending is told."""
    warned = []
    tell(write_config(tmp_path, notify=notify, **sections), ending, warned.append)
    return warned


def test_a_webhook_gets_one_object(tmp_path, listener, monkeypatch):
    """A POST of one JSON object, amounts as strings and exact; the address is where the config says."""
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{listener.server_port}/in?token=s3cret")
    assert told(tmp_path, ENDING, [{"webhook": {"env": "HOOK"}}]) == []
    [(path, kind, body)] = listener.got
    assert (path, kind) == ("/in?token=s3cret", "application/json")
    assert body == {
        "command": "close", "organization": 'Example "Ltd"', "period": "2026-10", "exit": 1,
        "began_at": "2026-11-03T06:00:00Z", "at": "2026-11-03T06:01:00Z", "revision": 2,
        "billed_usd": "1234.560000000001", "difference_usd": "-0.5", "residual_usd": "0", "unallocated_usd": "10.00",
        "discrepancies": 3, "report": None, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "said"),
    [(302, "answered with 302"), (404, "answered with 404"), (500, "answered with 500"), (None, "did not answer")],
)
def test_a_webhook_that_fails_is_a_warning_without_its_address(tmp_path, listener, monkeypatch, status, said):
    """No redirect is followed, no failure stops anything, and the address, which may be a secret, is not repeated."""
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{listener.server_port if status else 1}/in?token=s3cret")
    listener.status = status
    [warning] = told(tmp_path, ENDING, [{"webhook": {"env": "HOOK"}}])
    assert warning.startswith("notify[0]: was not told how the close ended (notify[0].webhook: ")
    assert (said in warning, "s3cret" in warning) == (True, False)
    assert [path for path, _, _ in listener.got] == (["/in?token=s3cret"] if status else [])


@pytest.mark.parametrize("address", ["http://example.com/x", "ftp://127.0.0.1/x", "file:///etc/passwd", "x"])
def test_a_webhook_is_https_or_loopback(tmp_path, monkeypatch, address):
    """Figures leave the machine encrypted, and over HTTP alone."""
    monkeypatch.setenv("HOOK", address)
    [warning] = told(tmp_path, ENDING, [{"webhook": {"env": "HOOK"}}])
    assert "holds no https address" in warning
    assert address not in warning


def test_a_command_gets_the_object_on_stdin(tmp_path):
    """A command is run for the exit codes that it is for, and gets the same object."""
    notify = [
        {"command": ["sh", "-c", f"cat >{tmp_path}/all"]},
        {"command": ["sh", "-c", f"cat >{tmp_path}/some"], "exits": [0, 1]},
    ]
    assert told(tmp_path, FAILED, notify) == []
    assert json.loads((tmp_path / "all").read_text())["error"] == FAILED.error
    assert not (tmp_path / "some").exists()


@pytest.mark.parametrize("command", [["false"], ["/nowhere/at/all"]])
def test_a_command_that_fails_is_a_warning_and_the_next_is_told(tmp_path, command):
    """One that cannot be told keeps none of the others from it."""
    warned = told(tmp_path, ENDING, [{"command": command}, {"command": ["sh", "-c", f"cat >{tmp_path}/next"]}])
    assert [warning.partition(":")[0] for warning in warned] == ["notify[0]"]
    assert (tmp_path / "next").exists()


def test_prometheus_reads_the_metrics(tmp_path):
    """The textfile parses, holds the figures under the period's labels, and is readable for the collector."""
    assert told(tmp_path, ENDING, [], metrics="node/reconcile.prom") == []
    path = tmp_path / "node" / "reconcile.prom"
    samples = {
        sample.name: (sample.labels, sample.value)
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }
    labels = {"organization": 'Example "Ltd"', "period": "2026-10"}
    assert samples["reconcile_billed_usd"] == (labels, 1234.560000000001)
    assert samples["reconcile_close_exit_code"] == (labels, 1)
    assert samples["reconcile_close_duration_seconds"] == (labels, 60)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [one.name for one in path.parent.iterdir()] == ["reconcile.prom"]


def test_after_a_failure_the_metrics_hold_no_old_figures(tmp_path):
    """What failed has an exit code and a time, and no figures."""
    told(tmp_path, ENDING, [], metrics="m.prom")
    told(tmp_path, FAILED, [], metrics="m.prom")
    names = {family.name for family in text_string_to_metric_families((tmp_path / "m.prom").read_text())}
    assert names == {
        "reconcile_close_exit_code", "reconcile_close_timestamp_seconds", "reconcile_close_duration_seconds"
    }  # fmt: skip


def test_metrics_that_cannot_be_written_are_a_warning(tmp_path):
    """A folder that is a file stops nothing."""
    (tmp_path / "file").write_text("")
    [warning] = told(tmp_path, ENDING, [], metrics="file/m.prom")
    assert warning.startswith("metrics: was not told how the close ended")
