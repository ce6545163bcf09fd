"""The configuration: frozen sections, resolved once, each value remembering where it came from.

A flag wins over the environment (`QIAO_…`), the environment over qiao.toml, the file over the default. This
is the only place that reads the environment. What cannot be used ends in a ConfigurationError that names its
place and the mend; nothing is guessed and nothing is ignored: an unknown key in the file is an error, an
unknown QIAO_ variable a warning (it may belong to another version).
"""

from __future__ import annotations

import difflib
import functools
import ipaddress
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TextIO, TypeVar, cast

import msgspec

from qiao.errors import ConfigurationError
from qiao.options import About, Option, Secret, Value, declared

FILE_NAME = "qiao.toml"


class Server(msgspec.Struct, frozen=True):
    """Where the gateway listens, and how much it takes in."""

    host: Annotated[str, About("address to listen on", flag="--host", metavar="ADDRESS")] = "127.0.0.1"
    port: Annotated[int, About("port to listen on; 0 takes a free one", flag="--port", minimum=0, maximum=65535)] = 4000
    max_body: Annotated[
        int, About("largest request body", flag="--max-body", kind="size", minimum=1024, maximum=2**31)
    ] = 32 * 2**20
    max_header: Annotated[int, About("largest header", kind="size", minimum=1024, maximum=2**20)] = 64 * 2**10
    body_timeout: Annotated[float, About("time a client has to send its whole body", kind="seconds", minimum=0.1)] = (
        60.0
    )
    ping_interval: Annotated[
        float,
        About("silence after which a stream gets a ping", flag="--ping-interval", kind="seconds", minimum=0.05),
    ] = 10.0
    shutdown_grace: Annotated[
        float, About("time that open answers get when the server stops", kind="seconds", minimum=0)
    ] = 5.0

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it. A name other than localhost counts as reachable from outside."""
        if self.host.lower() == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


class Auth(msgspec.Struct, frozen=True):
    """Who may use the gateway."""

    api_key: Annotated[
        Secret | None,
        About("the gateway's key, instead of the stored one (see `qiao key`)", flag="--api-key"),
    ] = None
    no_auth: Annotated[bool, About("ask for no key; only on a loopback address", flag="--no-auth")] = False


class Upstream(msgspec.Struct, frozen=True):
    """The server that runs the model."""

    url: Annotated[
        str | None,
        About(
            "OpenAI-compatible server that runs the model, with or without /v1",
            flag="--upstream",
            kind="engine URL",
        ),
    ] = None
    api_key: Annotated[Secret | None, About("key for the upstream", flag="--upstream-key")] = None
    flavor: Annotated[
        Literal["auto", "vllm", "sglang", "llamacpp", "openai"],
        About("family of the upstream; auto asks it", flag="--flavor", metavar="FAMILY"),
    ] = "auto"
    connect_timeout: Annotated[float, About("time to reach the upstream", kind="seconds", minimum=0.1)] = 10.0
    silence_timeout: Annotated[
        float, About("silence after which the upstream counts as dead", kind="seconds", minimum=1)
    ] = 1800.0
    queue_limit: Annotated[
        int | None,
        About(
            "requests that may wait in the engine before clients are told to come back (default: any number)",
            flag="--queue-limit",
            minimum=1,
        ),
    ] = None
    cache_salt: Annotated[
        Secret | None,
        About(
            "secret from which each key's own part of the engine's prefix cache is made (default: all keys share it)",
            flag="--cache-salt",
            metavar="SECRET",
        ),
    ] = None

    @property
    def root(self) -> str | None:
        """The url without its version: where an engine has its own routes (`/health`, `/tokenize`)."""
        return self.url.rpartition("/")[0] if self.url else None


class Models(msgspec.Struct, frozen=True):
    """Which names reach which model. Names on the right are the upstream's own."""

    main: Annotated[
        str | None,
        About(
            "model to use: the upstream's name for it (default: its only or first one)",
            flag="--model",
            metavar="NAME",
        ),
    ] = None
    name: Annotated[
        str | None,
        About("plain id under which clients see the main model, such as qwen3-235b", flag="--name", metavar="ID"),
    ] = None
    small: Annotated[str | None, About("model for small, fast requests (default: the main one)", metavar="NAME")] = None
    subagent: Annotated[str | None, About("model for sub-agents (default: the main one)", metavar="NAME")] = None
    map: Annotated[dict[str, str], About("further names of clients and the models they reach")] = {}
    reasoning_history: Annotated[
        Literal["auto", "drop", "send", "keep"],
        About(
            "what becomes of the reasoning of earlier turns; keep: sent, and the chat template told to keep it; "
            "auto: what suits the model",
            flag="--reasoning-history",
            metavar="HOW",
        ),
    ] = "auto"


