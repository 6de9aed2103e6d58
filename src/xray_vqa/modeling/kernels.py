"""Triton kernels for steps of decoding. Triton comes with torch's builds for GPUs alone, so this is imported there.

`few_rows` and `served_tree` call them and say what they give.
"""

# pyright: basic, reportMissingImports=false, reportUntypedFunctionDecorator=false
# ruff: noqa: N803  (Triton reads the annotations, and writes its constants in capitals)

import triton
import triton.language as tl


@triton.jit
def multiply_strip(
    rows, matrix, result, count, width, depth,
    ROWS: tl.constexpr, STRIP: tl.constexpr, DEPTH: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Write one part of the product of all rows with `STRIP` rows of the matrix; see `product_of_few_rows`."""
    strip, part = tl.program_id(0), tl.program_id(1)
    n = tl.arange(0, ROWS)
    out = strip * STRIP + tl.arange(0, STRIP)
    total = tl.zeros((ROWS, STRIP), dtype=tl.float32)
    for start in range(part * DEPTH, depth, PARTS * DEPTH):
        at = start + tl.arange(0, DEPTH)
        inside = at[None, :] < depth
        x = tl.load(rows + n[:, None] * depth + at[None, :], mask=(n[:, None] < count) & inside, other=0.0)
        w = tl.load(matrix + out[:, None] * depth + at[None, :], mask=(out[:, None] < width) & inside, other=0.0)
        total = tl.dot(x, tl.trans(w), total)
    places = result + part * count * width + n[:, None] * width + out[None, :]
    tl.store(places, total, mask=(n[:, None] < count) & (out[None, :] < width))


@triton.jit
def attend_part(
    query, prefix_keys, prefix_values, branch_keys, branch_values, part_starts, images, past, result, sums,
    slots, new, scale,
    HEADS: tl.constexpr, KEPT: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write what a group of a new token's heads sees in one part of its prefix or in its branch; see `_attend_step`."""
    token, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    branch, at = token // new, token % new
    g, d = tl.arange(0, ROWS), tl.arange(0, WIDTH)
    heads = head * GROUP + g
    x = tl.load(query + (token * HEADS + heads[:, None]) * WIDTH + d[None, :], mask=g[:, None] < GROUP, other=0.0)
    if part < PARTS:
        starts = part_starts + tl.load(images + branch) * PARTS + part
        total, largest, share = _look(
            x, prefix_keys, prefix_values, tl.load(starts), tl.load(starts + 1), head, scale,
            KEPT, ROWS, WIDTH, BLOCK,
        )  # fmt: skip
    else:
        first = (branch * slots).to(tl.int32)
        last = (first + tl.load(past + branch) + at + 1).to(tl.int32)
        total, largest, share = _look(
            x, branch_keys, branch_values, first, last, head, scale, KEPT, ROWS, WIDTH, BLOCK
        )  # fmt: skip
    place = (token * (PARTS + 1) + part) * HEADS + heads
    seen = tl.where(share > 0.0, share, 1.0)
    tl.store(result + place[:, None] * WIDTH + d[None, :], total / seen[:, None], mask=g[:, None] < GROUP)
    tl.store(sums + place, tl.where(share > 0.0, largest + tl.log(seen), float("-inf")), mask=g < GROUP)


@triton.jit
def _look(
    x, keys, values, first, last, head, scale,
    KEPT: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    d, s = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    total = tl.zeros((ROWS, WIDTH), dtype=tl.float32)
    largest = tl.full((ROWS,), -1e30, dtype=tl.float32)
    share = tl.zeros((ROWS,), dtype=tl.float32)
    for start in range(first, last, BLOCK):
        inside = start + s < last
        place = ((start + s) * KEPT + head) * WIDTH
        k = tl.load(keys + place[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(values + place[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        scores = tl.where(inside[None, :], tl.dot(x, tl.trans(k)) * scale, float("-inf"))
        highest = tl.maximum(largest, tl.max(scores, axis=1))
        weights = tl.exp(scores - highest[:, None])
        fading = tl.exp(largest - highest)
        total = total * fading[:, None] + tl.dot(weights.to(v.dtype), v)
        share = share * fading + tl.sum(weights, axis=1)
        largest = highest
    return total, largest, share
