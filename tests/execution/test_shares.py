"""How the workers of a study share GPUs, their memory, and the study's limit."""

from types import SimpleNamespace

import pytest

from autopeft.budget.memory import gpu
from autopeft.execution import shares
from autopeft.models.cards import Card
from autopeft.models.device import Device
from tests.models.test_cards import GIB, search

CPU, GPU = Device("cpu", None), Device("cuda", None)
BASE = SimpleNamespace(spec=SimpleNamespace(num_parameters=10**6))
LARGE, SMALL = Card(1, "1", "large", 80 * GIB), Card(0, "0", "small", 24 * GIB)


@pytest.fixture
def share(tmp_path, monkeypatch):
    """The shares of a study with these settings on these GPUs."""

    def made(settings: str, *cards: Card, limit: str = "", planned: int | None = None):
        monkeypatch.setattr(shares, "chosen", lambda spec: cards)
        monkeypatch.setattr(gpu, "context", lambda: GIB)
        budget = f'\n[budget]\nmax_gpu_memory = "{limit}"\n' if limit else ""
        device = GPU if cards or planned else CPU
        return shares.shares_of(search(tmp_path, settings, budget), BASE, device, planned)

    return made


def gib(found) -> list[float]:
    return [share.memory / GIB for share in found]


def test_one_worker_gets_all_that_the_study_allows(share):
    assert gib(share("")) == [float("inf")]
    assert gib(share("", limit="3 GiB")) == [3]
    assert gib(share("devices = [0]", SMALL)) == [float("inf")]  # the card itself is the limit
    assert gib(share("devices = [0]", SMALL, limit="3 GiB")) == [3]


def test_workers_on_a_cpu_share_the_limit_equally(share):
    assert gib(share("workers = 3", limit="3 GiB")) == [1, 1, 1]
    assert gib(share("workers = 3")) == [float("inf")] * 3


def test_each_gpu_has_its_own_memory_less_what_the_studys_process_takes_there(share):
    found = share('workers = "auto"', LARGE, SMALL)
    assert [one.card for one in found] == [LARGE, SMALL]
    assert gib(found) == [79, 24]
    assert gib(share('workers = "auto"', LARGE, SMALL, limit="40 GiB")) == [39, 24]
    assert found[0].budget.limits == {"max_gpu_memory": "max_gpu_memory = 79.0 GiB"}


def test_several_workers_on_a_gpu_share_it(share):
    found = share("devices = [0, 1]\nworkers = 5", LARGE, SMALL, limit="60 GiB")
    assert [one.card for one in found] == [LARGE, SMALL, LARGE, SMALL, LARGE]
    assert gib(found) == [pytest.approx(59 / 3), 12, pytest.approx(59 / 3), 12, pytest.approx(59 / 3)]
    assert found[1].budget.named("max_gpu_memory") == "max_gpu_memory = 12.0 GiB (24.0 GiB shared by 2 workers)"


def test_fewer_trials_than_workers_take_the_largest_gpus(share):
    assert [one.card for one in share('workers = "auto"\ntrials = 1', LARGE, SMALL)] == [LARGE]


def test_a_plan_for_gpus_that_are_not_here_shares_those(share):
    assert gib(share("", planned=24 * GIB)) == [24]
    assert gib(share("workers = 2", planned=24 * GIB)) == [11.5, 11.5]
    found = share("devices = [0, 3]\nworkers = 4", planned=24 * GIB)
    assert [str(one.card) for one in found[:2]] == ["GPU 0 (planned, 24.0 GiB)", "GPU 3 (planned, 24.0 GiB)"]
    assert gib(found) == [11.5, 12, 11.5, 12]


def test_a_sentence_says_where_trials_train(share):
    assert shares.told(share(""), "cpu") == ""
    assert shares.told(share("workers = 2", limit="3 GiB"), "cpu") == (
        "Trials train in 2 worker processes: 2 on the CPU, with 1.5 GiB each."
    )
    assert shares.told(share("devices = [1]", LARGE), "cuda") == "Trials train on GPU 1 (large, 80.0 GiB)."
    assert shares.told(share("devices = [0, 1]\nworkers = 3", LARGE, SMALL), "cuda") == (
        "Trials train in 3 worker processes: 2 on GPU 1 (large, 80.0 GiB), with 39.5 GiB each; 1 on GPU 0 (small, "
        "24.0 GiB), with 24.0 GiB."
    )
