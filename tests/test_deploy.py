"""docs/deploy: every file is parsed by what it is for, and cron's line is run as cron would."""

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from reconcile import cli
from reconcile.period import Period
from reconcile.sandbox import Sandbox, Scenario

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
LINE = re.compile(r"^15 6 3 \* \* (.*)$", re.MULTILINE)


def command_of(words: list[str]) -> list[str]:
    """The command and the options that some words give to `reconcile`; each must exist."""
    command = cli.commands.commands[words[0]]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if word.startswith("-")} <= known
    return words


def test_cron_closes_without_environment_elsewhere_and_keeps_files_private(tmp_path):
    """With cron's empty environment, its shell, another folder and a lax umask: one JSON line, files for the owner."""
    now = datetime.now(UTC)
    simulated = Sandbox.build(Scenario(period=Period.last_complete(now), requests=300, now=now))
    simulated.write(tmp_path, base_url="http://127.0.0.1:1")
    (tmp_path / "admin-key").write_text(simulated.key)
    (tmp_path / "admin-key").chmod(0o600)
    [line] = LINE.findall((DEPLOY / "crontab").read_text())
    assert line == LINE.findall((ROOT / "README.md").read_text())[0]
    for place, here in {
        "/opt/reconcile/bin/reconcile": f"{sys.executable} -m reconcile",
        "/etc/reconcile/config.yaml": str(tmp_path / "config.yaml"),
        "/var/log/reconcile.jsonl": str(tmp_path / "log.jsonl"),
    }.items():
        assert place in line
        line = line.replace(place, here)
    with simulated.serve(port=0) as server:
        config = re.sub(r"(?m)^( *key:).*$", rf"\1 {{file: {tmp_path / 'admin-key'}}}", simulated.config(server.url))
        (tmp_path / "config.yaml").write_text(config)
        # cron gives HOME, LOGNAME, SHELL and a short PATH; PYTHONPATH stands for the installation
        lax = f"umask 0; {line}"
        ran = subprocess.run(  # noqa: S603 - the line of our own documentation
            ["/bin/sh", "-c", lax],
            cwd="/",
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert ran.returncode == 1, ran.stderr
    [answer] = (tmp_path / "log.jsonl").read_text().splitlines()
    assert (json.loads(answer)["exit"], json.loads(answer)["period"]) == (1, str(simulated.scenario.period))
    assert simulated.key not in ran.stderr
    modes = {path.stat().st_mode & 0o077 for path in (tmp_path / "var").rglob("*")}
    assert modes == {0}


def test_the_systemd_units_start_a_close(tmp_path):
    """The service runs `close` and takes discrepancies for a success; the timer catches up; systemd accepts both."""
    units = {}
    for name in ("reconcile.service", "reconcile.timer"):
        units[name] = configparser.ConfigParser(strict=False, interpolation=None)
        units[name].optionxform = str
        units[name].read(DEPLOY / name)
    service = units["reconcile.service"]["Service"]
    program, *words = service["ExecStart"].split()
    assert (program, command_of(words)[0]) == ("/opt/reconcile/bin/reconcile", "close")
    assert (service["SuccessExitStatus"], units["reconcile.timer"]["Timer"]["Persistent"]) == ("1", "true")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here: the units were read as what they are, not verified by it")
    for name in units:
        text = (DEPLOY / name).read_text().replace("/opt/reconcile/bin/reconcile", sys.executable)
        (tmp_path / name).write_text(text)
    ran = subprocess.run(  # noqa: S603
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)],  # noqa: S607
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = [line for line in ran.stderr.splitlines() if str(tmp_path) in line or "reconcile" in line]
    assert said == [], ran.stderr


def test_the_image_is_not_root_and_keeps_its_data_in_a_volume():
    """Instructions in order: what is copied exists, the user is no root, data_dir is a volume, SIGTERM reaches us."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    steps = [line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = {name: value for name, value in steps if name not in {"COPY", "RUN"}}
    assert steps[0][0] == "FROM"
    copied = [source for name, value in steps if name == "COPY" for source in value.split()[:-1]]
    assert copied
    assert all((ROOT / source).exists() for source in copied)
    assert int(found["USER"]) > 0
    assert found["VOLUME"] == "/var/lib/reconcile"
    assert json.loads(found["ENTRYPOINT"]) == ["/opt/reconcile/bin/reconcile"]  # no shell in between: signals arrive
    assert command_of(json.loads(found["CMD"]))[0] == "schedule"
    order = [name for name, _ in steps]
    assert order.index("USER") > max(at for at, name in enumerate(order) if name == "RUN")


def test_the_cron_job_of_kubernetes_runs_one_close_at_a_time():
    """One at a time, as no root, on a read-only file system, without the key in the manifest."""
    job = yaml.safe_load((DEPLOY / "cronjob.yaml").read_text())
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert (job["kind"], job["spec"]["concurrencyPolicy"], job["spec"]["timeZone"]) == ("CronJob", "Forbid", "Etc/UTC")
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert command_of(container["args"])[0] == "close"
    assert [entry["name"] for entry in container["env"] if "valueFrom" in entry] == ["ANTHROPIC_ADMIN_KEY"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}
    [rule] = job["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert 3 not in rule["onExitCodes"]["values"]  # a source that did not answer is tried again
