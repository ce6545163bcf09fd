"""Lines that end a start of vLLM, or make it worse: memory, GPUs, driver, model, system, options. Pure data.

The wordings are those of vLLM 0.9 to 0.33, PyTorch, NCCL, the hub's client and the kernel.
"""

from __future__ import annotations

from qiao.policies.log_rule import rule

_GIB = r"\d+(?:\.\d+)?"

_MEMORY = (
    rule(
        "gpu_memory_taken",
        (
            "A GPU has {free} GiB free of {total}: less than the share that --gpu-memory-utilization asks for. "
            "Something else holds the rest."
        ),
        (
            "`nvidia-smi` (or `qiao doctor`) names the processes: end those that are left over from an earlier start, "
            "or lower --gpu-memory-utilization."
        ),
        rf"Free memory on device [^(]*\((?P<free>{_GIB})/(?P<total>{_GIB}) GiB\) on startup is less than",
    ),
    rule(
        "kv_cache_too_small",
        (
            "One request of {window} tokens needs {needed} GiB of KV cache, and {available} GiB are left after the "
            "weights."
        ),
        (
            "Lower --max-model-len (the message tells the longest that fits), raise --gpu-memory-utilization, use more "
            "GPUs, or --kv-cache-dtype fp8. `qiao plan` works it out."
        ),
        (
            rf"max seq len \((?P<window>\d+)\), \(?(?P<needed>{_GIB}) GiB KV cache is needed, which is larger than the "
            rf"available KV cache memory \((?P<available>{_GIB}) GiB\)"
        ),
    ),
    rule(
        "kv_cache_too_small",
        "The KV cache holds {available} tokens, and --max-model-len asks for {window}.",
        "Lower --max-model-len to what fits, raise --gpu-memory-utilization, or use more GPUs.",
        (
            r"max seq len \((?P<window>\d+)\) is larger than the maximum number of tokens that can be stored in KV "
            r"cache \((?P<available>\d+)\)"
        ),
    ),
    rule(
        "no_kv_cache_left",
        "The weights fill the memory that vLLM may use: nothing is left for the KV cache.",
        (
            "Raise --gpu-memory-utilization (0.90 to 0.95), use more GPUs or a smaller quantisation; `qiao plan` "
            "shows the sum."
        ),
        r"No available memory for the cache blocks",
    ),
    rule(
        "sampler_out_of_memory",
        "Memory ran out in the warm-up, with --max-num-seqs requests at once.",
        "Lower --max-num-seqs or --gpu-memory-utilization.",
        r"out of memory occurred when warming up sampler",
    ),
    rule(
        "out_of_memory",
        "A GPU ran out of memory.",
        (
            "While loading: more GPUs, the FP8 or a 4-bit repository, or end what else holds memory. While serving: "
            "lower --gpu-memory-utilization, --max-num-seqs or --max-num-batched-tokens. `qiao plan` works it out."
        ),
        r"OutOfMemoryError",
        r"CUDA (?:error: )?out of memory",
        r"CUDA_ERROR_OUT_OF_MEMORY",
        r"HIP out of memory",
        r"torch\.AcceleratorError: .*out of memory",
    ),
    rule(
        "host_out_of_memory",
        "The kernel killed a process: the machine's own memory (not the GPU's) ran out.",
        (
            "Give it more RAM or swap, in WSL raise memory= in .wslconfig; loading bf16 weights with --quantization "
            "fp8 needs all of them in memory: use the -FP8 repository."
        ),
        r"Out of memory: Killed process",
        r"oom-kill",
        r"died unexpectedly.*exit ?code:? -9\b",
        r"\bDefaultCPUAllocator: can't allocate memory",
        r"Cannot allocate memory",
        source="kernel",
    ),
)