class Context(msgspec.Struct, frozen=True):
    """What happens when a conversation outgrows the model's window."""

    on_overflow: Annotated[
        Literal["refuse", "trim"],
        About("refuse lets the client compact; trim shortens old tool results", flag="--on-overflow", metavar="ACTION"),
    ] = "refuse"


class Tools(msgspec.Struct, frozen=True):
    """How tool calls come out of what a model writes."""

    parser: Annotated[
        Literal[
            "auto",
            "engine",
            "hermes",
            "qwen3_coder",
            "glm45",
            "llama3_json",
            "mistral",
            "deepseek_v3",
            "deepseek_v31",
            "kimi_k2",
            "pythonic",
            "json",
        ],
        About(
            "who reads tool calls: the engine, or qiao in this dialect; auto: qiao wherever it can read the text",
            flag="--tool-parser",
            metavar="NAME",
        ),
    ] = "auto"
    guided: Annotated[
        bool,
        About(
            "bind every call that qiao reads to the tool's schema, where the engine has structural tags",
            flag="--guided-tools",
        ),
    ] = False
    no_repair: Annotated[
        bool, About("pass on tool calls only as they were written, without mending them", flag="--no-repair")
    ] = False


class Engine(msgspec.Struct, frozen=True):
    """The engine that `qiao up` starts when no upstream is named."""

    gguf: Annotated[Path | None, About("model file for the embedded engine", flag="--gguf", metavar="FILE")] = None
    context: Annotated[
        int | None,
        About("context window in tokens (default: the model's own)", flag="--context", minimum=512),
    ] = None
    yarn: Annotated[bool, About("double the embedded model's window by YaRN, at some loss", flag="--yarn")] = False
    threads: Annotated[int | None, About("threads for reading the prompt (default: all cores)", minimum=1)] = None
    auto_tools: Annotated[
        float | None,
        About(
            "how much more probable than text a call must be for the embedded model to make it unasked (default: never)"
        ),
    ] = None
    hub: Annotated[
        str, About("hub that `--model` downloads from", kind="text", also=("HF_ENDPOINT",), metavar="URL")
    ] = "https://huggingface.co"
    hub_token: Annotated[Secret | None, About("token for the hub", also=("HF_TOKEN",))] = None
    hub_kind: Annotated[
        Literal["auto", "huggingface", "modelscope"],
        About("which routes the hub has; auto: by its address"),
    ] = "auto"
    gpus: Annotated[
        str | None,
        About("plan for these GPUs, where the driver does not tell what there is", flag="--gpus", metavar="4xH20-96G"),
    ] = None
    users: Annotated[
        int, About("conversations that may fill their window at the same time", flag="--users", minimum=1)
    ] = 1
    prefer: Annotated[
        Literal["balanced", "quality", "speed"],
        About("which weights to take: the most exact, the fastest, or the middle", flag="--prefer", metavar="WHAT"),
    ] = "balanced"
    vllm: Annotated[
        str | None,
        About("the program vllm (default: the one on the PATH)", flag="--vllm-command", metavar="PATH"),
    ] = None
    vllm_arguments: Annotated[
        str | None,
        About("more arguments for vllm serve, quoted as in a shell", flag="--vllm-arguments", metavar="TEXT"),
    ] = None


class Client(msgspec.Struct, frozen=True):
    """For the commands that use a gateway that already runs."""

    url: Annotated[
        str | None,
        About(
            "address of the gateway (default: the one that runs on this machine)",
            flag="--url",
            kind="gateway URL",
        ),
    ] = None
    claude: Annotated[Path | None, About("the Claude Code program", flag="--claude", metavar="PATH")] = None


class Folders(msgspec.Struct, frozen=True):
    """Where qiao keeps things between runs. The defaults follow the XDG variables."""

    state: Annotated[Path, About("folder for the key and for what runs", flag="--state", metavar="FOLDER")] = Path()
    cache: Annotated[Path, About("folder for downloaded models", flag="--cache", metavar="FOLDER")] = Path()


