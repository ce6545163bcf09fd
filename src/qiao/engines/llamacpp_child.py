"""The process that the embedded engine runs in: `python -m qiao.engines.llamacpp_child`.

It reads its settings, with the key, as one JSON line from stdin (so that the key stands on no command line), tells its
state in JSON lines on stdout, and ends when stdin does: then whoever started it is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import msgspec

from qiao.engines import requirements
from qiao.engines.parent import end_with
from qiao.engines.supervisor import Report
from qiao.errors import StartError

_HTTP_THREADS = 64


class ChildSettings(msgspec.Struct, frozen=True):
    """What the parent asks for.

    * `port` 0: any free one. `parent`: process id of who started us.
    * `context`: tokens of the window. `original_context`: what the model was trained for, when YaRN stretches it.
    * `prefill_threads`: for reading prompts; one thread writes, because more are not faster for a small model and fall
      to a tenth where they wait for each other on a busy machine.
    * `cache_mebibytes`: bound of the cache of earlier prompts.
    * `batch`: tokens read in one go; between two of them a cancelled request ends.
    """

    model: str
    key: str
    alias: str
    parent: int
    port: int = 0
    context: int = 8192
    original_context: int | None = None
    prefill_threads: int = 1
    decode_threads: int = 1
    cache_mebibytes: int = 1024
    batch: int = 256
    flash_attention: bool = True


def main() -> int:
    """The whole life of the child; the exit status is 3 when it could not start."""
    # Ctrl-C reaches every process of the terminal; the parent ends us in its own time.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildSettings)
    end_with(settings.parent)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    try:
        requirements.check()
        server = _serve(settings)
    except StartError as error:
        _tell(Report("failed", error.message.rstrip("."), hint=error.hint))
        return 3
    except RuntimeError as error:
        # The engine has told the reason on stderr; a taken port or short memory may pass.
        sys.stderr.write(f"{error}\n")
        return 1
    _tell(Report("ready", "The engine is ready.", address=server.listening_address))
    threading.Event().wait()
    return 0


def _serve(settings: ChildSettings) -> Any:
    _tell(Report("loading", "Loading the engine."))
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings.model
    parameters.model_alias = {settings.alias}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = settings.port
    parameters.api_keys = [settings.key]
    # Browsers have no business here, whatever page they show.
    parameters.cors_origins = ""
    parameters.cors_credentials = False
    parameters.ui = False
    parameters.endpoint_slots = True
    parameters.endpoint_metrics = True
    parameters.n_parallel = 1
    parameters.n_ctx = settings.context
    parameters.n_batch = parameters.n_ubatch = settings.batch
    parameters.cpuparams.n_threads = settings.decode_threads
    parameters.cpuparams_batch.n_threads = settings.prefill_threads
    parameters.cache_ram_mib = settings.cache_mebibytes
    # Otherwise a side request that shares a part of the prompt drops the rest of the conversation, and what is in the
    # cache of earlier prompts is not looked at when the conversation comes back.
    parameters.slot_prompt_similarity = 0.0
    # Each request that waits for its turn holds one.
    parameters.n_threads_http = _HTTP_THREADS
    flash = xllamacpp.llama_flash_attn_type
    parameters.flash_attn_type = (
        flash.LLAMA_FLASH_ATTN_TYPE_ENABLED if settings.flash_attention else flash.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    if settings.original_context is not None:
        parameters.rope_scaling_type = xllamacpp.llama_rope_scaling_type.LLAMA_ROPE_SCALING_TYPE_YARN
        parameters.rope_freq_scale = settings.original_context / settings.context
        parameters.yarn_orig_ctx = settings.original_context
    _tell(Report("loading", "Loading the model."))
    return xllamacpp.Server(parameters)


def _tell(report: Report) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()


def _end_with_stdin() -> None:
    """Elsewhere the end of stdin tells the same. The engine's threads would outlive an ordinary exit."""
    while sys.stdin.buffer.read(4096):
        pass
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
