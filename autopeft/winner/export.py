"""Writes a winner in the formats of other libraries, where it predicts the same."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from autopeft.common.exceptions import UserInputError, nearest
from autopeft.common.files import draft_folder, put, remove_drafts
from autopeft.common.truncation import BOTH
from autopeft.models import quantization
from autopeft.models.quantization import NONE
from autopeft.study.journal import writing
from autopeft.study.place import winner_of
from autopeft.winner import as_lora, mlflow_model, mlflow_texts, readme, serving
from autopeft.winner import winner as artifact
from autopeft.winner.base_model import find_base, load_base_of
from autopeft.winner.dequantized import dequantized, difference
from autopeft.winner.method import method_of
from autopeft.winner.task import task_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from autopeft.winner.winner import Winner

    Say = Callable[[str], None] | None


class ExportError(UserInputError):
    """The winner cannot be written in that format."""


def export(
    winner: Winner | str | Path,
    folder: str | Path,
    format: str,  # noqa: A002  # the reader's word
    *,
    trust_remote_code: bool = False,
    say: Say = None,
    task: str | None = None,
) -> Path:
    """Write a winner for another library, with a README that says how to load it.

    Args:
        winner: the winner, its folder, or the output folder or the file of its study.
        folder: to write; it must be empty or new; a new one appears whole or not at all.
        format: one of `FORMATS`.
        trust_remote_code: run code that the base model brings, as in `artifact.load`.
        say: called with a sentence on each difference from the winner.
        task: the name of one of several tasks, if the study learnt several on one base model.

    Returns:
        `folder`.

    Raises:
        ExportError: an unknown format, a folder with something in it, or a winner that the format cannot hold.
        UserInputError: there is no winner, or its base model is gone or has changed.
        StoreError: the folder could not be written.
    """
    folder = Path(folder)
    if format not in FORMATS:
        raise ExportError(f'`format` must be one that autopeft writes, but got "{format}"; {nearest(format, FORMATS)}')
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder} must be new or empty, but is not; give another folder.")
    if isinstance(winner, str | Path):
        winner = artifact.load(winner_of(Path(winner), task), trust_remote_code=trust_remote_code)
    else:
        find_base(winner.card)  # the export may name it, and is then loaded with the present files
    if winner.card.quantization != NONE and not FORMATS[format].quantized:
        raise ExportError(
            f"a winner on a base model in {winner.card.quantization} can be exported as "
            f"{', '.join(name for name, entry in FORMATS.items() if entry.quantized)}, but not as {format}, where the "
            'base model would be another one. Train it with `quantization = "none"`.'
        )
    if winner.card.members and not FORMATS[format].several:
        raise ExportError(
            f"a winner whose {winner.card.members} fold models answer together can be exported as "
            f"{', '.join(name for name, entry in FORMATS.items() if entry.several)}, but not as {format}, which "
            'holds one model; train it with `form = "refit"` or `"average"` in [winner].'
        )
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_drafts(folder.parent)
        with draft_folder(folder) as draft:
            made = draft / "made"
            made.mkdir()
            FORMATS[format].write(winner, made, say)
            readme.write(made, winner.card, winner.evidence, _loading(winner, format, made), format)
            put(made, folder, (), last=readme.README)
    return folder


def _for_peft(winner: Winner, folder: Path, say: Say = None) -> None:
    from peft import PeftModel

    if isinstance(winner.module, PeftModel):
        winner.module.save_pretrained(str(folder), safe_serialization=True)
    else:
        _by_method(winner, "peft", folder)
    winner.reader.standalone().save(folder)


def _for_adapterhub(winner: Winner, folder: Path, say: Say) -> None:
    _by_method(winner, "adapterhub", folder)
    winner.reader.standalone().save(folder)


def _by_method(winner: Winner, library: str, folder: Path) -> None:
    """Have the method itself write the winner."""
    method = method_of(winner.card)
    answer = method.export(winner.module, winner.card.params, winner.spec, library, folder)
    if not answer:
        others = "export as `mlflow` or `onnx`, which take any winner, or as `merged` if the method can be merged"
        raise ExportError(f"this winner cannot be exported as {library}: {answer.reason} Instead, {others}.")


def _for_serving(winner: Winner, folder: Path, say: Say) -> None:
    if _is_lora(winner.module):
        _for_peft(winner, folder)
    else:
        plain = winner.merge()
        base = load_base_of(winner.card, task_of(winner.card)).module
        lost = as_lora.write(plain, base, winner.spec, folder, winner.card.base_model)
        if say:
            say(
                f"The changes by {winner.card.method} were written as LoRA matrices A and B, which lose at most "
                f"{lost:.1g} of each layer's change."
            )
        winner.reader.standalone().save(folder)
    serving.rewrite(folder)


def _is_lora(module: nn.Module) -> bool:
    from peft import LoraConfig, PeftModel

    if not isinstance(module, PeftModel):
        return False
    config = module.peft_config[str(module.active_adapter)]
    return type(config) is LoraConfig and not config.use_dora  # AdaLoraConfig is derived from it


def _merged(winner: Winner, folder: Path, say: Say) -> None:
    whole = winner if winner.card.quantization == NONE else dequantized(winner)
    plain: Any = whole.merge()
    plain.save_pretrained(str(folder), safe_serialization=True)
    winner.reader.standalone().save(folder)
    if say and whole is not winner:
        apart, largest = difference(winner, whole)
        say(
            f"The base model's weights were expanded from {winner.card.quantization} to float32 before the add-on was "
            f"merged: outputs differ from the winner's by up to {apart:.2g}; the largest output is {largest:.2g}."
        )


def _for_mlflow(winner: Winner, folder: Path, say: Say) -> None:
    import pandas as pd

    with tempfile.TemporaryDirectory() as draft:
        winner.save(draft)
        sample = winner.sample(winner.reader.cells())
        rows = pd.DataFrame({name: pd.Series(cells, dtype=object) for name, cells in sample.items()})
        mlflow_model.save(Path(draft), folder, rows)


class Logits(nn.Module):
    """A model with positional inputs, as ONNX needs it, that gives only the outputs that answers are made from."""

    def __init__(self, model: nn.Module, names: list[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names, self.outputs = model, names, outputs

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Tokens `[rows, length]`, or pixels `[rows, 3, height, width]` → such as logits `[rows, classes]`."""
        found = self.model(**dict(zip(self.names, inputs, strict=True)))
        return tuple(found[name] for name in self.outputs)


