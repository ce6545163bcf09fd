"""From what was chosen to a whole Plan: the engine's arguments and environment, the reasons and the warnings. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from qiao import profiles
from qiao.planner import vllm
from qiao.planner.divisions import Layouts
from qiao.planner.fit import UTILISATION, Fit
from qiao.planner.machine import GIB, Gpu, Machine, representative
from qiao.planner.model import ModelFacts
from qiao.planner.plan import PORT, Plan, Reason, Warned
from qiao.planner.request import Request
from qiao.planner.shapes import needs_finer_scales, remarks
from qiao.planner.weights import Division, bf16_bytes, total_bytes
from qiao.profiles import Profile
from qiao.profiles.claude_code import FIRST_REQUEST_WORDS, USEFUL_WINDOW

HOST = "127.0.0.1"
# Engines give up waiting for their workers after ten minutes; reading this much takes longer from a usual disk.
_SLOW_LOAD = 100 * GIB
_LOAD_SECONDS = 3600


def finished(request: Request, fit: Fit, tried: Layouts) -> Plan:
    """The plan for a try that reaches the goal."""
    profile = _profile(fit.model)
    tools = vllm.tool_parser(profile, request.goal.version)
    reasoning = vllm.reasoning_parser(profile, request.goal.version)
    served = profile.plain_id
    return Plan(
        machine=request.machine,
        model=fit.model,
        goal=request.goal,
        served_name=served,
        division=fit.layout.division,
        nodes=fit.layout.nodes,
        replicas=fit.layout.replicas,
        load=fit.load,
        memory=fit.memory,
        cache=fit.cache,
        window=fit.window,
        concurrency=fit.concurrency,
        tokens=fit.tokens,
        arguments=tuple(_arguments(request, fit, served, tools.name, reasoning.name)),
        environment=_environment(request, fit),
        tool_parser=tools.name,
        reasoning_parser=reasoning.name,
        reasons=tuple(_reasons(request, fit, tried, tools, reasoning)),
        warnings=tuple(_warnings(request, fit, profile)),
    )


def _profile(model: ModelFacts) -> Profile:
    profile = profiles.find(model.name, model.known_as)
    if profile.dialect is not None or model.dialect is None:
        return profile
    why = {**profile.why, "dialect": model.dialect.why}
    return msgspec.structs.replace(profile, dialect=model.dialect.name, why=why)


def _arguments(request: Request, fit: Fit, served: str, tools: str | None, reasoning: str | None) -> list[str]:
    division, load = fit.layout.division, fit.load
    words = [fit.model.repository, "--served-model-name", served, "--host", HOST, "--port", str(PORT)]
    words += ["--tensor-parallel-size", str(division.tensor)]
    if division.pipeline > 1:
        words += ["--pipeline-parallel-size", str(division.pipeline)]
    if division.data > 1:
        words += ["--data-parallel-size", str(division.data)]
    if division.expert > 1:
        words += ["--enable-expert-parallel"]
    if fit.layout.nodes > 1:
        words += ["--distributed-executor-backend", "mp", "--nnodes", str(fit.layout.nodes)]
    words += ["--max-model-len", str(fit.window), "--max-num-seqs", str(load.sequences)]
    if fit.model.stretch is not None and fit.window > fit.model.window:
        words += vllm.stretched(fit.model.stretch, fit.window)
    words += ["--max-num-batched-tokens", str(load.batch_tokens)]
    words += ["--gpu-memory-utilization", f"{load.utilisation:g}"]
    if load.cache_type != "auto":
        words += ["--kv-cache-dtype", load.cache_type]
    if representative(request.machine).bf16_arithmetic is False:
        words += ["--dtype", "half"]
    if fit.model.remote_code:
        words += ["--trust-remote-code"]
    words += ["--scheduling-policy", "priority", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
    if tools:
        words += ["--enable-auto-tool-choice", "--tool-call-parser", tools]
    if reasoning:
        words += ["--reasoning-parser", reasoning]
    return words


def _environment(request: Request, fit: Fit) -> dict[str, str]:
    variables: dict[str, str] = {}
    if total_bytes(fit.model) >= _SLOW_LOAD and request.goal.version >= vllm.READY_TIMEOUT_SINCE:
        variables["VLLM_ENGINE_READY_TIMEOUT_S"] = str(_LOAD_SECONDS)
    if fit.model.is_local:
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


def _reasons(
    request: Request, fit: Fit, tried: Layouts, tools: vllm.Chosen, reasoning: vllm.Chosen
) -> Iterator[Reason]:
    model, division = fit.model, fit.layout.division
    gpu = representative(request.machine)
    yield _precision(request, model)
    yield _division(fit, gpu)
    if division.expert > 1:
        yield from _experts(fit, tried)
    yield _window(request, fit)
    yield Reason(
        about="--max-num-seqs",
        text=f"{fit.load.sequences} answers at once: a Claude Code session asks for several side by side; more would "
        "take memory for their scores and CUDA graphs from the cache",
    )
    yield Reason(
        about="--gpu-memory-utilization",
        text=f"{fit.load.utilisation:g} of {(gpu.usable or 0) / GIB:.2f} GiB; the rest is for what the engine does not "
        "count",
        source="vLLM's default is 0.92 in 0.24 and later, 0.9 in 0.16",
    )
    yield Reason(about="--tool-call-parser", text=tools.why if tools.name else f"none: {tools.why}")
    yield Reason(about="--reasoning-parser", text=reasoning.why if reasoning.name else f"none: {reasoning.why}")
    yield Reason(
        about="--scheduling-policy",
        text="the gateway marks what Claude Code asks on the side (titles, summaries of pages), and the engine then "
        "serves the conversations first; without marks it is first come, first served",
    )
    yield Reason(
        about="--enable-prefix-caching",
        text="every turn of a conversation begins with the last one's tokens; they are not read again",
    )
    yield Reason(
        about="--enable-prompt-tokens-details",
        text="the engine then tells how many tokens came from that cache, and Claude Code shows it",
    )
    yield Reason(
        about="--chat-template",
        text="none: the template that comes with the model is right; what it refuses, the gateway rewrites",
    )
    if model.remote_code:
        yield Reason(about="--trust-remote-code", text=model.remote_code)
        return
    yield Reason(
        about="--trust-remote-code",
        text=f"left out: {model.architecture} is built into vLLM, and the flag runs code from the download",
    )


def _precision(request: Request, model: ModelFacts) -> Reason:
    gib = total_bytes(model) / GIB
    text = f"{model.repository}: {model.quantisation.name}, {gib:,.1f} GiB"
    if model.quantisation.precision == "fp8":
        text += (
            f", as published; `--quantization fp8` on the BF16 repository would read {bf16_bytes(model) / GIB:,.1f} "
            "GiB at every start"
        )
    others = [each.repository for each in request.models if each.repository != model.repository]
    if others:
        text += f" (also published: {', '.join(others)})"
    return Reason(about="model", text=text, source="; ".join(source for source in model.sources if source))


def _division(fit: Fit, gpu: Gpu) -> Reason:
    division = fit.layout.division
    weights = max(each.weights for each in fit.memory)
    text = f"{division}: {weights / GIB:.1f} GiB of weights on each GPU of {(gpu.usable or 0) / GIB:.1f} GiB"
    if fit.layout.nodes > 1:
        text += f"; layers go over {fit.layout.nodes} computers, because little passes between layers"
    elif fit.layout.replicas > 1:
        text += (
            f"; it fits into one computer, so each of the {fit.layout.replicas} runs its own engine and the gateway "
            "divides the conversations"
        )
    return Reason(about="parallel", text=text)


def _experts(fit: Fit, tried: Layouts) -> Iterator[Reason]:
    plain = Division(
        tensor=fit.layout.division.tensor, pipeline=fit.layout.division.pipeline, data=fit.layout.division.data
    )
    for division, rule in tried.rejected:
        if division == plain:
            yield Reason(about="--enable-expert-parallel", text=f"without it {rule.text}", source=rule.source)
            return
    if needs_finer_scales(fit.model, plain):
        assert fit.model.experts is not None
        width = fit.model.experts.width / (plain.tensor * plain.data)
        yield Reason(
            about="--enable-expert-parallel",
            text=f"each GPU holds whole experts; cut over {plain.tensor * plain.data} they would be {width:g} wide, no "
            "multiple of the block of 128: vLLM refuses that before 0.29 and has only its Triton kernel for it since",
            source="vllm#17569; vLLM 0.29, fused_moe/oracle/fp8.py: refine_fp8_moe_block_shape",
        )
    else:
        yield Reason(about="--enable-expert-parallel", text="each GPU holds whole experts")


def _window(request: Request, fit: Fit) -> Reason:
    model = fit.model
    if model.stretch is not None and fit.window > model.window:
        return Reason(
            about="--max-model-len",
            text=f"{fit.window:,}, beyond the {model.window:,} tokens that it was trained for, by YaRN with the factor "
            f"{model.stretch.factor(fit.window):g}; {fit.tokens:,} tokens fit, {fit.concurrency:.2f} conversations of "
            "that length at once",
            source=model.stretch.source,
        )
    text = f"{fit.window:,} of the {model.window:,} tokens that it was trained for"
    if fit.window < model.window and request.goal.window is None:
        text += ", as many as the memory allows"
    text += f"; {fit.tokens:,} tokens fit, {fit.concurrency:.2f} conversations of that length at once"
    return Reason(about="--max-model-len", text=text, source="the engine's own arithmetic of blocks")


def _warnings(request: Request, fit: Fit, profile: Profile) -> Iterator[Warned]:
    for note in request.notes:
        yield Warned(code="name", text=note)
    if fit.window < USEFUL_WINDOW:
        yield Warned(
            code="small_window",
            text=f"A window of {fit.window:,} tokens is small for Claude Code, whose first request takes "
            f"{FIRST_REQUEST_WORDS}: it compacts after a few steps. {USEFUL_WINDOW:,} or more is good.",
        )
    if fit.model.stretch is not None and fit.window > fit.model.window:
        yield Warned(
            code="stretched_window",
            text=f"The window goes beyond the {fit.model.window:,} tokens that the model was trained for, by YaRN. "
            "vLLM applies it to texts of every length, and short ones may get worse answers: its makers advise it only "
            f"where long texts are usual ({fit.model.stretch.source.partition(',')[0]}).",
        )
    for remark in remarks(fit.model, fit.layout.division, representative(request.machine)):
        yield Warned(code="remark", text=f"{remark.text[0].upper()}{remark.text[1:]} ({remark.source}).")
    if fit.load.cache_type == "fp8":
        yield Warned(
            code="fp8_cache",
            text="The cache is kept in FP8 without calibrated scales, to reach the window; --quality keeps it in BF16.",
        )
    if fit.load.utilisation < UTILISATION:
        yield Warned(
            code="memory_taken",
            text=f"Somebody else holds memory of a GPU: only {fit.load.utilisation:.0%} can be planned, "
            f"{UTILISATION:.0%} is usual.",
        )
    if profile.dialect is None:
        yield Warned(code="no_tool_parser", text=f"How {fit.model.name} writes tool calls is not known.")
    elif fit.model.dialect is not None and fit.model.dialect.is_guess:
        yield Warned(
            code="guessed_tool_parser",
            text=f"No name tells which model {fit.model.name} is: it is taken to write tool calls as "
            f"{profile.dialect}, {fit.model.dialect.why}. Give the folder the model's name to be sure.",
        )
    yield from _about_machine(request.machine, fit)


def _about_machine(machine: Machine, fit: Fit) -> Iterator[Warned]:
    gpu = representative(machine)
    if gpu.capability is None:
        yield Warned(
            code="unknown_gpu",
            text=f"{gpu.name} is not in the table: whether it multiplies in FP8 is not known, and was not counted on.",
        )
    elif gpu.capability < (7, 5) and fit.model.quantisation.method is None:
        yield Warned(code="old_gpu", text=f"vLLM's kernels for quantised weights need a newer GPU than {gpu.name}.")
    if len({each.name for each in machine.gpus}) > 1:
        yield Warned(code="mixed_gpus", text="The GPUs differ; each is used as far as the smallest of them reaches.")
    system = machine.nodes[0].system
    if system.is_wsl:
        yield Warned(
            code="wsl",
            text="In WSL the engine cannot pin host memory and GPUs cannot reach each other directly: it loads and runs"
            " slower than on Linux. WSL gets half of the computer's memory unless .wslconfig says otherwise.",
        )
    needed = total_bytes(fit.model)
    if system.disk_free is not None and not fit.model.is_local and system.disk_free < needed:
        yield Warned(
            code="disk",
            text=f"The download takes {needed / GIB:,.0f} GiB, and {system.disk_free / GIB:,.0f} GiB are free.",
        )
    if fit.layout.nodes > 1:
        yield Warned(
            code="network",
            text="Set NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME to the network card that connects the computers; the "
            "model has to be in the same folder on each.",
        )
