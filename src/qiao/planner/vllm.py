"""What differs between versions of vLLM, as data, and what a plan's decisions are called there. Pure.

Every flag that a plan uses is in all versions from OLDEST on: the lists of flags that the real parsers of six versions
take are kept in tests/golden/plans/flags, and a test holds the plans against them. What is not in all of them is below,
with the version.
"""

from __future__ import annotations

import re

import msgspec

from qiao.errors import ConfigurationError
from qiao.planner.machine import GIB, Gpu
from qiao.planner.model import ModelFacts, Stretch
from qiao.profiles import Profile

Version = tuple[int, ...]

NEWEST: Version = (0, 33, 0)
OLDEST: Version = (0, 11, 2)

# The variable is read since then (envs.py of 0.16.0; 0.11.2 has it not).
READY_TIMEOUT_SINCE: Version = (0, 16)

# Seen in the configurations that 0.24.0 and 0.32.0 make of these flags; older ones were not looked at.
STRETCHES_SINCE: Version = (0, 24)


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
    "pythonic": "llama4_pythonic",
    "harmony": "openai",
}

# Since then the parser qwen3 takes an answer whose opening tag stands in the prompt (templates of the Thinking models).
_QWEN3_WITHOUT_OPENING: Version = (0, 24)
_GLM47_SINCE: Version = (0, 16)  # tool-parser glm47: in the flags of 0.16.0, not of 0.11.2
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
    if version < OLDEST[:2]:
        raise ConfigurationError(
            f"vLLM {text} is older than {version_text(OLDEST)}, the oldest whose flags are known.",
            hint="Install a newer one: pip install -U vllm",
        )
    return version


def version_text(version: Version) -> str:
    """(0, 32, 0) to `0.32.0`."""
    return ".".join(str(part) for part in version)


def tool_parser(profile: Profile, version: Version) -> Chosen:
    """The parser of tool calls for a family."""
    if profile.dialect is None:
        return Chosen(None, f"how {profile.family} writes tool calls is not known; the gateway reads them itself")
    name = TOOL_PARSERS.get(profile.dialect)
    if name is None:
        return Chosen(None, f"vLLM has no parser for {profile.dialect}; the gateway reads the calls itself")
    if name == "glm45" and profile.family.startswith("GLM-4.7") and version >= _GLM47_SINCE:
        return Chosen(
            "glm47", "GLM-4.7 leaves out the line ends that the parser glm45 waits for (vLLM recipes, GLM-4.7)"
        )
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


def longest_window(model: ModelFacts, version: Version) -> int:
    """Tokens that a model can be asked for: its own window, or what YaRN makes of it."""
    if model.stretch is None or version < STRETCHES_SINCE:
        return model.window
    return max(model.window, model.stretch.window)


def stretched(stretch: Stretch, window: int) -> list[str]:
    """The flags for a window beyond the model's own.

    Fields one by one instead of one JSON text: no shell has to quote them. 0.32 does not multiply the window by the
    factor any more, so it is told too; 0.24 takes no notice of that.
    """
    factor = stretch.factor(window)
    fields = {
        "max_position_embeddings": str(int(stretch.original * factor)),
        "rope_parameters.rope_type": "yarn",
        "rope_parameters.rope_theta": str(stretch.base),
        "rope_parameters.factor": f"{factor:.1f}",
        "rope_parameters.original_max_position_embeddings": str(stretch.original),
    }
    return [word for name, value in fields.items() for word in (f"--hf-overrides.{name}", value)]


def batch_tokens(gpu: Gpu) -> int:
    """Tokens of one pass: the engine's own default for such a GPU (vLLM, arg_utils, usage of the API server)."""
    memory = gpu.usable or 0
    if memory >= 160 * GIB:
        return 16_384
    if memory >= 70 * GIB and "a100" not in gpu.name.lower():
        return 8_192
    return 2_048