def _onnx(winner: Winner, folder: Path, say: Say) -> None:
    """Trace the model with its add-on; the number of rows is free, and so is the length of texts."""
    if winner.writes:
        raise ExportError(
            "ONNX holds one pass of a model, but writing a text takes one pass for each token, which ONNX runtimes "
            "leave to you; export as merged, and convert that folder to ONNX with `optimum`."
        )
    try:
        import onnx  # noqa: F401  # torch.onnx needs them, and its message is less clear
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f'ONNX needs a package that is not installed ({error}); pip install "autopeft[onnx]".'
        ) from None
    reader = winner.reader.standalone()
    plain = reader.example(winner.texts)
    inputs = {
        name: tensor if len(tensor) > 1 else torch.cat([tensor] * 2) for name, tensor in winner.arranged(plain).items()
    }
    names, outputs = [*inputs], task_of(winner.card).outputs
    added = max(inputs[name].ndim - plain[name].ndim for name in names)
    free = tuple(
        dict.fromkeys(
            (*reader.free_of(name), *(len(reader.free_of(name)) + place for place in range(added))),
            torch.export.Dim.DYNAMIC,
        )
        for name in names
    )
    module = copy.deepcopy(winner.module).cpu().eval()
    with torch.no_grad():
        torch.onnx.export(
            Logits(module, names, outputs).eval(),
            tuple(inputs.values()),
            str(folder / "model.onnx"),
            input_names=names,
            output_names=[*outputs],
            dynamic_shapes=(free,),
            dynamo=True,
            verbose=False,
        )
    model: Any = winner.module
    model.config.save_pretrained(str(folder))
    reader.save(folder)


