"""One simulated organization for one month: built whole, then written to files or served over HTTP."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from reconcile.sandbox.logs import LogBook
from reconcile.sandbox.organization import ADMIN_KEY, NAME, ORGANIZATION_ID
from reconcile.sandbox.planting import Planter
from reconcile.sandbox.plants import Planted, Truth
from reconcile.sandbox.provider import CostLine, Provider
from reconcile.sandbox.scenario import Scenario
from reconcile.sandbox.server import Answers, Faults, Server
from reconcile.sandbox.traffic import Traffic

KEY_VARIABLE = "RECONCILE_SANDBOX_KEY"


@dataclass(frozen=True)
class Sandbox:
    """What a scenario makes: the logs' files by relative path, the provider's books, and what was planted.

    ``moved_usd`` is by reason what stands in a wrong place, also where it nets to nothing.
    """

    scenario: Scenario
    files: dict[str, bytes] = field(repr=False)
    provider: Provider = field(repr=False)
    costs: dict[int, list[CostLine]] = field(repr=False)
    truth: tuple[Planted, ...] = field(repr=False)
    moved_usd: Mapping[str, str] = field(repr=False)

    @classmethod
    def build(cls, scenario: Scenario) -> "Sandbox":
        """Simulate the month and the days on either side of it; nothing happens after the sandbox's clock."""
        truth = Truth(
            scenario.first_day, scenario.first_day if scenario.through_day is None else scenario.through_day + 1
        )
        organization = scenario.organization
        sources = organization.active_sources(scenario.plants)
        traffic = Traffic(scenario, sources)
        planter = Planter(scenario, truth)
        provider = Provider(scenario, truth)
        book = LogBook(organization, bad_lines=scenario.bad_lines)
        files: dict[str, bytes] = {}
        margin = organization.margin_days
        last_day = min(scenario.end_day + margin - 1, scenario.today)
        for day in range(scenario.first_day - margin, last_day + 1):
            for source in sources:
                for request in traffic.day(source, day):
                    if request.at >= scenario.clock_ms:
                        continue
                    for ghost in planter.plant(request):
                        book.write(ghost)
                    provider.count(request)
                    book.write(request)
            files |= book.files(day)
        return cls(scenario, files, provider, provider.bill(), truth.planted(), truth.moved_usd())

    @property
    def now(self) -> datetime:
        """The sandbox's own clock, UTC."""
        return self.scenario.clock

    @property
    def key(self) -> str:
        """The admin key that its server accepts. It opens nothing else."""
        return ADMIN_KEY

    def write(self, directory: Path, base_url: str = "http://127.0.0.1:8080") -> None:
        """Write ``logs/``, ``truth.json`` and ``config.yaml``: everything that a close needs but the server."""
        for path, body in self.files.items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
        truth = json.dumps([asdict(planted) for planted in self.truth], indent=2) + "\n"
        (directory / "truth.json").write_text(truth, encoding="utf-8")
        (directory / "config.yaml").write_text(self.config(base_url), encoding="utf-8")

    def serve(self, port: int = 0, faults: Faults | None = None) -> Server:
        """An HTTP server on loopback that answers like the provider's API, as a context manager."""
        return Server(self.scenario, self.provider, self.costs, port, faults or Faults())

    def answers(self) -> Answers:
        """What that server would send, without a server."""
        return Answers(self.scenario, self.provider, self.costs)

    def config(self, base_url: str) -> str:
        """The organization's config file for `reconcile`, as YAML."""
        turn_on = self.scenario.period.start_on + timedelta(days=15)
        lines = [
            "# The sandbox's organization. Written anew with each sandbox: change it in a copy.",
            f"organization: {NAME}",
            f"organization_id: {ORGANIZATION_ID}",
            "data_dir: var",
            "billing:",
            "  api: admin",
            f"  base_url: {base_url}",
            f"  key: {{env: {KEY_VARIABLE}}}",
            "  settle_hours: 24",
            "request_logs:",
        ]
        for log in self.scenario.organization.logs:
            lines += [
                f"  - name: {log.name}",
                "    format: requests",
                f"    path: {json.dumps(log.path)}",
                "    time_zone: UTC",
            ]
            if log.workspace is not None:
                lines.append(f"    workspace_id: {log.workspace.id}")
            if log.labels:
                lines.append(f"    labels: [{', '.join(log.labels)}]")
        lines += [
            "prices:",
            "  contract: []",
            "tolerance: {usd: 1.00, percent: 0.5}",
            "accepted: []",
            "invoices: []",
            "allocation:",
            *(f"  {line}".replace("MID_MONTH", f"{turn_on}") for line in self.scenario.organization.allocation),
            'schedule: {day: 3, time: "06:00", time_zone: UTC}',
        ]
        return "\n".join(lines) + "\n"
