"""What was seen, as frozen values that the checks read. None: it was not looked at, or nobody could tell."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from qiao.hardware.ports import Owner
from qiao.planner.machine import Machine
from qiao.policies.log_reading import Reading

Kind = Literal["qiao", "LiteLLM", "engine", "other"]


class Mount(msgspec.Struct, frozen=True):
    """A folder of ours (or the hub's) and the bytes free on its file system."""

    folder: Path
    free: int


class Port(msgspec.Struct, frozen=True):
    """A port that something of ours wants. `is_ours`: what listens there is what should. `owner`: who it is."""

    number: int
    wanted_by: str
    is_free: bool
    is_ours: bool = False
    owner: Owner | None = None


class Local(msgspec.Struct, frozen=True, kw_only=True):
    """This machine.

    * `own_processes`: those of our engine, among the processes that hold GPU memory.
    * `clock_offset`: seconds that its clock is ahead of a server elsewhere. `file_limit`: open files.
    """

    machine: Machine = Machine()
    own_processes: frozenset[int] = frozenset()
    mounts: tuple[Mount, ...] = ()
    ports: tuple[Port, ...] = ()
    now: float | None = None
    clock_offset: float | None = None
    file_limit: int | None = None
    driver_problem: str | None = None
    torch_cuda: str | None = None


class Setting(msgspec.Struct, frozen=True):
    """A variable for Claude Code and where it is set: "the environment", or a settings file."""

    name: str
    value: str
    place: str


class ClientFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Claude Code on this machine. `settings`: in the order in which they overrule each other, the strongest last."""

    program: Path | None = None
    missing: str | None = None
    version: str | None = None
    settings: tuple[Setting, ...] = ()
    gateway: str | None = None
    broken_files: tuple[str, ...] = ()


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How a server at an address answers.

    * `asked`: the address as the person wrote it; `address`: the root that was talked to.
    * `failure`: no HTTP answer at all. `status`: of the first request that asks for a key.
    * `has_messages`, `has_chat`: whether /v1/messages and /v1/chat/completions exist there.
    * `better`: the address that answers where `asked` does not.
    """

    asked: str
    address: str
    kind: Kind = "other"
    server: str = ""
    failure: str | None = None
    status: int | None = None
    said: str = ""
    has_key: bool = False
    key_is_sample: bool = False
    has_messages: bool | None = None
    has_chat: bool | None = None
    better: str | None = None
    owner: str | None = None


class EngineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine does, asked or read from its log. `about`: its address or the log's name.

    * `reader`: who reads tool calls: "engine", or "qiao" where a gateway in front does it, in `dialect`.
    * `is_behind_qiao`: a gateway of ours stands in front. `tools_written_by`: "template", or "qiao" in words.
    * `tool_parser`: it reads calls itself; `parser_name` where the log tells it; `reason`: its words.
    * `dialect_from`: who told the dialect. `template_dialect`: in which the chat template asks for calls.
    * `abilities`: what it can do, by name as in /readyz; None: unknown.
    * `leak`: text of a call that came as plain text although a parser is set; "" if it came as a call.
    * `system_refusal`: what it says to a system turn in the middle; "" if it takes one.
    * `swallowed`: an answer came as reasoning only although it should not think: what it said; "" if not.
    """

    about: str
    flavor: str = ""
    version: str | None = None
    model: str | None = None
    root: str | None = None
    window: int | None = None
    reader: Literal["engine", "qiao"] = "engine"
    is_behind_qiao: bool = False
    dialect: str | None = None
    dialect_from: str | None = None
    template_dialect: str | None = None
    abilities: dict[str, bool | None] = {}
    tools_written_by: str | None = None
    tool_parser: bool | None = None
    parser_name: str | None = None
    reasoning_parser: str | None = None
    reason: str = ""
    renders_tools: bool | None = None
    leak: str | None = None
    system_refusal: str | None = None
    prefix_caching: bool | None = None
    hit_rate: float | None = None
    token_details: bool | None = None
    swallowed: str | None = None
    quirks: tuple[str, ...] = ()


class LogFacts(msgspec.Struct, frozen=True):
    """A log (or a start script, or a LiteLLM configuration) that the person named."""

    file: str
    reading: Reading
