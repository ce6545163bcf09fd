"""What one model family needs to be told apart from the others: a Profile, and how a name finds its own.

A profile holds facts only, each with its reason and source in `why`; decisions are made in `qiao.policies`.
Sampling defaults are not here on purpose: a client that asks for none gets the engine's `generation_config`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

import msgspec

Reasoning = Literal["none", "hybrid", "always"]
Resend = Literal["drop", "send", "keep"]
ToolForm = Literal[
    "plain",
    "hermes",
    "qwen3_coder",
    "qwen3_5",
    "qwen3_6",
    "glm45",
    "glm47",
    "deepseek_v3",
    "deepseek_v31",
    "kimi_k2",
    "llama3",
]


# Reasons that many families share.
NO_SWITCH = "model card: non-thinking, the template has no switch"
HYBRID = "template variable `enable_thinking`, true when absent"
TEXT_ONLY = "model card: text only"
SEES = "model card: vision-language"


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Facts of one model family.

    * `family`: its name for people.
    * `pattern`: regular expression searched in the lower-case model name without its organisation.
    * `plain_id`: the name under which clients see the model, with the pattern's groups in braces (`qwen3-{size}`);
      empty, or where a group `size` found nothing: the model's own name, tidied (`plain_name`).
      Never `claude-…`: Claude Code believes a window limit only for names it does not know.
    * `system_in_place`: the chat template renders a system turn in the middle where it stands. False: it raises, drops
      it or moves it to the head, so that it has to be written as a reminder into a neighbouring turn.
    * `images`: the model sees pictures. None: unknown, pictures are passed on.
    * `reasoning`: "none" never reasons, "hybrid" can be switched, "always" cannot be stopped.
    * `thinking_kwarg`: the template variable that switches a hybrid.
    * `thinks_by_default`: what a hybrid does when the variable is absent.
    * `opens_reasoning`: the template writes the opening tag of the reasoning itself, wherever the model is to think;
      for probes of servers that do not show their prompt.
    * `effort`: the effort words that the template takes, weakest first; anything else may make it raise.
      Empty: it takes none.
    * `resend`: what becomes of the reasoning of earlier turns by default: dropped, sent back, or sent back with
      `keep_kwarg` set so that the template keeps it.
    * `keep_kwarg`: the template variable, and its value, that keeps the reasoning of earlier turns.
    * `context`: native window in tokens, only used where the engine does not tell its own.
    * `max_output`: the longest single answer that the publisher recommends, in tokens; longer asks are cut.
    * `dialect`: how the model writes tool calls as text.
    * `tool_form`: how its template writes tools, calls and results, for servers that do not; see `policies.text_tools`.
    * `default_system`: what the template says in place of a system prompt that nobody gave, if it lists tools.
    * `why`: reason and source by field name.
    """

    family: str
    pattern: str
    plain_id: str = ""
    system_in_place: bool = True
    images: bool | None = False
    reasoning: Reasoning = "none"
    thinking_kwarg: str | None = None
    thinks_by_default: bool = True
    opens_reasoning: bool = False
    effort: tuple[str, ...] = ()
    resend: Resend = "drop"
    keep_kwarg: tuple[str, bool] | None = None
    context: int | None = None
    max_output: int | None = None
    dialect: str | None = None
    tool_form: ToolForm = "plain"
    default_system: str = ""
    why: dict[str, str] = {}


# Suffixes that say how the weights are stored, not which model it is.
_STORAGE = re.compile(
    r"[-_.](?:fp8|fp4|nvfp4|mxfp4|bf16|fp16|awq|gptq|int4|int8|w4a16|w8a8|4bit|8bit|gguf|mlx|dynamic|ud"
    r"|i?q\d(?:_[a-z0-9]+)*)(?=$|[-_.])"
)


# Where Hugging Face's programs keep a repository's files: the folder's own name is a revision.
_SNAPSHOT = re.compile(r"(?:^|/)models--(?:[^/]+?--)?(?P<name>[^/]+)/snapshots/[^/]+$")


def last_name(model: str) -> str:
    """The model's name without folder and organisation, also in the caches of Hugging Face and of ModelScope."""
    path = model.strip().rstrip("/").replace("\\", "/")
    snapshot = _SNAPSHOT.search(path)
    name = snapshot["name"] if snapshot else path.rsplit("/", 1)[-1]
    return name.replace("___", ".")  # ModelScope's folders have no dots in their names


def bare_name(model: str) -> str:
    """The model's name in lower case without folder, organisation, revision and file ending."""
    name = last_name(model).lower().removesuffix(".gguf")
    return name.split(":", 1)[0]


def plain_name(model: str) -> str:
    """A tidy public name for a model of no known family: bare, and without words about its storage."""
    name = bare_name(model)
    while (shorter := _STORAGE.sub("", name)) != name:
        name = shorter
    # A name that a client would take for Anthropic's own changes how it behaves.
    if name.startswith("claude"):
        name = f"open-{name}"
    return name or "model"


def match(model: str, families: Iterable[Profile], unknown: Profile) -> Profile:
    """The first family whose pattern is found in `model`, with its `plain_id` filled in; else `unknown`."""
    name = bare_name(model)
    for family in families:
        found = re.search(family.pattern, name)
        if found is None:
            continue
        groups = found.groupdict(default="")
        is_complete = bool(family.plain_id) and groups.get("size") != ""
        plain = family.plain_id.format(**groups) if is_complete else plain_name(model)
        return msgspec.structs.replace(family, plain_id=plain)
    return msgspec.structs.replace(unknown, plain_id=plain_name(model))
