"""Writes tests/golden/blocks/expected.safetensors: weights in blocks as numpy and torch see them.

A development script, independent of Meed's sources: formats from their descriptions, code book from
the normal quantiles that define it (Dettmers et al. 2023, appendix E), nearest value by search over
all sixteen. Needs torch and safetensors:

    python tests/golden/generate/make_block_goldens.py tests/golden
"""

import os
import sys

import numpy as np
import torch
from safetensors.torch import save_file

BLOCK, ROWS, COLS = 64, 6, 150


def nf4_book():
    """float64, from the definition."""
    def quantile(p):
        return torch.distributions.Normal(0.0, 1.0).icdf(p)
    top = (1 - 1 / 30 + 1 - 1 / 32) / 2
    positive = quantile(torch.linspace(top, 0.5, 9, dtype=torch.float64)[:-1])
    negative = -quantile(torch.linspace(top, 0.5, 8, dtype=torch.float64)[:-1])
    book = torch.cat([negative, torch.zeros(1, dtype=torch.float64), positive]).sort().values
    return (book / book.abs().max()).numpy()


def blocks_of(row):
    for begin in range(0, len(row), BLOCK):
        yield begin, row[begin:begin + BLOCK]


def through_integers(weights, peak):
    out = np.zeros_like(weights)
    for i, row in enumerate(weights):
        for begin, block in blocks_of(row):
            scale = np.float32(np.abs(block).max()) / np.float32(peak)
            codes = np.rint(block / scale) if scale > 0 else np.zeros_like(block)
            out[i, begin:begin + BLOCK] = codes.astype(np.float32) * scale
    return out


def through_nf4(weights, book):
    out = np.zeros_like(weights)
    for i, row in enumerate(weights):
        for begin, block in blocks_of(row):
            scale = np.float32(np.abs(block).max())
            ratio = block / scale if scale > 0 else np.zeros_like(block)
            codes = np.abs(ratio[:, None].astype(np.float64) - book[None, :]).argmin(axis=1)
            out[i, begin:begin + BLOCK] = book[codes].astype(np.float32) * scale
    return out


def main(folder):
    book = nf4_book()
    draw = np.random.default_rng(11)
    weights = (0.03 * draw.standard_normal((ROWS, COLS))).astype(np.float32)
    weights[2, 64:128] = 0  # a block of zeros
    weights[4] *= 1e-3
    tensors = {"weight": weights, "int8": through_integers(weights, 127),
               "int4": through_integers(weights, 7), "nf4": through_nf4(weights, book)}
    tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}
    tensors["nf4.book"] = torch.from_numpy(book.astype(np.float32))
    os.makedirs(os.path.join(folder, "blocks"), exist_ok=True)
    save_file(tensors, os.path.join(folder, "blocks", "expected.safetensors"))


if __name__ == "__main__":
    main(sys.argv[1])
