"""Every method that autopeft ships holds every rule of the contract on every family that it supports.

`make test` tries it on two families that differ much (`conftest.py`), `make exhaustive` on the others.
"""

from autopeft_adalora import AdaLora
from autopeft_adapter import Adapter
from autopeft_bitfit import BitFit
from autopeft_fusion import Fusion, Stacked
from autopeft_ia3 import Ia3
from autopeft_lora import Dora, Lora, Merged
from autopeft_mixed import Mixed
from autopeft_prefix_tuning import PrefixTuning
from autopeft_prompt_tuning import PromptTuning
from autopeft_vera import Vera

from autopeft.testing import MethodTests


class TestAdaLora(MethodTests):
    method = AdaLora()


class TestAdapter(MethodTests):
    method = Adapter()


class TestBitFit(MethodTests):
    method = BitFit()


class TestDora(MethodTests):
    method = Dora()


class TestFusion(MethodTests):
    method = Fusion()


class TestIa3(MethodTests):
    method = Ia3()


class TestLora(MethodTests):
    method = Lora()


class TestMerged(MethodTests):
    method = Merged()


class TestMixed(MethodTests):
    method = Mixed()


class TestPrefixTuning(MethodTests):
    method = PrefixTuning()


class TestPromptTuning(MethodTests):
    method = PromptTuning()


class TestStacked(MethodTests):
    method = Stacked()


class TestVera(MethodTests):
    method = Vera()