_PARALLEL = (
    rule(
        "fp8_blocks",
        (
            "The FP8 blocks cannot be divided so: {size} is no multiple of {block}. (Qwen3-235B-FP8 over 8 GPUs: "
            "1536 / 8 = 192, blocks of 128.)"
        ),
        "Use --tensor-parallel-size 4, or add --enable-expert-parallel, which keeps each expert whole.",
        (
            r"(?:output_partition_size|input_size_per_partition) = (?P<size>\d+) is not divisible by "
            r"weight quantization block_[nk] = (?P<block>\d+)"
        ),
        r"intermediate_size (?P<size>\d+) is not divisible by .{0,40}block_[nk] ?=? ?(?P<block>\d+)",
        (
            r"output_size of gate's and up's weight = (?P<size>\d+) is not divisible by "
            r"weight quantization block_n = (?P<block>\d+)"
        ),
    ),
    rule(
        "heads_not_divisible",
        "{heads} attention heads cannot be divided among {parallel} GPUs.",
        "Choose a --tensor-parallel-size that divides them: 1, 2, 4 or 8.",
        (
            r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
            r"\((?P<parallel>\d+)\)"
        ),
    ),
    rule(
        "too_few_gpus",
        "{wanted} GPUs are asked for, and {there} are here.",
        (
            "Lower --tensor-parallel-size × --pipeline-parallel-size to what is here; CUDA_VISIBLE_DEVICES may hide "
            "some."
        ),
        r"World size \((?P<wanted>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        r"The number of required GPUs (?P<wanted>\d+) exceeds the total number of available GPUs (?P<there>\d+)",
    ),
    rule(
        "shm_too_small",
        "Shared memory is full: a container has 64 MB of it by default, and the GPUs talk through it.",
        "Docker: --ipc=host or --shm-size=16g; Kubernetes: an emptyDir with medium: Memory at /dev/shm.",
        r"Error while creating shared memory segment",
        r"ncclShmOpen",
        r"(?:/dev/)shm.{0,80}No space left on device",
        r"No space left on device.{0,80}/dev/shm",
        r"unable to (?:open|allocate) shared memory",
        r"Bus error",
        source="NCCL",
    ),
    rule(
        "nccl",
        "The GPUs could not talk to each other (NCCL).",
        (
            "Run once with NCCL_DEBUG=INFO: the line with WARN says why. Common: NCCL_SOCKET_IFNAME names the wrong "
            "network, /dev/shm is too small (--ipc=host), IOMMU or a PCIe machine without P2P (NCCL_P2P_DISABLE=1)."
        ),
        r"NCCL error",
        r"\bnccl(?:System|Unhandled(?:Cuda|System)|Internal|InvalidUsage|Remote)Error\b",
        r"DistBackendError",
        r"Watchdog caught collective operation timeout",
        source="NCCL",
    ),
    rule(
        "nccl",
        "NCCL warns of something: why the GPUs cannot talk to each other, where they cannot; else it is harmless.",
        "Heed it when the start fails in NCCL: NCCL_SOCKET_IFNAME may name the wrong network.",
        # No InfiniBand is no fault: NCCL takes sockets.
        r"NCCL WARN(?! NET/IB ?: No device found)",
        severity="warning",
        source="NCCL",
    ),
    rule(
        "network_rank",
        "The processes of one engine did not find each other.",
        "Name the network with VLLM_HOST_IP and GLOO_SOCKET_IFNAME; several machines must reach each other's ports.",
        r"Gloo connectFullMesh failed",
        r"Timed out .{0,60}waiting for (?:clients|store)",
        r"TCPStore.{0,80}(?:timed out|Connection refused|Broken pipe)",
    ),
)

