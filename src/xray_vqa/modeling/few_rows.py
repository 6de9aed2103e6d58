"""Products of a few rows with a large matrix, both in e4m3: as fast as the matrix can be read.

A step of decoding has a handful of rows. The units that multiply many rows at twice the speed of bf16 read the weights
no faster then, and a step would cost as much as in bf16. Here each program reads a strip of the matrix, and long rows
are split among several programs, so that all of the memory's bandwidth is asked for.
"""

from typing import Any

import torch
from torch import Tensor

FEW_ROWS = 16
"""The smallest number of rows that a GPU's units multiply at once; fewer are filled up."""
_STRIP, _DEPTH = 32, 256
_PROGRAMS = 528
"""Four for each multiprocessor of an H100."""


@torch.library.custom_op("xray_vqa::product_of_few_rows", mutates_args=())
def product_of_few_rows(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return `rows matrix'` in parts that are to be added up, (parts, n, out) float32.

    Args:
        rows: (n, in) e4m3, n at most `FEW_ROWS`; contiguous, on a GPU.
        matrix: (out, in) e4m3, contiguous.
    """
    count, depth = rows.shape
    width = matrix.shape[0]
    parts = _num_parts(width, depth)
    result = torch.empty(parts, count, width, dtype=torch.float32, device=rows.device)
    from xray_vqa.modeling import kernels

    launch: Any = kernels.multiply_strip
    launch[(-(-width // _STRIP), parts)](
        rows, matrix, result, count, width, depth, ROWS=FEW_ROWS, STRIP=_STRIP, DEPTH=_DEPTH, PARTS=parts,
        num_warps=4, num_stages=4,
    )  # fmt: skip
    return result


@product_of_few_rows.register_fake
def _(rows: Tensor, matrix: Tensor) -> Tensor:
    parts = _num_parts(matrix.shape[0], matrix.shape[1])
    return rows.new_empty((parts, rows.shape[0], matrix.shape[0]), dtype=torch.float32)


def _num_parts(width: int, depth: int) -> int:
    strips = -(-width // _STRIP)
    return max(1, min(_PROGRAMS // strips, depth // (2 * _DEPTH)))
