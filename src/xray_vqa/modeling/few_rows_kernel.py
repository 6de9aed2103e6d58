"""The Triton kernel of `few_rows`; Triton comes with torch's builds for GPUs alone, so this is imported where one is."""

# pyright: basic, reportMissingImports=false, reportUntypedFunctionDecorator=false
# ruff: noqa: N803  (Triton reads the annotations, and writes its constants in capitals)

import triton
import triton.language as tl


@triton.jit
def strip_product(
    rows, matrix, result, count, width, depth,
    ROWS: tl.constexpr, STRIP: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Write one part of `rows matrix'` for one strip of `STRIP` rows of the matrix; see `product_of_few_rows`."""
    strip, part = tl.program_id(0), tl.program_id(1)
    n = tl.arange(0, ROWS)
    out = strip * STRIP + tl.arange(0, STRIP)
    total = tl.zeros((ROWS, STRIP), dtype=tl.float32)
    for start in range(part * DEPTH, depth, PARTS * DEPTH):
        at = start + tl.arange(0, DEPTH)
        x = tl.load(
            rows + n[:, None] * depth + at[None, :], mask=(n[:, None] < count) & (at[None, :] < depth), other=0.0
        )
        w = tl.load(matrix + out[:, None] * depth + at[None, :], mask=(out[:, None] < width) & (at[None, :] < depth),
                    other=0.0)  # fmt: skip
        total = tl.dot(x, tl.trans(w), total)
    places = result + part * count * width + n[:, None] * width + out[None, :]
    tl.store(places, total, mask=(n[:, None] < count) & (out[None, :] < width))
