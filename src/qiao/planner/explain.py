"""A plan in words and as JSON: every term of the sum, every reason with its source. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from qiao.planner.cache import bytes_per_request, bytes_per_token, replication
from qiao.planner.machine import GIB
from qiao.planner.memory import GpuMemory
from qiao.planner.model import ModelFacts
from qiao.planner.plan import Outcome, Plan, Refusal
from qiao.planner.vllm import version_text
from qiao.planner.weights import bf16_bytes, parameters, total_bytes

SCHEMA = "qiao.plan/1"


def explain(outcome: Outcome) -> str:
    """The sum, line by line, and why everything is as it is."""
    match outcome:
        case Plan():
            return "\n".join(_plan_lines(outcome))
        case Refusal():
            return "\n".join(_refusal_lines(outcome))


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The stable schema of `qiao plan --json`; fields are added, never renamed."""
    match outcome:
        case Plan():
            return _plan_object(outcome)
        case Refusal():
            return _refusal_object(outcome)


def _plan_lines(plan: Plan) -> Iterator[str]:
    model = plan.model
    yield f"Model      {model.repository}"
    yield f"           {parameters(model) / 1e9:,.1f} billion parameters, {model.quantisation.name}"
    yield f"           weights {total_bytes(model) / GIB:,.2f} GiB in all ({bf16_bytes(model) / GIB:,.2f} GiB in BF16)"
    yield f"Machine    {plan.machine}"
    yield f"Parallel   {plan.division}"
    yield ""
    for memory in plan.memory:
        yield from _sum(memory, plan)
        yield ""
    yield "Cache"
    yield from (f"  {line}" for line in _cache_lines(plan))
    yield ""
    yield "Why"
    for reason in plan.reasons:
        source = f"  [{reason.source}]" if reason.source else ""
        yield f"  {reason.about}: {reason.text}{source}"
    for warning in plan.warnings:
        yield f"  note: {warning.text}"


def _sum(memory: GpuMemory, plan: Plan) -> Iterator[str]:
    stage = f", stage {memory.stage + 1} of {len(plan.memory)}" if len(plan.memory) > 1 else ""
    yield f"One GPU ({memory.name}{stage})"
    yield f"  {'total':<16}{memory.total / GIB:>9.2f} GiB"
    yield f"  {'may be used':<16}{memory.allowed / GIB:>9.2f} GiB   x {plan.load.utilisation:g}"
    for line in memory.lines:
        yield f"  - {line.term.replace('_', ' '):<14}{line.bytes / GIB:>9.2f} GiB   {line.how}  [{line.source}]"
    yield f"  = {'cache':<14}{memory.cache / GIB:>9.2f} GiB"


def _cache_lines(plan: Plan) -> Iterator[str]:
    model, attention = plan.model, plan.model.attention
    kind = plan.load.cache_type
    size = "1 byte" if kind == "fp8" else "2 bytes"
    per_token = bytes_per_token(model, kind)
    if attention.latent is not None:
        shape = f"{attention.layers} layers x {attention.latent} latent numbers x {size}"
    else:
        shape = (
            f"2 (keys, values) x {attention.layers} layers x {attention.key_value_heads} heads x "
            f"{attention.head_size} x {size}"
        )
    yield f"a token         {shape} = {per_token:,} bytes"
    copies = replication(model, plan.division.tensor)
    here = f"{plan.cache.bytes_per_token:,} bytes of it on each GPU"
    yield f"                {here}" + (f", each key-value head kept {copies} times" if copies > 1 else "")
    if model.linear:
        state = bytes_per_request(model) / GIB
        yield f"a conversation  {state * 1024:,.1f} MiB more for {model.linear.layers} layers of fixed state"
    yield (
        f"a full window   {plan.cache.request_bytes(plan.window) / GIB:.2f} GiB on each GPU for {plan.window:,} tokens,"
        f" in blocks of {plan.cache.block_tokens}"
    )
    yield f"fits            {plan.tokens:,} tokens, {plan.concurrency:.2f} full windows"


def _refusal_lines(refusal: Refusal) -> Iterator[str]:
    yield refusal.message
    for memory in refusal.closest[:1]:
        yield ""
        yield f"One GPU ({memory.name}), {refusal.division}"
        yield f"  {'may be used':<16}{memory.allowed / GIB:>9.2f} GiB"
        for line in memory.lines:
            yield f"  - {line.term.replace('_', ' '):<14}{line.bytes / GIB:>9.2f} GiB   {line.how}"
        yield f"  = {'cache':<14}{memory.cache / GIB:>9.2f} GiB"
    for reason in refusal.reasons:
        source = f"  [{reason.source}]" if reason.source else ""
        yield f"  not {reason.about}: {reason.text}{source}"


