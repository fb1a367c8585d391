"""Check a safetensors file that anybody may have written: it must hold exactly what is expected before it is used."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import torch

LONGEST_HEADER = 2**24
"""Bytes of names and shapes; an add-on in a thousand modules needs a fiftieth of this."""

LONGEST_NAME = 200
"""Characters of a tensor's name that a message repeats."""


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor by its name, from the header alone.

    Raises:
        UserInputError: there is no such file, or it is not a whole safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        plain_file.require(path)
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
        if header > LONGEST_HEADER:
            raise UserInputError(
                f"{path} must be a safetensors file with a header of at most {LONGEST_HEADER:,} bytes, but it has "
                f"{header:,}; restore it."
            )
        with safe_open(path, framework="np") as file:  # without torch; no tensor is read
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except FileNotFoundError:
        raise UserInputError(
            f"{path.parent} must hold {path.name}, but does not; give the whole folder that `autopeft run` wrote."
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserInputError(f"{path} must be a whole safetensors file, but cannot be read: {error}.") from None


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file as NumPy arrays, without torch.

    Raises:
        UserInputError: there is no such file, it is damaged, or it has a type that NumPy does not know.
    """
    from safetensors.numpy import load_file

    shapes(path)
    try:
        found: dict[str, np.ndarray] = load_file(path)
    except (TypeError, KeyError, AttributeError) as error:  # bfloat16
        raise UserInputError(f"{path} must hold tensors in float32, but has another type: {error}.") from None
    return found


def check(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, torch.Tensor], path: Path) -> None:
    """Compare names and shapes, which must be the same.

    Raises:
        UserInputError: they differ; the message names the first difference.
    """
    for name in sorted({*found, *wanted}):
        if name not in found:
            difference = "is missing"
        elif name not in wanted:
            difference = "is not expected"
        elif found[name] != (shape := tuple(wanted[name].shape)):
            difference = f"is {list(found[name])} in place of {list(shape)}"
        else:
            continue
        raise _mismatch(path, name, difference)


def load(path: Path, wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file whose names and shapes were checked; their types must match `wanted` too.

    Raises:
        UserInputError: a tensor has another type, or numbers that are not finite.
    """
    import torch
    from safetensors.torch import load_file

    kept = load_file(path)
    for name, tensor in kept.items():
        if tensor.dtype != wanted[name].dtype:
            kinds = [str(each.dtype).removeprefix("torch.") for each in (tensor, wanted[name])]
            raise _mismatch(path, name, "is {} in place of {}".format(*kinds))
        if not torch.isfinite(tensor.float() if tensor.is_floating_point() else tensor).all():
            raise UserInputError(
                f"{path} must hold finite numbers, but {name[:LONGEST_NAME]} has NaN or infinity; train the winner "
                "again."
            )
    return kept


def digest(path: Path) -> str:
    """SHA-256 of a plain file's bytes, in hexadecimal.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mismatch(path: Path, name: str, difference: str) -> UserInputError:
    return UserInputError(
        f"{path} does not match what its method builds (first difference: {name[:LONGEST_NAME]} {difference}); install "
        "the version of the plugin that wrote it."
    )
