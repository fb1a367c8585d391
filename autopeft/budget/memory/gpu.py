"""What a process takes on a GPU besides its tensors: CUDA's context, and what cuBLAS keeps for itself.

Both are measured on a GPU that is here; for one that is not, the values of an H100 are used.
"""

from __future__ import annotations

import functools
import subprocess
import sys
import time
from contextlib import suppress
from threading import Timer

import torch

from autopeft.common import cache

MIB = 2**20

WORKSPACES = (32 * MIB, MIB), (32 * MIB,)
"""Bytes that cuBLAS keeps from its first products on, as measured on an H100; before Hopper it is a quarter.

Forward passes run in one thread and backward passes in another, and each has its own workspaces.
"""

CONTEXT = 764 * MIB
"""Bytes that the driver takes for a process, its context and loaded kernels, on an H100 with CUDA 13.0."""

PROCESSORS = 132, 2048
"""Multiprocessors of an H100, and the threads of each."""

BELIEVED = range(16 * MIB, 4096 * MIB)
"""Credible sizes of a context; any other was measured while somebody else took or freed memory."""

PATIENCE = 120.0
"""Seconds for the measured process to report."""

ALIKE, WAIT = 8 * MIB, 5.0
"""Bytes within which free memory must return to its earlier value, and seconds to wait for that after the process ends.
"""

STEPS = """
import torch
from torch import nn
model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, activation="gelu").cuda()
optimizer = torch.optim.AdamW(model.parameters())
for autocast in (False, True):
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        scores = model(torch.randn(4, 16, 64, device="cuda"))[:, 0]
        loss = nn.functional.cross_entropy(scores, torch.zeros(4, dtype=torch.int64, device="cuda"))
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
torch.cuda.synchronize()
print(torch.cuda.memory_reserved(), flush=True)
input()
"""
"""A training step in both precisions, since kernels are loaded when they first run; then it waits to be ended."""


def workspace() -> int:
    """Bytes that the GPU's libraries hold after they have multiplied matrices, forward and backward."""
    return sum(map(sum, workspaces()))


@functools.cache
def workspaces() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Bytes of the blocks they take in a forward and in a backward pass; measured once per process."""
    if not torch.cuda.is_available():
        return WORKSPACES
    torch._C._cuda_clearCublasWorkspaces()
    weight = torch.ones(64, 64, device="cuda", requires_grad=True)
    before = torch.cuda.memory_allocated()
    product = torch.addmm(weight[0], weight, weight)
    forward = int(torch.cuda.memory_allocated() - before - product.nbytes)
    torch.autograd.grad(product.sum(), weight)
    both = int(torch.cuda.memory_allocated() - before - product.nbytes)
    backward = both - forward
    # Besides a workspace like that of a backward pass, a forward pass takes one for products with a bias.
    return ((backward, forward - backward) if forward > backward else (forward,)), (backward,)


@functools.cache
def context() -> int:
    """Bytes that a process takes besides what PyTorch's allocator holds; measured once per GPU and PyTorch.

    A second process is started and the GPU's free memory compared, since a process cannot tell its own from that of
    others.
    """
    if not torch.cuda.is_available():
        return CONTEXT
    name = cache.key("context", torch.cuda.get_device_name(), torch.__version__, str(torch.version.cuda))
    kept = cache.read(name)
    if kept is not None:
        return int(kept)
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        found = _taken_by_another()
        if found is not None and found in BELIEVED:
            cache.keep(name, str(found).encode())
            return found
    return CONTEXT


def attention_scratch(query: torch.Tensor) -> int:
    """Temporary bytes of attention's backward pass in half precision, for queries `[batch, heads, tokens, d]`.

    The queries' gradients are added up in float32, and every token has one more sum: 8.1 MiB for 32 x 8 x 128 x 64
    on an H100 (cuDNN's kernels; FlashAttention's `dq_accum` and `softmax_d` are the same).
    """
    return 4 * (query.numel() + query.numel() // query.shape[-1]) if query.dtype.itemsize < 4 else 0


def taken() -> int:
    """The most bytes that this process has held on the GPU since its peak was last reset."""
    return int(torch.cuda.max_memory_reserved()) + context()


def sum_scratch(rows: int, columns: int) -> int:
    """Temporary bytes of the kernel that adds up `rows` for each of `columns`, as for the gradient of a bias.

    If there are many rows, thread blocks share them, and every thread of every block has room for its part: 64 MiB for
    4,096 rows of 2,048 columns. After `setReduceConfig` and `global_memory_size` in PyTorch's
    aten/src/ATen/native/cuda/Reduce.cuh.
    """
    vector = 4 if columns % 4 == 0 else 1
    threads = 512 // vector
    wide, high = (2 ** (size.bit_length() - 1) for size in (max(1, columns // vector), max(1, rows)))
    width = min(wide, 32)
    height = min(high, threads // width)
    width = min(wide, threads // height)
    each = -(-rows // height)
    if rows < min(16 * height, 256) or each < 256:
        return 0
    grid = -(-columns // (vector * width))
    processors, room = PROCESSORS
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(torch.cuda.current_device())
        processors, room = card.multi_processor_count, card.max_threads_per_multi_processor
    most = processors * (room // (width * height))
    if grid > most:
        return 0
    shared_by = max(min(-(-most // grid), -(-each // 16)), -(-each // 256))
    return 4 * columns * shared_by * width * vector if shared_by > 1 else 0


def _taken_by_another() -> int | None:
    """How much free memory falls by while another process holds a training step, less what its allocator holds.

    None if it does not come back when that process has ended: then somebody else took or freed some in between.
    """
    free, _ = torch.cuda.mem_get_info()
    command = [sys.executable, "-c", STEPS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert other.stdout
        hung = Timer(PATIENCE, other.kill)
        hung.start()
        try:
            reserved = int(other.stdout.readline())
            left, _ = torch.cuda.mem_get_info()
        finally:
            hung.cancel()
            other.kill()
    ended = time.monotonic()
    while abs(torch.cuda.mem_get_info()[0] - free) > ALIKE:
        if time.monotonic() - ended > WAIT:
            return None
        time.sleep(0.1)
    return free - left - reserved