_DRIVER = (
    rule(
        "driver_too_old",
        "The NVIDIA driver is older than the CUDA version that this PyTorch was built for.",
        (
            "Update the driver (`nvidia-smi` prints its version; CUDA 12.8 needs 570 or newer, CUDA 13 needs 580), or "
            "install a vLLM built for an older CUDA."
        ),
        r"The NVIDIA driver on your system is too old",
        r"CUDA driver version is insufficient for CUDA runtime version",
        r"provided PTX was compiled with an unsupported toolchain",
        r"unsupported display driver / cuda driver combination",
    ),
    rule(
        "driver_mismatch",
        "The driver's library and its kernel module have different versions: it was updated, and not restarted.",
        "Restart the machine (or unload and load the nvidia modules).",
        r"Driver/library version mismatch",
        source="driver",
    ),
    rule(
        "no_gpu",
        "No GPU was found: no driver, a container without GPUs, or a vLLM for another platform.",
        (
            "`nvidia-smi` must list them here. In Docker: --gpus all and nvidia-container-toolkit; in WSL: the driver "
            "belongs to Windows, none inside."
        ),
        r"Failed to infer device type",
        r"Found no NVIDIA driver on your system",
        r"No CUDA GPUs are available",
        r"no CUDA-capable device is detected",
        r"could not select device driver .{0,10} with capabilities: \[\[gpu\]\]",
    ),
    rule(
        "no_kernel_for_gpu",
        "This build has no kernels for this GPU's generation.",
        "Install the vLLM that matches the GPU (newer vLLM for newer GPUs) or build it for that architecture.",
        r"no kernel image is available for execution on the device",
        r"is not compatible with the current PyTorch installation",
        r"No compiled \w+ for (?:a compute capability less than )?CUDA device capability",
    ),
    rule(
        "compiled_part",
        "The compiled part of vLLM was built for another PyTorch or CUDA, or without the kernel that is asked for.",
        "Install vLLM into an empty virtual environment, so that it brings the PyTorch that it was built for.",
        r"_C\w*\.abi3\.so: undefined symbol",
        r"'_C\w*' object has no attribute '\w+'",
    ),
    rule(
        "bf16_unsupported",
        "The GPU has no BF16 arithmetic (older than Ampere: T4, V100, RTX 20), and the model is in BF16.",
        "Add --dtype half; few of the Qwen3 checkpoints run well on such GPUs.",
        r"Bfloat16 is only supported on GPUs with compute capability of at least",
    ),
    rule(
        "gpu_absent",
        "A process asks for a GPU by a number that is not there.",
        "CUDA_VISIBLE_DEVICES counts from 0, as `nvidia-smi` does, and must list --tensor-parallel-size GPUs.",
        r"CUDA error: invalid device ordinal",
    ),
    rule(
        "gpu_fault",
        "A GPU reported a fault in the middle of its work.",
        (
            "Look for Xid in `dmesg`; run with CUDA_LAUNCH_BLOCKING=1 to find the kernel. ECC errors and Xid 79 are "
            "hardware: take the GPU out."
        ),
        r"NVRM: Xid",
        r"an illegal memory access was encountered",
        r"uncorrectable ECC error",
        r"GPU has fallen off the bus",
    ),
)

