"""Bad plugins, really installed: each ends in one clear message, and the study goes on without it."""

from __future__ import annotations

import json
import os

from autopeft.registry import discover
from tests.conftest import THREE, autopeft
from tests.test_registry import install, write_plugin

METHOD = """
import time
import autopeft

class Method(autopeft.PeftMethod):
    contract = 1
    name = "{name}"
    kept = []

    def search_space(self, spec=None):
        return autopeft.SearchSpace({{"size": autopeft.Integer(low=1, high=8, default=4)}})

    def apply(self, model, params, spec):
        import torch
        real = not next(model.parameters()).is_meta
        layer = model.get_submodule(spec.layers[-1])
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter.requires_grad_(True)
        {body}
        return model

@autopeft.hookimpl
def register_methods():
    return [Method()]
"""


def body(name: str, text: str = "pass") -> str:
    return METHOD.format(name=name, body=text)


HANG = """if real:
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    pass"""
LEAK = """if real:
            self.kept.append((model, torch.zeros(2 * 2**20)))"""
WRITE = """if real:
            query = layer.get_submodule("attention.self.query")
            layer.register_forward_pre_hook(lambda module, args: query.weight.data.add_(1e-4))"""

BAD = {
    "bad_import": ("raise RuntimeError('planted: no import')", "RuntimeError: planted: no import"),
    "bad_dependency": ("import a_package_that_is_not_there", "install what the plugin needs"),
    "bad_signature": (body("bad_signature").replace("params, spec", "params"), "Method.apply() must take"),
    "bad_clash": (body("adapter"), 'two plugins bring the method "adapter"'),
    "bad_space": (
        body("bad_space").replace("return autopeft", "assert not spec, 'planted'; return autopeft"),
        "its plugin is at fault, {origin}: AssertionError: planted",
    ),
    "bad_model": (
        body("bad_model").replace("return model", "return torch.nn.Linear(2, 2)"),
        'its plugin is at fault, {origin}: method "bad_model": apply() must return the model it was given',
    ),
    "bad_apply": (
        body("bad_apply", "assert not real, 'planted fault'"),
        "left out of the rest of the search. {origin}: {alike}: AssertionError: planted fault",
    ),
    "bad_hang": (body("bad_hang", HANG), "{origin}: {alike}: it made no progress for 4.0 s"),
    "bad_leak": (body("bad_leak", LEAK), "{origin}: it held back 8.0 MiB of tensors after its trial"),
    "bad_write": (
        body("bad_write", WRITE),
        "{origin}: {alike}: the method wrote into weights of the base model, which all trials share: bert.",
    ),
}  # fmt: skip
"""A body for each bad plugin, with a part of the message about it."""


def test_ten_bad_plugins_end_in_ten_messages_and_the_study_in_a_winner(tiny_study, tmp_path):
    sources = [write_plugin(tmp_path, name.replace("_", "-"), name, text) for name, (text, _) in BAD.items()]
    install(sources[0], tmp_path / "site", *sources[1:])
    others = [name for name in discover().methods if name != "adapter"]
    text = tiny_study.read_text().replace(THREE, f"exclude = {json.dumps(others)}")
    tiny_study.write_text(text.replace("trials = 4\nepochs = 4", 'trials = 26\nepochs = 1\nhang_timeout = "4s"'))
    env = {**os.environ, "PYTHONPATH": f"{tmp_path / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = autopeft("run", "study.toml", "--json", cwd=tiny_study.parent, env=env)
    assert done.returncode == 0, done.stderr
    alike = "its 3 trials all failed for the same reason"
    for name, (_, words) in BAD.items():
        origin = f"{name.replace('_', '-')} 1.2.3 (entry point '{name}')"
        (message,) = [line for line in done.stderr.splitlines() if origin in line and "the next time" not in line]
        assert words.format(origin=origin, alike=alike) in message
    result = json.loads(done.stdout)
    assert result["best"]["method"] == "adapter"
    assert {r["method"] for r in result["records"] if r["state"] == "COMPLETE"} == {"adapter", "bad_leak"}
