"""vLLM's flags as data, by version, and what a plan's decisions are called in them. Pure.

The lists of flags that the real parsers of several versions take are kept in tests/golden/plans/flags; a test holds
every plan's flags against them.
"""

from __future__ import annotations

import re

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.machine import GIB, Gpu
from qiao.profiles import Profile

Version = tuple[int, ...]

NEWEST: Version = (0, 33, 0)
OLDEST: Version = (0, 11, 0)


class Flag(msgspec.Struct, frozen=True, kw_only=True):
    """A flag that only some versions have. `since` is included, `until` is not."""

    name: str
    since: Version = OLDEST
    until: Version | None = None
    source: str = ""

    def is_in(self, version: Version) -> bool:
        """Whether this version knows it."""
        return self.since <= version and (self.until is None or version < self.until)


# What is not listed is in every version from OLDEST on.
FLAGS: dict[str, Flag] = {
    each.name: each
    for each in (
        Flag(name="--mamba-cache-mode", since=(0, 16), source="engine/arg_utils.py of 0.16.0; 0.11.2 has it not"),
        Flag(name="--default-chat-template-kwargs", since=(0, 16), source="0.16.0; 0.11.2 has it not"),
        Flag(name="--language-model-only", since=(0, 17), source="0.24.0; 0.16.0 has it not; recipes ask for 0.17"),
        Flag(name="--nnodes", since=(0, 11, 2), source="engine/arg_utils.py of 0.11.2"),
    )
}

# Dialect of a profile to the name of vLLM's parser for it.
TOOL_PARSERS: dict[str, str] = {
    "hermes": "hermes",
    "qwen3_coder": "qwen3_coder",
    "llama3_json": "llama3_json",
    "mistral": "mistral",
    "deepseek_v3": "deepseek_v3",
    "deepseek_v31": "deepseek_v31",
    "glm45": "glm45",
    "kimi_k2": "kimi_k2",
    "harmony": "openai",
}

# Since then the parser qwen3 takes an answer whose opening tag stands in the prompt (templates of the Thinking models).
_QWEN3_WITHOUT_OPENING: Version = (0, 24)
_REASONING_PARSERS: tuple[tuple[str, str], ...] = (
    ("qwen", "qwen3"),
    ("deepseek-r1", "deepseek_r1"),
    ("deepseek", "deepseek_v3"),
    ("glm", "glm45"),
    ("kimi", "kimi_k2"),
    ("gpt-oss", "openai_gptoss"),
)


class Chosen(msgspec.Struct, frozen=True):
    """A parser's name and why; None where none must be set."""

    name: str | None
    why: str


def parse_version(text: str) -> Version:
    """`0.32` or `v0.32.1+cu130` to numbers."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    if found is None:
        raise ConfigurationError(f"{text} is not a version of vLLM.", hint="Write it like 0.32.")
    version = tuple(int(part) for part in found.groups(default="0"))
    if version < OLDEST:
        raise ConfigurationError(
            f"vLLM {text} is older than {version_text(OLDEST)}, the oldest whose flags are known.",
            hint="Install a newer one: pip install -U vllm",
        )
    return version


def version_text(version: Version) -> str:
    """(0, 32, 0) to `0.32.0`."""
    return ".".join(str(part) for part in version)


def tool_parser(profile: Profile) -> Chosen:
    """The parser of tool calls for a family."""
    if profile.dialect is None:
        return Chosen(None, f"how {profile.family} writes tool calls is not known; the gateway reads them itself")
    name = TOOL_PARSERS.get(profile.dialect)
    if name is None:
        return Chosen(None, f"vLLM has no parser for {profile.dialect}; the gateway reads the calls itself")
    return Chosen(name, profile.why.get("dialect", profile.dialect))


def reasoning_parser(profile: Profile, version: Version) -> Chosen:
    """The parser of reasoning for a family; none for a model that never reasons."""
    if profile.reasoning == "none":
        return Chosen(
            None,
            f"{profile.family} does not reason; with a reasoning parser its whole answer would be taken for reasoning",
        )
    family = profile.family.lower()
    for prefix, name in _REASONING_PARSERS:
        if not family.startswith(prefix):
            continue
        if name == "qwen3" and profile.reasoning == "always" and version < _QWEN3_WITHOUT_OPENING:
            return Chosen(
                "deepseek_r1",
                "the template opens <think> itself, and the parser qwen3 of this version wants to see the opening tag",
            )
        return Chosen(name, f"{profile.family}: {profile.why.get('reasoning', 'reasons')}")
    return Chosen(None, f"vLLM has no reasoning parser for {profile.family}; the gateway splits it itself")


def batch_tokens(gpu: Gpu) -> int:
    """Tokens of one pass: the engine's own default for such a GPU (vLLM, arg_utils, usage of the API server)."""
    memory = gpu.usable or 0
    if memory >= 160 * GIB:
        return 16_384
    if memory >= 70 * GIB and "a100" not in gpu.name.lower():
        return 8_192
    return 2_048


def known_only(arguments: list[str], version: Version) -> list[str]:
    """`arguments` without the flags, and their values, that `version` has not."""
    kept: list[str] = []
    is_dropped = False
    for word in arguments:
        if word.startswith("--"):
            flag = FLAGS.get(word)
            is_dropped = flag is not None and not flag.is_in(version)
        if not is_dropped:
            kept.append(word)
    return kept