_MODEL = (
    rule(
        "model_gated",
        "The model's licence has to be accepted first, or the token is missing or wrong.",
        "Accept it on the model's page, then set HF_TOKEN (or `hf auth login`).",
        r"GatedRepoError",
        r"Cannot access gated repo",
        r"Access to model .{1,120} is restricted",
        r"401 Client Error.{0,120}huggingface",
        source="hub",
    ),
    rule(
        "model_absent",
        (
            "There is no such model on the hub (`Qwen/Qwen3-235B-A22B-Instruct`, of many guides, is "
            "Qwen/Qwen3-235B-A22B-Instruct-2507)."
        ),
        "Check the name: `qiao plan --model qwen3-235b` prints the right repository.",
        r"RepositoryNotFoundError",
        r"Repository Not Found for url",
        r"is not a local folder and is not a valid model identifier",
        r"Invalid repository ID or local directory specified",
        r"Repo id must be in the form",
        source="hub",
    ),
    rule(
        "hub_unreachable",
        "The model hub cannot be reached, and the model is not on this machine.",
        (
            "Set HF_ENDPOINT to a mirror (in China https://hf-mirror.com) or VLLM_USE_MODELSCOPE=True, or give a local "
            "folder; HF_HUB_OFFLINE=1 forbids downloads."
        ),
        r"LocalEntryNotFoundError",
        r"OfflineModeIsEnabled",
        r"We couldn't connect to ['\"]?https://\S+ to load",
        r"(?:MaxRetryError|ConnectionError|NewConnectionError|ConnectTimeout).{0,200}(?:huggingface|hf-mirror|modelscope)",
        r"Cannot (?:find an appropriate cached snapshot folder|reach https://huggingface)",
        source="hub",
    ),
    rule(
        "weights_incomplete",
        "A weight file is cut short: the download broke off, or the disk was full.",
        "Delete that file and download again; compare its size with the one on the hub.",
        r"SafetensorError",
        r"Error while deserializing header",
        r"MetadataIncompleteBuffer",
        r"InvalidHeaderDeserialization",
        r"Cannot find any model weights with",
        r"Consistency check failed: file should be of size",
    ),
    rule(
        "architecture_unknown",
        "This vLLM (or its transformers) does not know the model's architecture: it is older than the model.",
        "Update vLLM; the Qwen3 family needs 0.8.5 or newer, Qwen3-Next 0.10.2 or newer.",
        r"model type `\w+` but Transformers does not recognize this architecture",
        r"Model architectures \[.{1,120}\] are not supported for now",
        r"Cannot find model module\.",
        r"has no vLLM implementation",
    ),
    rule(
        "tokenizer",
        "The tokenizer's files are missing, or this transformers cannot read them.",
        (
            "Download the whole repository (tokenizer.json, tokenizer_config.json, vocab.json, merges.txt), and use "
            "the transformers version that vLLM asks for."
        ),
        r"Can't load tokenizer for",
        r"Tokenizer class \w+ does not exist or is not currently imported",
        r"data did not match any variant of untagged enum (?:ModelWrapper|PyPreTokenizerTypeWrapper)",
        r"Couldn't instantiate the backend tokenizer",
        r"has no attribute ['\"]?all_special_tokens_extended",
        r"Failed to load the tokenizer",
    ),
    rule(
        "trust_remote_code",
        "The repository brings code of its own, which vLLM does not run unasked.",
        "Look at that code; then --trust-remote-code. The Qwen3 models need none.",
        r"(?:requires|contains custom code).{0,200}trust_remote_code",
        r"Please pass the argument `?trust_remote_code=True",
        r"by setting the option `?trust_remote_code",
    ),
    rule(
        "window_over_model",
        "--max-model-len {asked} is longer than the {model} tokens that the model was made for.",
        "Lower it, or extend the model by RoPE scaling as its page says (--hf-overrides).",
        (
            r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
            r"\(\w+=(?P<model>\d+)"
        ),
    ),
    rule(
        "fp8_unsupported",
        "The GPU has no FP8 arithmetic (Ampere: A100, RTX 30), or the FP8 kernel is missing in this build.",
        "Newer vLLM runs FP8 weights there by Marlin (weight-only); else use the AWQ, GPTQ or bf16 repository.",
        r"quantization method fp8 is not supported for the current GPU",
        r"(?:Minimum capability: ?(?:89|90)|fp8e4nv not supported in this architecture)",
        r"FP8.{0,60}(?:not supported|requires).{0,60}(?:compute capability|sm_?89|SM89|Hopper|Ada)",
        r"(?:DeepGEMM|CUTLASS).{0,60}FP8.{0,60}not (?:available|supported|installed|compiled)",
        r"No compatible FP8 .{0,40}kernel",
    ),
    rule(
        "deep_gemm",
        "The FP8 kernels of DeepGEMM are asked for, and they are not installed or too old.",
        "Set VLLM_USE_DEEP_GEMM=0, or install the deep_gemm that this vLLM wants.",
        r"DeepGEMM backend is not available or outdated",
    ),
    rule(
        "quantization_mismatch",
        "--quantization says something else than the model's own config.json.",
        "Leave --quantization out: vLLM reads it from the model. For FP8 take the -FP8 repository.",
        (
            r"Quantization method specified in the model config \(\w+\) does not match the quantization method "
            r"specified in the `?quantization`? argument"
        ),
        r"Unknown quantization method",
    ),
    rule(
        "quantization_unsupported",
        "The GPU is too old for this quantisation; the line tells the compute capability that it needs.",
        "Take another repository of the model: AWQ or GPTQ needs 7.5 (T4) or newer, bf16 8.0 (A100).",
        r"The quantization method [\w-]+ is not supported for the current GPU",
    ),
)

