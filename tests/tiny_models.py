"""The tiny models of `autopeft.testing`, which the host's own tests run on too."""

from autopeft.testing.tiny import FAMILIES, PAD, SIZES, VOCABULARY, batch, learnable_rows, tiny, tiny_base

__all__ = ["FAMILIES", "PAD", "SIZES", "VOCABULARY", "batch", "learnable_rows", "tiny", "tiny_base"]
