"""A whole answer in Anthropic's shape, and the parts (usage, stop reason) that the stream shares with it."""

from __future__ import annotations

from typing import Any, assert_never

import msgspec

from qiao.core.anthropic.ids import to_client
from qiao.core.anthropic.signature import seal
from qiao.core.events import Finished, FinishReason, Usage
from qiao.core.fold import Answer, CallBlock, ReasoningBlock, TextBlock
from qiao.core.json_text import encode_json

_STOP_REASONS: dict[FinishReason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "stop_sequence": "stop_sequence",
    "context": "model_context_window_exceeded",
}


class Frame(msgspec.Struct, frozen=True):
    """What an answer says beside its content.

    * `message_id`: `msg_…`; `model`: the name the client asked for.
    * `prompt_estimate`: tokens to report as input until the engine says (0: nothing is known).
    * `show_thinking`: False sends thinking blocks without their words.
    * `applied_edits`: the answer to `context_management`; None when it was not asked for.
    * `warm_only`: `max_tokens: 0`, the content is not for the client.
    """

    message_id: str
    model: str
    prompt_estimate: int = 0
    show_thinking: bool = True
    applied_edits: tuple[dict[str, Any], ...] | None = None
    warm_only: bool = False


def usage_object(usage: Usage | None, frame: Frame, *, output_estimate: int = 0) -> dict[str, Any]:
    """Anthropic counts cached and created tokens apart from `input_tokens`; engines count them into the prompt."""
    if usage is None or usage.prompt is None:
        prompt, cached, created = frame.prompt_estimate, 0, 0
    else:
        cached = min(max(usage.cached, 0), usage.prompt)
        created = min(max(usage.created, 0), usage.prompt - cached)
        prompt = usage.prompt - cached - created
    completion = output_estimate if usage is None or usage.completion is None else usage.completion
    if frame.warm_only:
        completion = 0
    reasoning = None if usage is None else usage.reasoning
    return {
        "input_tokens": prompt,
        "output_tokens": completion,
        "cache_creation_input_tokens": created,
        "cache_read_input_tokens": cached,
        "cache_creation": {"ephemeral_5m_input_tokens": created, "ephemeral_1h_input_tokens": 0},
        "output_tokens_details": {"thinking_tokens": reasoning or 0},
        "server_tool_use": None,
        "service_tier": "standard",
        "inference_geo": None,
        "speed": "standard",
    }


def stop_fields(finished: Finished) -> dict[str, Any]:
    """`stop_reason`, `stop_sequence`, `stop_details`: always all three."""
    refused = finished.reason == "content_filter"
    return {
        "stop_reason": _STOP_REASONS[finished.reason],
        "stop_sequence": finished.stop_sequence,
        "stop_details": {"type": "refusal", "category": None, "explanation": None} if refused else None,
    }


def encode(answer: Answer, frame: Frame, *, output_estimate: int = 0) -> bytes:
    """The JSON body of a finished answer. `answer.fault` must be None: a fault is an error body, not a message."""
    finished = answer.finish or Finished("stop")
    if frame.warm_only:
        finished = Finished("length")
    message: dict[str, Any] = {
        "id": frame.message_id,
        "type": "message",
        "role": "assistant",
        "model": frame.model,
        "content": [] if frame.warm_only else [_block(block, frame) for block in answer.blocks],
        **stop_fields(finished),
        "container": None,
        "diagnostics": None,
        "usage": usage_object(answer.usage, frame, output_estimate=output_estimate),
    }
    if frame.applied_edits is not None:
        message["context_management"] = {"applied_edits": list(frame.applied_edits)}
    return encode_json(message)


def _block(block: TextBlock | ReasoningBlock | CallBlock, frame: Frame) -> dict[str, Any]:
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text, "citations": None}
        case ReasoningBlock():
            if frame.show_thinking:
                return {"type": "thinking", "thinking": block.text, "signature": seal("")}
            return {"type": "thinking", "thinking": "", "signature": seal(block.text)}
        case CallBlock():
            return {
                "type": "tool_use",
                "id": to_client(block.id),
                "name": block.name,
                "input": msgspec.Raw(block.arguments.encode("utf-8", "replace")),
            }
        case _:
            assert_never(block)