_SYSTEM = (
    rule(
        "start_timeout",
        "The engine's processes were not ready in time: the weights are slow to read, or one of them hangs.",
        "Set VLLM_ENGINE_READY_TIMEOUT_S=3600, and put the model on a local disk; a hang shows in `nvidia-smi`.",
        r"Timed out waiting for engine core processes to start",
    ),
    rule(
        "port_in_use",
        "The port is taken by another process.",
        "`qiao doctor` names its owner; end it, or choose another --port.",
        r"\[Errno 98\]",
        r"Address already in use(?!\. Retrying)",
        r"\[Errno 48\]",
        r"only one usage of each socket address",
        source="system",
    ),
    rule(
        "disk_full",
        "The disk is full.",
        "Make room, or put the models elsewhere with HF_HOME (or --download-dir); Qwen3-235B-FP8 has 221 GiB.",
        r"\[Errno 28\]",
        r"No space left on device",
        r"\[Errno 122\]",
        r"Disk quota exceeded",
        source="system",
    ),
    rule(
        "low_file_limit",
        "The limit of open files is {limit}: too few for many connections at once.",
        "`ulimit -n 65535` before the start; in systemd LimitNOFILE=65535.",
        r"Found ulimit of (?P<limit>\d+) and failed to automatically increase",
        severity="warning",
    ),
    rule(
        "file_limit",
        "The process may not open so many files.",
        "`ulimit -n 65535` before the start; in systemd LimitNOFILE=65535, in Docker --ulimit nofile=65535.",
        r"\[Errno 24\]",
        r"Too many open files(?!`)",
        source="system",
    ),
    rule(
        "no_compiler",
        "A kernel is compiled at the first start, and there is no C compiler or no Python headers.",
        "Install them: `apt-get install gcc python3-dev`; or --enforce-eager.",
        r"Failed to find C compiler",
        r"fatal error: Python\.h: No such file",
        r"Could not find nvcc",
        r"ninja: (?:error|not found)",
        source="system",
    ),
    rule(
        "permission",
        "A file or folder may not be read or written by this user.",
        "Give it to the user that runs the engine: `ls -l` on the path in the line.",
        r"PermissionError: \[Errno 13\]",
        source="system",
    ),
)

_OPTIONS = (
    rule(
        "unknown_option",
        "This vLLM does not know an option: {option}.",
        (
            "`vllm serve --help=all` lists what it knows; `qiao plan --vllm VERSION` writes the flags of that version. "
            "Backticks in bash, or backslashes in PowerShell, also break a command apart."
        ),
        r"(?:vllm|api_server(?:\.py)?)[^:]*: error: unrecognized arguments: (?P<option>.{1,80})",
    ),
    rule(
        "unknown_parser",
        "There is no parser {parser} in this vLLM.",
        "hermes for Qwen2.5 and Qwen3, qwen3_coder (or qwen3_xml) for Qwen3-Coder; the line lists all.",
        r"invalid (?:tool call|reasoning) parser: (?P<parser>\S+)",
        r"argument --(?:tool-call|reasoning)-parser: invalid choice: (?P<parser>\S+)",
    ),
    rule(
        "auto_tools_without_parser",
        "--enable-auto-tool-choice is set, and no --tool-call-parser.",
        "Add --tool-call-parser hermes (Qwen2.5, Qwen3) or qwen3_coder (Qwen3-Coder).",
        r"--enable-auto-tool-choice requires --tool-call-parser",
        r"Error: --enable-auto-tool-choice requires",
    ),
    rule(
        "no_chat_template",
        "The model's repository has no chat template: a base model, or an incomplete download.",
        "Use the Instruct model, or name a template with --chat-template.",
        r"default chat template is no longer allowed, so you must provide a chat template",
        r"No chat template (?:available|found|is defined)",
        r"Cannot use chat template functions because tokenizer\.chat_template is not set",
    ),
    rule(
        "chat_template_path",
        "--chat-template names a file that is not there, or something that is no template.",
        "Check the path; Qwen3's own template needs no flag.",
        r"The supplied chat template (?:string|path)",
        r"the supplied chat template path doesn't exist",
    ),
)

RULES = (*_MEMORY, *_PARALLEL, *_DRIVER, *_MODEL, *_SYSTEM, *_OPTIONS)
"""In the order in which they are tried."""
