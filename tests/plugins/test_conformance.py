"""Every method that autopeft ships holds every rule of the contract on every family that it supports."""

from autopeft_adapter import Adapter
from autopeft_lora import Lora
from autopeft_mixed import Mixed
from autopeft_prefix_tuning import PrefixTuning

from autopeft.testing import MethodTests


class TestAdapter(MethodTests):
    method = Adapter()


class TestLora(MethodTests):
    method = Lora()


class TestMixed(MethodTests):
    method = Mixed()


class TestPrefixTuning(MethodTests):
    method = PrefixTuning()