class Log(msgspec.Struct, frozen=True):
    """What is written to stderr while the gateway runs."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], About("how much to log", flag="--log-level", metavar="LEVEL")
    ] = "info"
    json: Annotated[bool, About("write one JSON object a line", flag="--json-logs")] = False


class Origin(msgspec.Struct, frozen=True):
    """Where a value came from: the kind of source, and its place (`--port`, `QIAO_PORT`, `qiao.toml`)."""

    kind: Literal["default", "file", "environment", "flag", "state"]
    place: str = ""

    def __str__(self) -> str:
        return self.place or self.kind


DEFAULT = Origin("default")
_RANK = {"default": 0, "state": 1, "file": 2, "environment": 3, "flag": 4}


class Config(msgspec.Struct, frozen=True):
    """Everything that was configured. `origins` knows only values that did not come from a default."""

    server: Server = Server()
    auth: Auth = Auth()
    upstream: Upstream = Upstream()
    models: Models = Models()
    context: Context = Context()
    tools: Tools = Tools()
    engine: Engine = Engine()
    client: Client = Client()
    folders: Folders = Folders()
    log: Log = Log()
    origins: dict[str, Origin] = {}
    warnings: tuple[str, ...] = ()

    def origin(self, key: str) -> Origin:
        """Where the value of `section.name` came from."""
        return self.origins.get(key, DEFAULT)

    def value(self, key: str) -> Value:
        """The value of `section.name`."""
        section, _, name = key.partition(".")
        return cast("Value", getattr(getattr(self, section), name))

    def replace(self, key: str, value: Value, origin: Origin) -> Config:
        """The same configuration with one value decided anew."""
        section, _, name = key.partition(".")
        changed = msgspec.structs.replace(getattr(self, section), **{name: value})
        return msgspec.structs.replace(self, **{section: changed}, origins={**self.origins, key: origin})

    def describe(self) -> str:
        """Every value and where it came from, a line each; secrets stay hidden."""
        rows = [(option.key, _shown(self.value(option.key)), str(self.origin(option.key))) for option in options()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{key:<{widths[0]}}  {value:<{widths[1]}}  {origin}" for key, value, origin in rows)


SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "auth": Auth,
    "upstream": Upstream,
    "models": Models,
    "context": Context,
    "tools": Tools,
    "engine": Engine,
    "client": Client,
    "folders": Folders,
    "log": Log,
}

_OTHER_VARIABLES = frozenset({"QIAO_CONFIG"})


@functools.cache
def options() -> tuple[Option, ...]:
    """Every option there is, in the order of the sections."""
    return tuple(option for name, cls in SECTIONS.items() for option in declared(name, cls))


def option(key: str) -> Option:
    """The option at `section.name`."""
    return next(each for each in options() if each.key == key)


def environment() -> dict[str, str]:
    """The environment of this process, as it is now."""
    return dict(os.environ)


def colour_wanted(stream: TextIO) -> bool:
    """Whether people who read `stream` see colours: a terminal, and neither NO_COLOR nor a dumb one."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def resolve(
    flags: Mapping[str, str | bool | None],
    *,
    variables: Mapping[str, str],
    folder: Path,
    file: str | None = None,
    file_in_folder: bool = True,
) -> Config:
    """The configuration from all sources.

    `flags` is keyed by `section.name`, None where a flag was not given. `file` is `--config`; without it and
    QIAO_CONFIG the qiao.toml in `folder` is read, unless `file_in_folder` is False: commands that people run
    inside projects of others must not take the address to which they send a key from such a folder.
    """
    found: dict[str, tuple[Value, Origin]] = {}
    path = _file(variables, folder, file, file_in_folder)
    if path is not None:
        found.update(_from_file(path))
    found.update(_from_environment(variables, folder))
    found.update(_from_flags(flags, folder))
    for key, default in _default_folders(variables).items():
        found.setdefault(key, (default, DEFAULT))
    sections: dict[str, dict[str, Value]] = {name: {} for name in SECTIONS}
    for key, (value, _) in found.items():
        section, _, name = key.partition(".")
        sections[section][name] = value
    built = {name: cls(**sections[name]) for name, cls in SECTIONS.items()}
    origins = {key: origin for key, (_, origin) in found.items() if origin.kind != "default"}
    config = msgspec.structs.replace(Config(), **built, origins=origins, warnings=tuple(_warnings(variables)))
    return _settle_auth(config)


def _settle_auth(config: Config) -> Config:
    """`--no-auth` and `--api-key` exclude each other: a conflict on one level, else the higher level wins."""
    if config.auth.api_key is None or not config.auth.no_auth:
        return config
    key, none = config.origin("auth.api_key"), config.origin("auth.no_auth")
    if _RANK[key.kind] == _RANK[none.kind]:
        raise ConfigurationError(
            f"{none} asks for no key, and {key} sets one.",
            hint="Keep one of the two: a key is the safe choice.",
        )
    loser = ("auth.api_key", None) if _RANK[none.kind] > _RANK[key.kind] else ("auth.no_auth", False)
    winner, over = (none, key) if loser[0] == "auth.api_key" else (key, none)
    settled = config.replace(loser[0], loser[1], winner)
    return msgspec.structs.replace(settled, warnings=(*settled.warnings, f"{winner} overrides {over}."))


