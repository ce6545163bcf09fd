"""A prompt in the layout of Qwen's chat templates, for counting where the engine has no tokenizer to ask.

Not what is sent: the engine renders with its own template. Written from the layout, checked against Qwen3's prompts; a
newer template differs by some tokens a tool. In pieces, one a turn, because no token reaches over a control token.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from qiao.core.conversation import Conversation
from qiao.core.openai import request
from qiao.core.openai.target import Target

CONTROL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)
"""Texts that are one token each, in the order of their numbers."""

_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function "
    "signatures within <tools></tools> XML tags:\n<tools>"
)
_CALLS = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)
_KWARGS = msgspec.json.Decoder(dict[str, Any])


def pieces(conversation: Conversation, target: Target) -> list[str]:
    """The prompt, cut before every message. Joined it is the whole."""
    messages: list[dict[str, Any]] = msgspec.to_builtins(request.messages(conversation, target))
    head = str(messages.pop(0).get("content")) if messages and messages[0]["role"] == "system" else ""
    if conversation.tools:
        listed = (
            json.dumps(_shown(tool), ensure_ascii=False) for tool in map(request.function_tool, conversation.tools)
        )
        head = "\n\n".join(part for part in (head, "\n".join((_TOOLS, *listed)) + _CALLS) if part)
    found = [f"<|im_start|>system\n{head}<|im_end|>\n"] if head else []
    asked = max((place for place, message in enumerate(messages) if _is_query(message)), default=-1)
    for place, message in enumerate(messages):
        is_first = place == 0 or messages[place - 1]["role"] != "tool"
        is_last = place + 1 == len(messages) or messages[place + 1]["role"] != "tool"
        found.append(_message(message, is_first=is_first, is_last=is_last, has_thought=place > asked))
    found.append(_opening(conversation))
    return found


def _shown(tool: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(tool))


def _is_query(message: dict[str, Any]) -> bool:
    """Whether a person speaks: the reasoning before that is left out."""
    words = _words(message.get("content"))
    is_result = words.startswith("<tool_response>") and words.endswith("</tool_response>")
    return bool(message["role"] == "user") and not is_result


def _message(message: dict[str, Any], *, is_first: bool, is_last: bool, has_thought: bool) -> str:
    words = _words(message.get("content"))
    if message["role"] == "tool":
        before = "<|im_start|>user" if is_first else ""
        return f"{before}\n<tool_response>\n{words}\n</tool_response>" + ("<|im_end|>\n" if is_last else "")
    if message["role"] == "assistant":
        thought = message.get("reasoning") or message.get("reasoning_content")
        said = bool(words)
        if thought and has_thought:
            thought, words = thought.strip("\n"), words.lstrip("\n")
            words = f"<think>\n{thought}\n</think>\n\n{words}"
        for number, call in enumerate(message.get("tool_calls") or ()):
            function = call["function"]
            written = (
                f'<tool_call>\n{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}\n</tool_call>'
            )
            words += ("\n" if said or number else "") + written
    return f"<|im_start|>{message['role']}\n{words}<|im_end|>\n"


def _words(content: object) -> str:
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _opening(conversation: Conversation) -> str:
    if conversation.is_prefill:
        return ""
    raw = conversation.extras.get("chat_template_kwargs")
    is_off = raw is not None and _KWARGS.decode(raw).get("enable_thinking") is False
    return "<|im_start|>assistant\n" + ("<think>\n\n</think>\n\n" if is_off else "")
