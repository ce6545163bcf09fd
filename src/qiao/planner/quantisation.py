"""How the numbers of a matrix are stored, and how many bytes that takes. Values only."""

from __future__ import annotations

from typing import Literal

import msgspec

Precision = Literal["bf16", "fp8", "int8", "int4", "fp4"]

BF16_BYTES = 2
# Qwen's block scales are BF16 in the file (the index totals of the -FP8 repositories fit only so).
BLOCK_SCALE_BYTES = 2


class Quantisation(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint stores its matrices.

    * `method`: the checkpoint's own word (`fp8`, `awq`, `gptq`, `modelopt`, `compressed-tensors`, `mxfp4`, `gguf`);
      None for plain BF16 or FP16.
    * `precision`: what it comes to.
    * `block`: rows and columns of a block that shares a scale (FP8 of Qwen and DeepSeek), or None.
    * `group`: columns of a row that share a scale (4-bit formats), or None.
    * `bits`: stored bits of a number without its scale.
    * `only_experts`: the matrices of the experts alone are stored so (gpt-oss).
    """

    method: str | None = None
    precision: Precision = "bf16"
    block: tuple[int, int] | None = None
    group: int | None = None
    bits: float = 16
    only_experts: bool = False

    @property
    def name(self) -> str:
        """For people: `FP8 in blocks of 128 x 128`."""
        match self.precision:
            case "bf16":
                return "BF16"
            case "fp8" if self.block:
                return f"FP8 in blocks of {self.block[0]} x {self.block[1]}"
            case "fp8":
                return "FP8"
            case "int8":
                return "INT8"
            case "int4":
                return f"{(self.method or 'int4').upper()} 4 bits" + (f", groups of {self.group}" if self.group else "")
            case "fp4":
                return f"{'MXFP4' if self.method == 'mxfp4' else 'NVFP4'}"

    def matrix_bytes(self, rows: int, columns: int) -> int:
        """Bytes of the numbers alone."""
        return int(rows * columns * self.bits / 8)

    def scale_bytes(self, rows: int, columns: int) -> int:
        """Bytes of what is needed to read the numbers: scales, zero points."""
        if self.precision == "bf16":
            return 0
        if self.block:
            return _ceiling(rows, self.block[0]) * _ceiling(columns, self.block[1]) * BLOCK_SCALE_BYTES
        if self.group:
            groups = rows * _ceiling(columns, self.group)
            match self.precision:
                case "fp4":
                    return groups
                case _ if self.method == "compressed-tensors":  # its usual scheme is symmetric: no zero points
                    return groups * BF16_BYTES
                case _:  # a BF16 scale and a 4-bit zero point for each group
                    return int(groups * 2.5)
        return rows * BF16_BYTES


PLAIN = Quantisation()
FP8_BLOCKS = Quantisation(method="fp8", precision="fp8", block=(128, 128), bits=8)
FP8_ROWS = Quantisation(method="fp8", precision="fp8", bits=8)
AWQ = Quantisation(method="awq", precision="int4", group=128, bits=4)
GPTQ = Quantisation(method="gptq", precision="int4", group=128, bits=4)
NVFP4 = Quantisation(method="modelopt", precision="fp4", group=16, bits=4)
MXFP4 = Quantisation(method="mxfp4", precision="fp4", group=32, bits=4, only_experts=True)


def _ceiling(number: int, divisor: int) -> int:
    return -(-number // divisor)
