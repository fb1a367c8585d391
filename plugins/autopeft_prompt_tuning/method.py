"""Prompt tuning: a few trained vectors are added to the text like words, and nothing else of the model changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft import Categorical, Float, Integer, ModelSpec, Params, PeftMethod, SearchSpace, Support, mean_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn


class PromptTuning(PeftMethod):
    """Trained embeddings before those of the tokens: `num_virtual_tokens`, trained directly.

    They are in front of the text. In a model that reads both ways they are behind its first token, so that the
    classifier still reads the token it was trained to read; peft puts its prompts in that place. They are tokens with
    ids, so that a causal model still finds padding and positions from the ids, which peft's embeddings hide.
    """

    contract = 1
    name = "prompt_tuning"
    paper = "Lester et al. 2021, arXiv:2104.08691"

    def supports(self, spec: ModelSpec) -> Support:
        """Only classification of whole sequences: with an output for each token, virtual tokens would have one too."""
        if spec.peft_task_type == "SEQ_CLS":
            return Support()
        return Support(f"{spec.task} needs an output for each token, and virtual tokens would be among them.")

    def search_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Length and first values; Lester et al. gain little beyond 20 tokens, and words beat random values."""
        return SearchSpace(
            {
                "num_virtual_tokens": Integer(low=1, high=100, default=20, log=True),
                "initialization": Categorical(choices=("vocabulary", "random"), default="vocabulary"),
            }
        )

    def training_space(self, spec: ModelSpec | None = None) -> SearchSpace:
        """Learning rates above LoRA's: Lester et al. use 0.3 with Adafactor, which scales steps to the tensor."""
        return SearchSpace({"learning_rate": Float(low=1e-3, high=1e-1, default=1e-2, log=True)})

    def apply(self, model: nn.Module, params: Params, spec: ModelSpec) -> nn.Module:
        """Put the virtual tokens behind the vocabulary, and into every row."""
        from autopeft_prompt_tuning.prompt import PromptEmbedding, insertion

        whole: Any = model
        tokens = int(params["num_virtual_tokens"])
        embedding = PromptEmbedding(whole.get_input_embeddings(), tokens, random=params["initialization"] == "random")
        whole.set_input_embeddings(embedding)
        ids = range(embedding.words, embedding.words + tokens)
        place = 0 if _reads_forward(whole) else 1
        model.register_forward_pre_hook(insertion(ids, place, _positions(whole)), with_kwargs=True)
        return model

    def average(self, folds: Sequence[Mapping[str, Tensor]], params: Params, spec: ModelSpec) -> Mapping[str, Tensor]:
        """The mean of each vector."""
        return mean_of(folds)


def _reads_forward(model: Any) -> bool:
    """Whether the classifier reads a row's last token: in causal models, and in those with a decoder."""
    return any(getattr(module, "is_causal", False) for module in model.modules())


def _positions(model: Any) -> int | None:
    """The most tokens a row may have; RoBERTa's table of positions begins behind its padding's."""
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for name, module in model.named_modules():
        padding: int | None = getattr(module, "padding_idx", None)
        if positions is not None and padding is not None and name.endswith("position_embeddings"):
            return positions - padding - 1
    return positions
