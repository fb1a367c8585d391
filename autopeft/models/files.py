"""Check the files of a pretrained model before a library reads them.

Libraries open whatever has the right name, and build whatever `config.json` says. These checks first find, from names,
sizes and headers, what would keep them busy forever, or make them read something other than the model.
"""

from __future__ import annotations

import json
import re
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from autopeft.common.exceptions import AutopeftError, ModelError, in_a_line

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG, ADAPTER = "config.json", "adapter_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/"
"""The beginning of a git-lfs pointer, in place of a file that was not fetched."""

READ = re.compile(
    r"((pre)?processor_)?config\.json|added_tokens\.json|special_tokens_map\.json|[^/]*\.(model|spm|codes|py)|"
    r"[^/]*(token|vocab|merges|normalizer|byte_maps|emoji|word_|dict\.)[^/]*\.(json|txt|tokenizer)|.*\.tokenizer"
)
"""Files beside the weights that decide what a model predicts: its configuration, its tokenizer's (the names are those
in `vocab_files_names` of transformers' tokenizers), and code that comes with it."""

LARGEST_CONFIG = 2**24
"""Bytes of a configuration or an index; the largest index of a model with 90,000 tensors has half of that."""

MOST_LABELS = 50_000
"""Most labels of a checkpoint's own head: reading a configuration takes transformers 70 µs per label."""

LARGEST_HEADER = 100_000_000
"""Bytes of a safetensors header: the library's own limit."""

MOST_LAYERS = 10_000
"""The deepest models have a few hundred; a list of this many is still fast."""

LAYERS = re.compile(r"(^|_)(layers?|blocks?|depth)($|_)", re.IGNORECASE)
"""Names of the numbers in a configuration that say how many of something a Python loop builds."""


@dataclass(frozen=True)
class Extent:
    """The extent of the weights in a checkpoint: `tensors` tensors of `size` bytes in total."""

    tensors: int
    size: int


