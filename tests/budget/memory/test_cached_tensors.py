"""Models of which transformers keeps tensors that depend on nothing but sizes."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import BeitConfig, BeitForImageClassification, DINOv3ViTConfig, DINOv3ViTModel

from autopeft.budget.memory.peak import measure, predict

SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8}
SHAPE = (2, 3, 32, 32)


def beit():
    config = BeitConfig(**SIZES, image_size=32, use_relative_position_bias=True, use_absolute_position_embeddings=False)
    return BeitForImageClassification(config)


def dinov3():
    return DINOv3ViTModel(DINOv3ViTConfig(**SIZES, image_size=32))


def make_step(module):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)

    def step(batch):
        module(**batch)[0].sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def predicted(make):
    with torch.device("meta"):
        return predict(make().train(), make_step, {"pixel_values": (SHAPE, torch.float32)})


@pytest.mark.parametrize("make", [beit, dinov3])
def test_a_prediction_leaves_nothing_to_a_real_step_and_takes_nothing_from_one(make):
    before = predicted(make)
    model, batch = make().train(), {"pixel_values": torch.rand(SHAPE)}
    step = make_step(model)
    measured = measure(lambda: step(batch), model, others=batch.values())
    assert not any(isinstance(parameter, FakeTensor) for parameter in model.parameters())
    assert before.peak == pytest.approx(measured, rel=0.01)
    assert predicted(make) == before
