"""A cast is what a deep copy over the same tensors would be."""

import threading

import pytest
import torch
from torch import nn

from autopeft.models.copying import ModuleCopier
from tests.tiny_models import FAMILIES, batch, tiny


def parts(module):
    return [(name, type(child)) for name, child in module.named_modules()]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cast_computes_what_the_module_does_over_the_same_tensors(family):
    module = tiny(family)
    head = {id(parameter) for name, parameter in module.named_parameters() if "classif" in name or "score" in name}
    mould = ModuleCopier(module, head)
    first, second = mould.copy(), mould.copy()
    assert mould._pickled is not None
    assert parts(first) == parts(module)
    rows = {name: tensor for name, tensor in batch().items() if name != "labels"}
    assert torch.equal(first(**rows).logits, module(**rows).logits)
    assert head
    for one, other, original in zip(first.parameters(), second.parameters(), module.parameters(), strict=True):
        if id(original) in head:
            assert one is not other
            assert one is not original
            assert torch.equal(one, original)
        else:
            assert one is other is original
    assert first.config is not module.config
    first.config.num_labels = 7
    assert second.config.num_labels == module.config.num_labels == 3


def test_a_tensor_used_twice_is_one_in_a_cast_too():
    module = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    module.b.weight = module.a.weight
    for own in (set(), {id(module.a.weight)}):
        cast = ModuleCopier(module, own).copy()
        assert cast.a.weight is cast.b.weight
        assert (cast.a.weight is module.a.weight) == (not own)


def test_what_cannot_be_pickled_is_copied_the_slow_way():
    module = nn.Linear(2, 2)
    module.activation = lambda x: x  # a function without a name
    mould = ModuleCopier(module, {id(module.bias)})
    assert mould._pickled is None
    cast = mould.copy()
    assert cast is not module
    assert cast.weight is module.weight
    assert cast.bias is not module.bias


def test_a_lock_inside_is_no_mistake_of_the_mould():
    module = nn.Linear(2, 2)
    module.lock = threading.Lock()
    with pytest.raises(TypeError, match="pickle"):  # as of a deep copy
        ModuleCopier(module, set()).copy()