def _plan_object(plan: Plan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "fits": True,
        "model": _model_object(plan.model, plan.served_name),
        "machine": _machine_object(plan),
        "engine": {"name": "vllm", "version": version_text(plan.goal.version)},
        "parallel": {
            "tensor": plan.division.tensor,
            "pipeline": plan.division.pipeline,
            "data": plan.division.data,
            "expert": plan.division.expert,
            "nodes": plan.nodes,
            "replicas": plan.replicas,
        },
        "quantization": plan.model.quantisation.precision,
        "window": plan.window,
        "concurrency": round(plan.concurrency, 2),
        "users": plan.goal.users,
        "max_num_seqs": plan.load.sequences,
        "tool_call_parser": plan.tool_parser,
        "reasoning_parser": plan.reasoning_parser,
        "chat_template": None,
        "prefix_caching": plan.load.prefix_caching,
        "args": list(plan.arguments),
        "command": list(plan.command),
        "env": dict(plan.environment),
        "memory": _memory_object(plan),
        "reasons": [{"about": each.about, "text": each.text, "source": each.source} for each in plan.reasons],
        "warnings": [{"code": each.code, "text": each.text} for each in plan.warnings],
    }


def _model_object(model: ModelFacts, served_name: str | None) -> dict[str, Any]:
    return {
        "repository": model.repository,
        "served_name": served_name,
        "architecture": model.architecture,
        "parameters": parameters(model),
        "window": model.window,
        "sources": [source for source in model.sources if source],
    }


def _machine_object(outcome: Outcome) -> dict[str, Any]:
    machine = outcome.machine
    return {
        "description": str(machine),
        "nodes": len(machine.nodes),
        "gpus": [
            {
                "name": gpu.name,
                "memory_bytes": gpu.memory,
                "usable_bytes": gpu.usable,
                "free_bytes": gpu.free,
                "compute_capability": ".".join(map(str, gpu.capability)) if gpu.capability else None,
                "fp8_arithmetic": gpu.fp8_arithmetic,
                "interconnect": gpu.interconnect,
                "source": gpu.source,
            }
            for gpu in machine.gpus
        ],
    }


def _memory_object(plan: Plan) -> dict[str, Any]:
    kind = plan.load.cache_type
    return {
        "weights_bytes_total": total_bytes(plan.model),
        "weights_bytes_bf16": bf16_bytes(plan.model),
        "kv_bytes_per_token_total": bytes_per_token(plan.model, kind),
        "kv_bytes_per_token_per_gpu": plan.cache.bytes_per_token,
        "kv_bytes_per_window_per_gpu": plan.cache.request_bytes(plan.window),
        "kv_replication": replication(plan.model, plan.division.tensor),
        "kv_dtype": "fp8" if kind == "fp8" else "bf16",
        "state_bytes_per_request_total": bytes_per_request(plan.model),
        "block_tokens": plan.cache.block_tokens,
        "tokens_total": plan.tokens,
        "gpu_memory_utilization": plan.load.utilisation,
        "per_gpu": [_gpu_object(each) for each in plan.memory],
    }


def _gpu_object(memory: GpuMemory) -> dict[str, Any]:
    terms = {f"{line.term}_bytes": line.bytes for line in memory.lines}
    return {
        "stage": memory.stage,
        "gpu": memory.name,
        "total_bytes": memory.total,
        "allowed_bytes": memory.allowed,
        **terms,
        "kv_cache_bytes": memory.cache,
        "headroom_bytes": memory.outside,
        "how": {line.term: {"text": line.how, "source": line.source} for line in memory.lines},
    }


def _refusal_object(refusal: Refusal) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "fits": False,
        "model": _model_object(refusal.model, None) if refusal.model else None,
        "machine": _machine_object(refusal),
        "message": refusal.message,
        "missing_bytes_per_gpu": refusal.missing,
        "memory": {"per_gpu": [_gpu_object(each) for each in refusal.closest]} if refusal.closest else None,
        "nearest": [{"text": each.text, "command": each.command} for each in refusal.nearest],
        "reasons": [{"about": each.about, "text": each.text, "source": each.source} for each in refusal.reasons],
        "warnings": [{"code": each.code, "text": each.text} for each in refusal.warnings],
    }
