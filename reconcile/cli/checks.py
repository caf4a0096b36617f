"""What `reconcile check` looks at: everything that a close needs, and nothing that changes anything."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import TYPE_CHECKING

from reconcile.cli.first_config import quoted
from reconcile.cli.output import counted
from reconcile.errors import ConfigError, ReconcileError, SourceError
from reconcile.period import Period

if TYPE_CHECKING:
    from reconcile.config import Config, RequestLog


def checks(config_path: Path, period: Period) -> Iterator[tuple[int, str, str]]:
    """What a close needs: exit code (0 is fine), subject, and a sentence."""
    from reconcile.config import load_config  # noqa: PLC0415

    try:
        config = load_config(config_path)
    except ConfigError as error:
        yield error.exit_code, "config", str(error)
        return
    allocation = config.allocation
    parts = {"log": len(config.request_logs), "rule": len(allocation.rules), "pool": len(allocation.shared)}
    held = ", ".join(counted(number, noun) for noun, number in parts.items())
    yield 0, "config", f"{config_path} is valid: {held}"
    looks: list[tuple[str, Callable[[], str]]] = []
    try:
        key = config.billing.key.read()
        yield 0, "key", f"{config.billing.key.place()} holds a key"
        looks.append(("api", partial(_reach, config, key)))
    except ConfigError as error:
        yield error.exit_code, "key", str(error)
    looks += [("log", partial(_readable, log, period)) for log in config.request_logs]
    looks.append(("disk", partial(_room, config, period)))
    for subject, look in looks:
        try:
            yield 0, subject, look()
        except ReconcileError as error:
            yield error.exit_code, subject, str(error)


def _reach(config: "Config", key: str) -> str:
    from reconcile import run  # noqa: PLC0415
    from reconcile.config import pattern_matches  # noqa: PLC0415

    directory = run.directory(config.billing, key=key)
    ours = directory.organization
    if config.organization_id not in {None, ours.id}:
        raise SourceError(
            config.billing.base_url,
            f"the key is of organization {ours.id}, expected {config.organization_id}",
            "Correct organization_id, or use the other organization's key",
        )
    rules = [rule.workspace for rule in config.allocation.rules if rule.workspace and not rule.tag]
    patterns = [*rules, *(pool.workspace for pool in config.allocation.shared if pool.workspace)]
    tags = {rule.tag for rule in config.allocation.rules}
    loose = [
        workspace.name
        for workspace in directory.workspaces
        if not workspace.archived
        and not any(pattern_matches(pattern, workspace.id, workspace.name) for pattern in patterns)
        and not any(name in tags for name, _ in workspace.tags)
    ]
    reached = (
        f"{config.billing.base_url} answers for {quoted(ours.name)}, {counted(len(directory.workspaces), 'workspace')}"
    )
    return reached + (f"; without a rule or pool of their own: {', '.join(map(quoted, loose))}" if loose else "")


def _readable(log: "RequestLog", period: Period) -> str:
    files = log.files(period)
    if not files:
        raise SourceError(
            f"request_logs: {log.name}",
            f"found no file for {log.path!r} in {period}, expected at least one",
            "Correct the path, or take the log out of the config",
        )
    for path in files:
        try:
            with path.open("rb") as stream:
                stream.read(1)
        except OSError as error:
            raise SourceError(
                f"request_logs: {log.name}", f"{path} cannot be read ({error.strerror})", "Correct its owner or mode"
            ) from None
    size = sum(path.stat().st_size for path in files)
    return f"{log.name} has {counted(len(files), 'file')} for {period}, {size / 1e6:,.1f} MB"


def _room(config: "Config", period: Period) -> str:
    """A ledger is about as large as the logs; what spills while it is built may take as much again."""
    folder = config.data_dir
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("data_dir", f"{folder} cannot be written", "Correct data_dir or the folder's owner")
    free = disk_usage(folder).free
    needed = 2 * sum(path.stat().st_size for log in config.request_logs for path in log.files(period))
    if free < needed:
        raise ConfigError(
            "data_dir",
            f"{folder} has {free / 1e6:,.0f} MB free, expected {needed / 1e6:,.0f} MB for {period}",
            "Make room, or choose another data_dir",
        )
    return f"{config.data_dir} can be written, {free / 1e9:,.1f} GB free"
