"""What a tokenizer lacks is added: the model knows which token pads, and two texts do not run into each other."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

from autopeft.models.tokenizer import prepare

WORDS = {"<end>": 0, "It": 1, "rain": 2, "s": 3, "<pad>": 4}
ALONE = [1, 2]


def tokenizer(**special) -> PreTrainedTokenizerFast:
    made = Tokenizer(models.WordLevel(WORDS, unk_token="<end>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>", **special)


def model(pad: int | None) -> GPT2ForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": 5, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "num_labels": 2}
    return GPT2ForSequenceClassification(GPT2Config(**sizes, pad_token_id=pad)).eval()


@pytest.mark.parametrize("pad", [None, -1, 3])
@pytest.mark.parametrize("special", [{}, {"pad_token": "<pad>"}])
def test_a_row_is_classified_alike_whatever_is_beside_it(pad, special):
    reader, classifier = tokenizer(**special), model(pad)
    prepare(reader, classifier)
    assert reader.pad_token_id == classifier.config.pad_token_id == (4 if special else 0)
    one = torch.tensor([ALONE])
    padded = torch.tensor([[*ALONE, *[reader.pad_token_id] * 3]])
    alone = classifier(input_ids=one, attention_mask=torch.ones_like(one)).logits
    beside = classifier(input_ids=padded, attention_mask=torch.tensor([[1, 1, 0, 0, 0]])).logits
    torch.testing.assert_close(alone, beside)


def test_there_is_a_mark_between_two_texts_and_none_in_one():
    reader = tokenizer()
    assert reader("It rain", "s")["input_ids"] == reader("It", "rain s")["input_ids"]
    prepare(reader, model(None))
    assert reader("It rain", "s")["input_ids"] == [1, 2, 0, 3]
    assert reader("It", "rain s")["input_ids"] == [1, 0, 2, 3]
    assert reader("It rain")["input_ids"] == ALONE
    assert len(reader("It rain", "s", truncation=True, max_length=3)["input_ids"]) == 3
