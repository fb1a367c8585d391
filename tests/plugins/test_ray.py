"""Studies whose trials run in Ray actors, on real clusters: one of a study's own, and one of two nodes."""

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from autopeft import StudyError
from tests.conftest import THREE
from tests.execution.test_processes import begin, check_books
from tests.methods.test_registry import beside, install, write_plugin
from tests.processes import alive, command, descendants
from tests.search.test_run import FAILING, edit, run_study

pytest.importorskip("ray")

ONE = 'trials = 4\nworkers = 1\nbackend = "ray"'
LISTENS = "0A"


def open_ports(pids: list[int]) -> list[str]:
    """The addresses beyond this machine's own on which processes listen, in hexadecimal."""
    sockets = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                sockets |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
            except OSError:
                continue
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            parts = line.split()
            if parts[3] == LISTENS and parts[9] in sockets:
                found.append(parts[1].partition(":")[0])
    return [address for address in found if not address.endswith("0100007F")]


def test_one_actor_does_what_this_process_does_and_ray_leaves_nothing_behind(tiny_study, tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    home.mkdir()
    shutil.copytree(tiny_study.parent, other, symlinks=True, ignore=shutil.ignore_patterns("home", "other"))
    here = run_study(other / "study.toml")
    edit(tiny_study, ("trials = 4", ONE))
    process = begin(tiny_study, HOME=str(home), RAY_ADDRESS="10.255.255.1:6379")  # of a cluster nobody named
    listened = []
    said = []
    for line in process.stdout:
        said.append(line)
        if "[2/4]" in line:
            found = descendants(process.pid)
            listened = open_ports(found)
            actors = [pid for pid in found if command(pid).startswith("ray::Actor")]
            priorities = {os.getpriority(os.PRIO_PROCESS, pid) for pid in actors}
            folders = {path: path.stat().st_mode & 0o777 for path in Path("/tmp").glob(f"autopeft-ray-{process.pid}-*")}
    process.wait(60)
    assert process.returncode == 0, "".join(said)
    assert len(found) > 4  # Ray's own processes and the actor's are among them
    assert listened == []
    assert priorities == {os.getpriority(os.PRIO_PROCESS, 0)}
    assert [*folders.values()] == [0o700], "Ray opens what it is given to everybody"
    assert not any(path.exists() for path in folders)
    assert "Trials run on Ray, in 1 worker on 1 node." in "".join(said)
    assert not re.search(r"raylet|WARNING|RAY_|auth|gcs", "".join(said))
    check_books(tiny_study, 4)
    assert not any(path.is_file() for path in home.rglob("*") if ".ray" in path.parts)
    deadline = time.monotonic() + 20
    while (left := [pid for pid in found if Path(f"/proc/{pid}").exists()]) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    there = run_study(tiny_study)  # it is finished, and shows its result

    def compared(result):
        timed = ("seconds", "measured_memory", "predicted_memory")
        return [{key: value for key, value in record.items() if key not in timed} for record in result["records"]]

    assert compared(there) == compared(here)
    assert {**there["test"], "seconds": 0} == {**here["test"], "seconds": 0}


def test_only_folders_of_killed_studies_are_removed(tmp_path):
    from autopeft_ray.own_folder import HELD, own_folder

    gone = subprocess.Popen(["true"])
    gone.wait()
    names = [
        f"autopeft-ray-{gone.pid}-abcdefgh",
        f"autopeft-ray-{gone.pid}-heldheld",  # its process has that number in another container
        f"autopeft-ray-{os.getpid()}-abcdefgh",
        f"autopeft-ray-{gone.pid}-abcdefgh.kept",
        f"ray-{gone.pid}-abcdefgh",
        "autopeft-ray-notes-abcdefgh",
    ]
    for name in names:
        (tmp_path / name / "r").mkdir(parents=True)
    (tmp_path / f"autopeft-ray-{gone.pid}-linklink").symlink_to(tmp_path / names[4])
    with FileLock(tmp_path / names[1] / HELD), own_folder(str(tmp_path)) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "r").mkdir(0o777)
        assert {path.name for path in tmp_path.iterdir()} == {*names[1:], folder.name, f"{names[0][:-8]}linklink"}
        with own_folder(str(tmp_path)):  # another study
            assert folder.exists()
    assert not folder.exists()


def test_the_longest_name_of_a_socket_in_the_folder_is_short_enough():
    from autopeft_ray.own_folder import FOR_RAY, PREFIX

    largest = 4_194_304  # of a process
    session = f"session_2026-12-31_23-59-59_999999_{largest}/sockets/plasma_store"
    assert len(f"/tmp/{PREFIX}{largest}-abcdefgh/{FOR_RAY}/{session}") <= 107


