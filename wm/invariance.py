"""Makes results independent of the batch they were computed in, to the last bit, on a CPU.

The same problem in another batch meets other roundings: libraries choose their kernels for matrix products by the number of rows and
threads, and elementwise functions round differently in the incomplete vector at the end of what a thread was given. A planner would then
find another plan. So problems are computed one after the other, which costs nothing measurable when each has many rows (candidates times
tokens).

Problems of few rows in bfloat16 go many at a time: oneDNN's bfloat16 products give a row the same bits in any batch, and the parts are so
small that no elementwise function is shared out among threads. This is a property of the libraries, not a promise: tests hold it. MKL's
float32 products have no such property. GPUs are left alone.
"""

from __future__ import annotations

import torch

_FEW_ROWS = 64
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
        Parts, as the problems in them, in order. None: compute the batch as it is.
    """
    if device.type != "cpu" or num_problems < 2:
        return None
    whole_vectors = not any(width % _VECTOR for width in widths)
    fit = _ONE_THREAD // (max(widths) * max(num_rows, 1)) if dtype is torch.bfloat16 and whole_vectors and num_rows < _FEW_ROWS else 1
    size = max(fit, 1)
    return None if size >= num_problems else [list(range(start, min(start + size, num_problems))) for start in range(0, num_problems, size)]
