"""Which engine flags a model needs on which GPUs, and whether it fits at all. Pure: no files, no clock, no network.

* `machine`: the values that describe a machine; `specification` writes them from `4xH20-96G`, `gpu_table` has
  the facts.
* `model`, `quantisation`: the values that describe a checkpoint; `config_reader` and `gguf` read them from files that
  others opened, `catalogue` has those of models that are not here.
* `weights`, `cache`, `memory`: the arithmetic, each term with its name.
* `shapes`: what the engine's kernels refuse; `divisions`: the ways of cutting that are left.
* `vllm`: flags and parsers as data by version.
* `choose.plan`: all of it together, a `Request` to a `Plan` or a `Refusal`; `explain` says it in words and JSON.

`hardware` looks at the machine and hands a `Machine` up; `exports` turns a `Plan` into files.
"""