def _loading(winner: Winner, form: str, folder: Path) -> str:
    """Python code that loads the folder, with a comment if it then differs from the winner."""
    code = FORMATS[form].load
    if "{vllm}" in code:
        code = code.replace("{vllm}", serving.for_vllm(folder))
    if "{asked}" in code:
        return code.replace("{asked}", mlflow_texts.asked(winner))
    if winner.card.quantization != NONE and PLAIN in code:
        given: Any = winner.module.config  # names the modules that are not quantized
        config = quantization.written(winner.card.quantization, given.quantization_config.llm_int8_skip_modules)
        code = f"import torch\nfrom transformers import BitsAndBytesConfig\n{code}"
        code = code.replace(LAST, f"    quantization_config={config},\n{LAST}")
    if winner.card.truncation != BOTH or "{arguments}" not in code:
        return code
    most = winner.card.max_length
    return f"{code}# This tokenizer keeps the beginning of a text over {most} tokens; the winner keeps both ends.\n"


INPUTS = 'inputs = {reader}({arguments}, return_tensors="pt")\n{arranging}'
PLAIN = """\
{base}
labels = {labels}
{reader} = AutoTokenizer.from_pretrained(".")  # this folder
plain = AutoModelForSequenceClassification.from_pretrained(
    base,
    {config}
    pad_token_id={reader}.pad_token_id,
    ignore_mismatched_sizes=True,  # a head of the checkpoint's own gives way to the winner's
)
"""
LAST = "    ignore_mismatched_sizes=True,"
TRANSFORMERS = "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"

FOR_PEFT = f"""\
{{imports}}from peft import PeftModel
{TRANSFORMERS}
{PLAIN}model = PeftModel.from_pretrained(plain, ".").eval()
{INPUTS}logits = model(**inputs).logits{{columns}}{{then}}
"""

FOR_SERVING = f"""\
# vLLM:      {{vllm}}
# SGLang:    python -m sglang.launch_server --model-path BASE --lora-paths winner=THIS_FOLDER
# llama.cpp: python convert_lora_to_gguf.py --base BASE THIS_FOLDER
{FOR_PEFT}"""

FOR_ADAPTERS = f"""\
{{imports}}import adapters
{TRANSFORMERS}
{PLAIN}adapters.init(plain)
plain.set_active_adapters(plain.load_adapter(".", use_safetensors=True))
model = plain.eval()
{INPUTS}logits = model(**inputs).logits{{columns}}{{then}}
"""

FOR_TRANSFORMERS = f"""\
{{imports}}{TRANSFORMERS}
{{reader}} = AutoTokenizer.from_pretrained(".")  # this folder
model = AutoModelForSequenceClassification.from_pretrained(".").eval()
{INPUTS}logits = model(**inputs).logits{{named}}{{then}}
"""

FOR_MLFLOW = """\
import mlflow.pyfunc
import pandas as pd

model = mlflow.pyfunc.load_model(".")  # this folder; autopeft must be installed
model.predict(pd.DataFrame({rows}))
"""

FOR_MLFLOW_TEXTS = """\
import mlflow.pyfunc

model = mlflow.pyfunc.load_model(".")  # this folder needs no autopeft; mlflow.transformers loads it too
(answer,) = model.predict({asked})
answer["choices"][0]
"""

FOR_ONNX = """\
{imports}import onnxruntime
from transformers import AutoTokenizer

{reader} = AutoTokenizer.from_pretrained(".")  # this folder
session = onnxruntime.InferenceSession("model.onnx")
inputs = {reader}({arguments}, return_tensors="np")
{arranging}(logits,) = session.run(None, {i.name: inputs[i.name] for i in session.get_inputs()}){columns}{then}
"""


class Format(NamedTuple):
    """How a winner is written, and Python code that loads it.

    `quantized` says whether it takes a quantized base model, `several` whether it takes several models.
    """

    write: Callable[[Winner, Path, Say], None]
    load: str
    quantized: bool = False
    several: bool = False


FORMATS = {
    "peft": Format(_for_peft, FOR_PEFT, quantized=True),
    "serving": Format(_for_serving, FOR_SERVING),
    "merged": Format(_merged, FOR_TRANSFORMERS, quantized=True),
    "adapterhub": Format(_for_adapterhub, FOR_ADAPTERS),
    "mlflow": Format(_for_mlflow, FOR_MLFLOW, quantized=True, several=True),
    "mlflow-transformers": Format(mlflow_texts.write, FOR_MLFLOW_TEXTS),
    "onnx": Format(_onnx, FOR_ONNX),
}
"""For peft, LoRA servers, transformers alone, the adapters library, mlflow.pyfunc, MLflow's services of chats and
completions, and ONNX runtimes."""
