"""Makes results independent of the batch they were computed in, to the last bit, on a CPU.

The same problem in another batch meets other roundings: libraries choose their kernels for matrix products by the number of rows and
threads, and elementwise functions round differently in the incomplete vector at the end of what a thread was given. A planner would then
find another plan. So problems are computed one after the other, which costs nothing measurable when each has many rows (candidates times
tokens).

Many problems of few rows would suffer, so where rows are whole vectors these go many at a time, in parts so small that no elementwise
function is shared out among threads: in bfloat16, because oneDNN's products give a row the same bits in any batch; in float32 and float64,
where MKL's do not, in parts of one size, filled up, whose rows it treats alike. Both are properties of the libraries, not promises: tests
hold them. GPUs are left alone.
"""

from __future__ import annotations

import torch

_FEW_ROWS = 64  # fewer than these are few; and so many make a part in float32
_ONE_THREAD = 32768  # elements that ATen does not share out among threads (at::internal::GRAIN_SIZE)
_VECTOR = 32  # bfloat16 entries of the longest vector registers


def parts_of_batch(
    num_problems: int, num_rows: int, widths: tuple[int, ...], *, device: torch.device, dtype: torch.dtype
) -> list[list[int]] | None:
    """Says how to compute a batch so that every problem gets the bits that it would get alone.

    Whoever computes a part must copy its inputs out of the batch, not slice them: kernels may also round by the alignment of memory.

    Args:
        num_problems: B.
        num_rows: Rows of one problem in the matrix products.
        widths: Entries of the rows.
        device: Where they are computed.
        dtype: Precision of the products.

    Returns:
        Parts, as the problems in them, in order. What they hold beyond problem B - 1 is to be dropped. None: compute the batch as it is.
    """
    if device.type != "cpu" or num_problems == 0:
        return None
    size, fill = 1, 1
    if 0 < num_rows < _FEW_ROWS and not any(width % _VECTOR for width in widths):
        if dtype is torch.bfloat16:
            size = max(1, _ONE_THREAD // (max(widths) * num_rows))
        elif _FEW_ROWS % num_rows == 0 and _FEW_ROWS * max(widths) <= _ONE_THREAD:
            size = fill = _FEW_ROWS // num_rows
    parts = [list(range(start, min(start + size, num_problems))) for start in range(0, num_problems, size)]
    parts[-1] += [0] * (-len(parts[-1]) % fill)
    return None if len(parts) == 1 and len(parts[0]) == num_problems else parts