def _from_flags(flags: Mapping[str, str | bool | None], folder: Path) -> Iterator[tuple[str, tuple[Value, Origin]]]:
    for key, given in flags.items():
        if given is None:
            continue
        declared_here = option(key)
        place = declared_here.about.flag or key
        value = given if isinstance(given, bool) else _read_text(declared_here, given, folder, place)
        yield key, (value, Origin("flag", place))


def _from_environment(variables: Mapping[str, str], folder: Path) -> Iterator[tuple[str, tuple[Value, Origin]]]:
    for each in options():
        # An empty variable counts as unset: that is how compose files and CI systems write "nothing".
        names = (name for name in (each.variable, *each.about.also) if name and variables.get(name, "").strip())
        place = next(names, None)
        if place is not None:
            yield each.key, (_read_text(each, variables[place], folder, place), Origin("environment", place))


def _read_text(each: Option, text: str, folder: Path, place: str) -> Value:
    try:
        return each.from_text(text, folder)
    except ValueError:
        hint = _capital(each.about.help) + "."
        raise ConfigurationError(f"{place} takes {each.expected}{each.quoted(text)}.", hint=hint) from None


def _file(variables: Mapping[str, str], folder: Path, given: str | None, in_folder: bool) -> Path | None:
    asked = given or variables.get("QIAO_CONFIG", "").strip() or None
    if asked is not None:
        path = folder / Path(asked).expanduser()
        if not path.is_file():
            source = "--config" if given else "QIAO_CONFIG"
            raise ConfigurationError(f"{source} names {asked}, and there is no such file.", hint="Check the path.")
        return path
    path = folder / FILE_NAME
    return path if in_folder and path.is_file() else None


def _from_file(path: Path) -> Iterator[tuple[str, tuple[Value, Origin]]]:
    try:
        with path.open("rb") as stream:
            content = tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise ConfigurationError(f"{path} is no valid TOML: {problem}.", hint="Mend the file at that place.") from None
    except OSError as problem:
        raise ConfigurationError(f"{path} cannot be read: {problem.strerror}.", hint="Check its permissions.") from None
    for section, table in content.items():
        if section not in SECTIONS:
            raise ConfigurationError(f"{path}: there is no section [{section}].", hint=_near(section, list(SECTIONS)))
        if not isinstance(table, dict):
            raise ConfigurationError(
                f"{path}: `{section}` is a section, not a value.",
                hint=f"Write [{section}] on a line of its own.",
            )
        yield from _section_of_file(path, section, table)


def _section_of_file(path: Path, section: str, table: dict[str, object]) -> Iterator[tuple[str, tuple[Value, Origin]]]:
    known = {each.name: each for each in options() if each.section == section}
    for name, given in table.items():
        place = f"{path}: `{section}.{name}`"
        if name not in known:
            raise ConfigurationError(f"{place} is not a setting.", hint=_near(name, list(known)))
        each = known[name]
        try:
            value = each.from_toml(given, path.parent)
        except ValueError:
            example = each.example(given)
            hint = f"Write {example}" if example else _capital(each.about.help) + "."
            raise ConfigurationError(f"{place} takes {each.expected}{each.quoted(given)}.", hint=hint) from None
        yield each.key, (value, Origin("file", path.name))


def _default_folders(variables: Mapping[str, str]) -> dict[str, Path]:
    home = Path(variables.get("HOME") or Path.home())
    if sys.platform == "win32":
        local = Path(variables.get("LOCALAPPDATA") or home / "AppData" / "Local")
        return {"folders.state": local / "qiao" / "state", "folders.cache": local / "qiao" / "cache"}
    state = _absolute(variables.get("XDG_STATE_HOME")) or home / ".local" / "state"
    cache = _absolute(variables.get("XDG_CACHE_HOME")) or home / ".cache"
    return {"folders.state": state / "qiao", "folders.cache": cache / "qiao"}


def _absolute(text: str | None) -> Path | None:
    # The XDG specification asks to ignore relative paths.
    return Path(text) if text and Path(text).is_absolute() else None


def _warnings(variables: Mapping[str, str]) -> Iterator[str]:
    known = {each.variable for each in options() if each.variable} | _OTHER_VARIABLES
    for name in sorted(variables):
        if name.startswith("QIAO_") and name not in known:
            yield f"{name} is not a variable of qiao and has no effect. {_near(name, sorted(known))}"


_Name = TypeVar("_Name", bound=str)


def _near(name: str, known: list[_Name]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]}?" if near else "Known are " + ", ".join(known) + "."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shown(value: Value) -> str:
    match value:
        case None:
            return "-"
        case Secret():
            return "(set)"
        case bool():
            return "yes" if value else "no"
        case dict():
            return ", ".join(f"{name} → {model}" for name, model in value.items()) or "-"
        case _:
            return str(value)
