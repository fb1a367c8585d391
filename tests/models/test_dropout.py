import pytest
import torch
from torch import nn

from autopeft.models.dropout import Dropout
from autopeft.models.modes import train_mode
from tests.models.test_base import METHODS, attach, base_of


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5])
def test_the_share_dropped_the_scale_and_the_gradient_are_those_of_dropout(p):
    torch.manual_seed(0)
    x = torch.ones(400, 1001, requires_grad=True)
    y = Dropout(p)(x)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=0.003)
    assert y.mean().item() == pytest.approx(1, abs=0.01)
    assert y.max().item() == pytest.approx(1 / (1 - p), rel=1e-4)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_masks_come_from_the_seed_and_differ_from_call_to_call():
    dropout, x = Dropout(0.3), torch.ones(64, 64)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, second)


def test_evaluation_and_the_edges_are_those_of_dropout():
    x = torch.randn(5, 7)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert not Dropout(1.0)(x).any()


def test_the_base_in_training_uses_it_and_the_methods_own_dropout_is_left_alone():
    base = base_of()
    params = {**METHODS["lora"].search_space(base.spec).defaults(), "lora_dropout": 0.1}
    model = attach(base, METHODS["lora"], params)
    train_mode(model)
    kinds = {type(module) for name, module in model.named_modules() if isinstance(module, nn.Dropout)}
    assert kinds == {Dropout, nn.Dropout}
    assert all(type(m) is not Dropout for n, m in model.named_modules() if "lora_dropout" in n)
