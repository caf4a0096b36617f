"""kill -9: a close that is cut off at any moment, again and again, leaves what an undisturbed one leaves."""

import multiprocessing
import os
import shutil
import signal
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from time import monotonic, sleep

import pytest
import yaml

from reconcile import ledger, run
from reconcile.config import load_config
from reconcile.sandbox import Sandbox, Scenario
from reconcile.sandbox.sandbox import KEY_VARIABLE

KILLS = int(os.environ.get("KILLS", "8"))
"""In each of the four tests; `make kills` asks for 50, which are 200."""

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["reconcile.run", "reconcile.render", "reconcile.render.charts", "test_crashes"])


def close(config: str, now: str, *, offline: bool) -> None:
    """What the process to be killed does: one close."""
    run.close(load_config(Path(config)), period=None, now=datetime.fromisoformat(now), offline=offline)


@dataclass(frozen=True)
class Site:
    """A folder with a config, closed once with a tolerance of 1.00; its next close has another one, and gives r2."""

    folder: Path
    now: str

    @property
    def config(self) -> Path:
        """The config file."""
        return self.folder / "config.yaml"

    def tolerate(self, usd: str) -> None:
        """Change the config, so that the next close has something to do."""
        content = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump(content | {"tolerance": {"usd": usd}}))

    def start(self, *, offline: bool) -> multiprocessing.Process:
        """A close in a process of its own, forked from one that has imported everything and opened nothing."""
        process = FORKS.Process(target=close, args=(str(self.config), self.now), kwargs={"offline": offline})
        process.start()
        return process

    def finish(self) -> float:
        """An undisturbed close: how long it took."""
        began = monotonic()
        process = self.start(offline=True)
        process.join()
        assert process.exitcode == 0
        return monotonic() - began

    def published(self) -> dict[str, str]:
        """Every report's digest, and the names of the revisions."""
        reports = self.folder / "var" / "reports" / "2026-10"
        found = {str(path.relative_to(reports)): path for path in reports.rglob("*") if path.is_file()}
        digests = {name: sha256(path.read_bytes()).hexdigest() for name, path in sorted(found.items())}
        return digests | {path.name: "" for path in (self.folder / "var" / "ledger").iterdir()}

    def newest(self) -> int:
        """The revision that whoever opens the newest ledger reads now."""
        with ledger.reading(self.folder / "var" / "ledger" / "2026-10.duckdb") as connection:
            [(revision,)] = connection.execute("select revision from report.summary").fetchall()
        return revision


@pytest.fixture(scope="module")
def simulated() -> Sandbox:
    return Sandbox.build(Scenario(requests=60))


@pytest.fixture(scope="module")
def served(simulated):
    with pytest.MonkeyPatch.context() as patch, simulated.serve(port=0) as server:
        patch.setenv(KEY_VARIABLE, simulated.key)
        yield server


@pytest.fixture(scope="module")
def once(tmp_path_factory, simulated, served) -> Site:
    """The site after its first close; small, so that most of a close's time is that of its stages."""
    folder = tmp_path_factory.mktemp("once")
    simulated.write(folder, base_url=served.url)
    whole = yaml.safe_load((folder / "config.yaml").read_text())
    site = Site(folder, simulated.now.isoformat())
    site.config.write_text(
        yaml.safe_dump({
            "organization": "Example",
            "billing": whole["billing"],
            "request_logs": whole["request_logs"][:1],
            "allocation": {"cost_centers": {"CC-1": {"name": "All"}}, "rules": [{"workspace": "*", "to": "CC-1"}]},
        })
    )  # fmt: skip
    close(str(site.config), site.now, offline=False)
    site.tolerate("2.00")
    return site


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, once) -> tuple[dict[str, str], float]:
    """What a second close leaves when nobody kills it, and how long it takes."""
    folder = tmp_path_factory.mktemp("undisturbed") / "site"
    shutil.copytree(once.folder, folder)
    site = Site(folder, once.now)
    took = site.finish()
    assert site.newest() == 2
    return site.published(), took


@pytest.mark.parametrize(("seed", "offline"), [(1, True), (2, True), (3, True), (4, False)])
def test_a_close_that_is_killed_again_and_again_is_made_good(tmp_path, once, undisturbed, seed, offline):
    """The newest revision can be read after every kill, and the next close leaves the bytes of an undisturbed one."""
    published, took = undisturbed
    moments = Random(seed)  # noqa: S311 - moments
    site = Site(tmp_path / "site", once.now)
    shutil.copytree(once.folder, site.folder)
    kills = 0
    while kills < KILLS:
        process = site.start(offline=offline)
        sleep(moments.uniform(0, took * (1 if offline else 2)))
        process.kill()
        process.join()
        assert process.exitcode in {0, -signal.SIGKILL}
        kills += process.exitcode != 0
        if site.newest() == 2 and process.exitcode == 0:  # it was too late: there is nothing left to disturb
            shutil.rmtree(site.folder)
            shutil.copytree(once.folder, site.folder)
    site.finish()
    assert site.newest() == 2
    assert site.published() == published
