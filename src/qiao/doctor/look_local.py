"""This machine and its Claude Code."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from qiao.clients import claude_program
from qiao.clients.claude_settings import environment_of, settings_files
from qiao.config import Config
from qiao.doctor.check_client import ENVIRONMENT
from qiao.doctor.facts import ClientFacts, Local, Mount, Port, Setting
from qiao.errors import ClientMissingError
from qiao.hardware import limits, nvidia_smi, snapshot
from qiao.hardware.ports import lineage, owner_of, port_here
from qiao.ledger.running import Running
from qiao.planner.machine import Machine

_WATCHED = ("ANTHROPIC_", "CLAUDE_CODE_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_DEFAULT_PORT = 4000


def machine(
    config: Config,
    gateways: Sequence[Running],
    variables: Mapping[str, str],
    *,
    offset: float | None,
    engines: Sequence[str] = (),
) -> Local:
    """What the machine is, and who has the gateway's port. `engines`: addresses of those that are ours."""
    search_path = variables.get("PATH")
    hub = Path(variables.get("HF_HOME") or config.folders.cache)
    seen = snapshot.look(hub, search_path=search_path)
    has_gpu = bool(seen.gpus)
    return Local(
        machine=seen,
        own_processes=_own(seen, gateways, engines),
        mounts=tuple(_mounts([config.folders.state, config.folders.cache, hub])),
        ports=(_port(config.server.port or _DEFAULT_PORT, gateways),),
        now=time.time(),
        clock_offset=offset,
        file_limit=limits.open_files(),
        driver_problem=None if has_gpu else nvidia_smi.failure(search_path),
        torch_cuda=limits.torch_cuda() if has_gpu else None,
    )


def _own(seen: Machine, gateways: Sequence[Running], engines: Sequence[str]) -> frozenset[int]:
    """Of the processes that hold GPU memory, those that a gateway or one of `engines` started."""
    holders = {each.process for node in seen.nodes for each in node.holders}
    if not holders:
        return frozenset()
    owners = [owner_of(port) for each in engines if (port := port_here(each)) is not None]
    roots = {each.process for each in (*gateways, *owners) if each is not None}
    return frozenset(each for each in holders if roots & set(lineage(each)))


def _mounts(folders: Sequence[Path]) -> list[Mount]:
    found = {}
    for folder in folders:
        existing = next((each for each in (folder, *folder.parents) if each.exists()), None)
        if existing is not None:
            with contextlib.suppress(OSError):
                found[folder] = shutil.disk_usage(existing).free
    return [Mount(folder, free) for folder, free in found.items()]


def _port(number: int, gateways: Sequence[Running]) -> Port:
    is_ours = any(gateway.url.endswith(f":{number}") for gateway in gateways)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return Port(number, "the gateway", is_free=False, is_ours=is_ours, owner=owner_of(number))
    return Port(number, "the gateway", is_free=True, is_ours=is_ours)


def client(config: Config, variables: Mapping[str, str], folder: Path, gateway: str | None) -> ClientFacts:
    """Claude Code, and every variable for it with its place."""
    home = Path(variables.get("HOME") or Path.home())
    settings = [Setting(name, value, ENVIRONMENT) for name, value in sorted(variables.items()) if _is_watched(name)]
    broken = []
    for file in settings_files(variables, home, folder):
        settings += [Setting(name, value, str(file)) for name, value in sorted(environment_of(file).items())]
        if _is_broken(file):
            broken.append(str(file))
    facts = ClientFacts(settings=tuple(settings), gateway=gateway, broken_files=tuple(broken))
    try:
        program = claude_program.find(config.client.claude, str(config.origin("client.claude")), variables, home)
    except ClientMissingError as missing:
        return ClientFacts(
            settings=facts.settings, gateway=gateway, broken_files=facts.broken_files, missing=missing.message
        )
    return ClientFacts(
        settings=facts.settings,
        gateway=gateway,
        broken_files=facts.broken_files,
        program=program.path,
        version=claude_program.version(program, variables),
    )


def _is_watched(name: str) -> bool:
    return name.upper().startswith(_WATCHED)


def _is_broken(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except ValueError:
        return True
    except OSError:
        return False
    return False