def examine(folder: Path) -> Extent:
    """Make sure that a folder holds a model that can be read in a time that fits its size.

    Raises:
        ModelError: it does not, in one sentence.
    """
    if (folder / ADAPTER).exists():
        raise ModelError(_adapter(folder))
    try:
        there = [(path.name, path.lstat(), _status(path)) for path in sorted(folder.iterdir())]
    except OSError as error:
        raise ModelError(
            f"[model] name_or_path must be a Hugging Face model folder, but {folder} is not ({in_a_line(error)}); give "
            "the folder that save_pretrained() wrote, or a hub id."
        ) from None
    for name, _, status in there:
        if status is not None and not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ModelError(_wrong(folder, f"{name} must be a regular file, but is a pipe or a device; remove it"))
        if status is None and (READ.fullmatch(name) or name.endswith(".safetensors")):
            raise ModelError(_wrong(folder, f"{name} must be a file, but is a broken link; restore it"))
    config = _config(folder)
    _check_counts(config, folder)
    headers = [_header(path, folder) for path in weights(folder)]
    for name, _, status in there:
        if status is not None and stat.S_ISREG(status.st_mode) and READ.fullmatch(name):
            _check_fetched(folder / name, folder)
    tensors = [entry for header in headers for entry in header.values()]
    return Extent(len(tensors), sum(end - start for start, end in tensors))


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Turn whatever a library raises while it reads a person's files into one sentence that begins with `what`.

    Raises:
        ModelError: for any error, except autopeft's own and those from outside, such as Ctrl-C.
    """
    try:
        yield
    except AutopeftError:
        raise
    except BaseException as error:
        # A panic in a library written in Rust, such as tokenizers, is not an `Exception`.
        if not isinstance(error, Exception) and type(error).__module__ != "pyo3_runtime":
            raise
        raise ModelError(f"{what}: {in_a_line(error)}") from error


def weights(folder: Path) -> list[Path]:
    """The safetensors files that transformers reads the weights from, in order.

    Raises:
        ModelError: there are none.
    """
    named = _config(folder).get("transformers_weights")
    if isinstance(named, str):
        if not named.endswith((".safetensors", ".safetensors.index.json")) or ".." in Path(named).parts:
            raise ModelError(_wrong(folder, f"transformers_weights in {CONFIG} must name a safetensors file in it"))
        first = folder / named
    else:
        first = next((folder / name for name in (WEIGHTS, INDEX) if (folder / name).is_file()), folder / WEIGHTS)
    if not first.is_file():
        raise ModelError(
            _wrong(folder, f"it holds no {first.name}; weights must be safetensors (pickles, *.bin, are never read)")
        )
    if first.suffix == ".safetensors":
        return [first]
    index = _json(first, folder)
    try:
        shards = sorted({str(name) for name in index["weight_map"].values()})
    except (KeyError, AttributeError):
        raise ModelError(_wrong(folder, f"{first.name} must map tensors to files; download it again")) from None
    if any(".." in Path(name).parts or Path(name).is_absolute() for name in shards):
        raise ModelError(_wrong(folder, f"{first.name} must name only files in that folder; take another copy"))
    return [folder / name for name in shards]


def decisive(folder: Path) -> Iterator[Path]:
    """All files that decide what the model predicts: weights, configuration, tokenizer, code; in a fixed order.

    Raises:
        ModelError: there are no weights, or the folder cannot be read.
    """
    found = weights(folder)
    index = {folder / INDEX} if found != [folder / WEIGHTS] and (folder / INDEX).is_file() else set()
    others = {path for path in folder.iterdir() if path.is_file() and READ.fullmatch(path.name)}
    yield from sorted({*found, *others, *index})


def _status(path: Path) -> Any:
    """The status of what a path leads to; None if a link is broken."""
    try:
        return path.stat()
    except OSError:
        return None


def _wrong(folder: Path, what: str) -> str:
    return f"[model] name_or_path: {folder} cannot be read as a model: {what}."


def _adapter(folder: Path) -> str:
    """Why a folder with a peft adapter in it is not a base model."""
    if (folder / CONFIG).exists():
        return (
            f"[model] name_or_path: {folder} holds an adapter beside the model ({ADAPTER}), which transformers would "
            f"apply to it; remove {ADAPTER} to use the model alone, or merge the adapter into it (peft's "
            "`merge_and_unload()`) and save that."
        )
    try:
        base = str(_json(folder / ADAPTER, folder)["base_model_name_or_path"])[:120]
    except (ModelError, KeyError):
        base = "another model"
    return (
        f"[model] name_or_path: {folder} holds a peft adapter for {base} ({ADAPTER}), not a whole model; give that "
        "model, or merge the adapter into it (`merge_and_unload()`), save the result and give that."
    )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ModelError(
            f"[model] name_or_path must be a Hugging Face model folder, but {folder} holds no {CONFIG}; "
            "give the folder that save_pretrained() wrote, or a hub id."
        )
    return _json(path, folder)


def _json(path: Path, folder: Path) -> dict[str, Any]:
    """The JSON object in a file; a sentence says what is wrong if it holds none."""
    _check_fetched(path, folder)
    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise ValueError(f"it is larger than {LARGEST_CONFIG >> 20} MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("it is not a JSON object")
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(_wrong(folder, f"{path.name} must be a JSON object, but: {in_a_line(error)[:160]}")) from None
    return content


def _check_counts(config: dict[str, Any], folder: Path) -> None:
    """Check that layers and labels are not too many: a configuration makes lists of that length when it is read."""
    labels = [config.get("num_labels"), *(config.get(key) for key in ("id2label", "label2id"))]
    most = max((len(n) if isinstance(n, dict) else n for n in labels if isinstance(n, int | dict)), default=0)
    if most > MOST_LABELS:
        raise ModelError(
            _wrong(
                folder,
                f"{CONFIG} must have at most {MOST_LABELS:,} labels, but has {float(most):.3g}; remove num_labels, "
                "id2label and label2id from it; they belong to a head that is not used",
            )
        )
    for part in (config, *(value for value in config.values() if isinstance(value, dict))):
        for key, value in part.items():
            counts = isinstance(value, int) and LAYERS.search(key)
            if counts and value > MOST_LAYERS:
                raise ModelError(
                    _wrong(folder, f"{key} in {CONFIG} must be at most {MOST_LAYERS:,}, but is {float(value):.3g}")
                )


def _check_fetched(path: Path, folder: Path) -> None:
    try:
        with path.open("rb") as file:
            pointer = file.read(len(POINTER)) == POINTER
    except OSError as error:
        raise ModelError(_wrong(folder, f"{path.name}: {in_a_line(error)}")) from None
    if pointer:
        raise ModelError(
            _wrong(folder, f"{path.name} is a git-lfs pointer instead of the file; fetch the file (`git lfs pull`)")
        )


def _header(path: Path, folder: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor in a safetensors file begins and ends, in bytes. The format is in the safetensors README."""
    name = path.name
    if not path.is_file():
        raise ModelError(_wrong(folder, f"{name}, which {INDEX} names, is missing; download it"))
    _check_fetched(path, folder)
    damaged = _wrong(folder, f"{name} is not a safetensors file, or is damaged; download it again")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, LARGEST_HEADER):
                raise ModelError(damaged)
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        spans = {key: cast("tuple[int, int]", tuple(entry["data_offsets"])) for key, entry in header.items()}
        end = max((end for _, end in spans.values()), default=0)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise ModelError(damaged) from None
    if size < 8 + length + end:
        missing = 8 + length + end - size
        raise ModelError(_wrong(folder, f"{name} lacks its last {missing:,} bytes; download it again"))
    return spans