def test_an_address_at_which_nothing_listens_is_refused_at_once(monkeypatch):
    import ray
    from autopeft_ray.cluster import connected

    def asked(*given, **named):
        raise AssertionError("it would ask for a quarter of an hour")

    monkeypatch.setattr(ray, "init", asked)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for wrong, told in ((address, "refused"), ("no..where:6379", "label")):
            sentence = rf'`address` = "{wrong}" in \[search\]: .*{told}.*ray status'
            with pytest.raises(StudyError, match=sentence), connected(wrong, 1, gpus=False, size=0):
                pass
    monkeypatch.setattr(ray, "init", lambda *given, **named: asked_of.append(given))
    asked_of = []
    with connected("auto", 1, gpus=False, size=0) as folder:
        assert folder is None
    assert asked_of == [("auto",)], "Ray itself finds it"


def test_until_a_worker_is_ready_the_time_of_all_its_calls_counts():
    """A worker replies every few seconds that it is still preparing, perhaps for ever."""
    from autopeft_ray.worker import Worker

    class Method:
        def remote(self, *given):
            return given

    worker = Worker(SimpleNamespace(wait=Method(), start=Method()))
    for _ in range(3):
        worker.ask("wait")
        worker.unheard += 5.0
    assert worker.unheard == 15.0
    worker.ready = True
    worker.ask("start", "trial")
    assert (worker.call, worker.unheard) == (("trial",), 0.0)


@pytest.fixture
def cluster(request, monkeypatch):
    """A Ray cluster of one node with so many cores, to which others can be added."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # names of sockets are short
    Path(folder, "ray").mkdir()  # where it writes its address; it takes for granted that the folder is there
    monkeypatch.setenv("RAY_TMPDIR", folder)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": request.param, "temp_dir": folder})
    try:
        yield found
    finally:
        found.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.exhaustive
@pytest.mark.parametrize("cluster", [1, 0], indirect=True)
def test_a_node_that_is_lost_costs_no_trial_whether_another_is_left_or_comes_later(tiny_study, cluster):
    alone = not cluster.head_node._ray_params.num_cpus
    trials = 2 if alone else 4
    lost = cluster.add_node(num_cpus=1)
    where = f'trials = {trials}\nworkers = "auto"\nbackend = "ray"\naddress = "{cluster.address}"'
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", where), ("epochs = 4", "epochs = 60"))
    process = begin(tiny_study)
    said, running, killed = [], 0, False
    for line in process.stdout:
        said.append(line)
        running += f"/{trials}] trial" in line
        if "epoch" in line and "mean" in line and running >= (1 if alone else 2) and not killed:
            killed = True
            cluster.remove_node(lost, allow_graceful=False)  # as in a power cut
            if alone:
                cluster.add_node(num_cpus=1, wait=False)
    process.wait(60)
    text = "".join(said)
    assert process.returncode == 0, text
    assert killed, text
    assert re.search(r"Node \S+ is gone; its trial, if any, is not lost\.", text), text
    assert text.count(" INTERRUPTED ") == 1, text
    assert len(check_books(tiny_study, trials)) == trials


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("__import__('os').kill(__import__('os').getpid(), 9)", "died"),
        ("__import__('time').sleep(3600)", "made no progress for 5.0 s"),
    ],
    ids=["ends its process", "hangs"],
)
def test_a_method_that_takes_its_actor_along_has_failed_the_second_time(tiny_study, tmp_path, body, told):
    callback = f"""    def callback(self, model, params, spec):
        import ray
        if ray.is_initialized() and ray.get_runtime_context().get_actor_id():  # so not in the study's own process
            {body}
@hookimpl"""
    plugin = FAILING.replace("BODY", "pass").replace("@hookimpl", callback)
    install(write_plugin(tmp_path, "failing-plugin", "failing", plugin), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing", "lora"]\nhang_timeout = 5'))
    edit(tiny_study, ("trials = 4", 'trials = 2\nworkers = 2\nbackend = "ray"'))
    process = begin(tiny_study, PYTHONPATH=beside(tmp_path / "site")["PYTHONPATH"])
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    records = check_books(tiny_study, 2)
    assert {r["method"]: r["state"] for r in records} == {"failing": "FAIL", "lora": "COMPLETE"}
    reason = next(r["reason"] for r in records if r["state"] == "FAIL")
    assert told in reason
    assert "for the second time" in reason


@pytest.mark.exhaustive
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_study_that_is_interrupted_takes_ray_along_and_goes_on_from_its_checkpoints(tiny_study, how):
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("epochs = 4", "epochs = 60"), ("trials = 4", ONE))
    process = begin(tiny_study)
    begun = False
    for line in process.stdout:
        begun = begun or "[2/4]" in line
        if begun and line.strip().startswith("epoch"):  # the trial has reached a rung
            break
    found = descendants(process.pid)
    process.send_signal(how)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == (-9 if how == signal.SIGKILL else 1), said
    assert "Traceback" not in said
    deadline = time.monotonic() + 180  # Ray's own processes take their time to find out
    while (left := [pid for pid in found if alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []
    assert list((tiny_study.parent / "outputs" / "tiny" / "checkpoint").iterdir())  # of the trial that ran
    kept = list(Path("/tmp").glob(f"autopeft-ray-{process.pid}-*"))
    assert len(kept) == (how == signal.SIGKILL)
    run_study(tiny_study, timeout=600)  # in a process of its own: this one is to stay without Ray
    assert not any(path.exists() for path in kept)
    check_books(tiny_study, 4)
