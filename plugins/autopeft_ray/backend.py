"""Trials in Ray actors: the study's process draws, records and decides, and actors train, a call for each rung."""

from __future__ import annotations

import functools
import os
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from autopeft import Backend, StudyError
from autopeft_ray import nodes
from autopeft_ray.actor import REPLY_SECONDS, Actor, Place
from autopeft_ray.cluster import connected
from autopeft_ray.model_pieces import pieces
from autopeft_ray.worker import Worker

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from autopeft import StudyWork, TrialHandle

NODE_DIED = "its node has died"
"""What Ray says of an actor whose node is gone."""

LISTEN_SECONDS = 1.0
"""Longest wait before Ctrl-C is checked again."""

LOOK_SECONDS = 5.0
"""Time between two looks at which nodes there are."""

ROOM_TOLD, ROOM_SECONDS = 60.0, 600.0
"""Time without any worker after which the user is told, and after which the study ends."""

DOUBT_SECONDS = 30.0
"""Time for Ray to find out whether a node is gone whose actor cannot be reached."""

PREPARATION_SECONDS = 1800.0
"""The least time that a worker may take for the rows and the model."""

FAREWELL_SECONDS = REPLY_SECONDS + 2.0
"""Time for actors to remove their files on other machines before they are ended; they may have to reply first."""


class RayBackend(Backend):
    """The actors of a study. None outlives the block; neither does Ray itself, if it was started here.

    Args:
        work: the study's.
    """

    def __init__(self, work: StudyWork) -> None:
        self._work, self._gpu = work, work.device == "cuda"
        self._stack, self._workers = ExitStack(), list[Worker]()
        self._folder: Path | None = None
        self._deaths, self._told = 0, False
        self._looked = self._polled = self._room_since = 0.0

    @property
    def free(self) -> bool:
        """Whether an actor waits for a trial."""
        return any(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether an actor runs a trial, or none is ready for one yet."""
        return any(worker.job for worker in self._workers) or not self.free

    @property
    def _waiting(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.ready and not worker.job]

    def give(self, trial: TrialHandle) -> None:
        """Have a free actor run a trial."""
        worker = self._waiting[0]
        worker.job = trial
        worker.ask("start", self._work.trial_order(trial))

    def poll(self) -> None:
        """Wait a moment at most for reports of the actors, and pass them on; see which nodes came and went.

        Raises:
            StudyError: an actor cannot go on, all have died, or there is no room for any.
        """
        self._grow()
        calls = {worker.call: worker for worker in self._workers if worker.call}
        if not calls:
            time.sleep(LISTEN_SECONDS)
        else:
            ray.wait(list(calls), num_returns=1, timeout=LISTEN_SECONDS)
            replied, _ = ray.wait(list(calls), num_returns=len(calls), timeout=0)
            for call in replied:
                self._take(calls[call], call)
        passed, self._polled = time.monotonic() - self._polled, time.monotonic()
        for worker in [worker for worker in self._workers if worker.where and worker.call]:
            worker.unheard += min(passed, 2 * LISTEN_SECONDS)  # in the rest this process did not run
            allowed = self._work.patience + REPLY_SECONDS + LISTEN_SECONDS
            if worker.unheard > (allowed if worker.ready else max(allowed, PREPARATION_SECONDS)):
                how = "did not reply for" if worker.ready else "was not ready after"
                self._bury(worker, f"{how} {worker.unheard:.0f} s")

    def _take(self, worker: Worker, call: Any) -> None:
        """Handle the reply to a call, or what came instead."""
        try:
            reply = ray.get(call)
        except RayTaskError as error:
            cause = str(error.cause).strip() or type(error.cause).__name__
            raise StudyError(
                f"{worker.name} cannot go on: {cause} All machines need the same autopeft, with the extra `ray`."
            ) from None
        except ActorUnavailableError:
            self._doubt(worker)
        except RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                told = " ".join(str(error).split())[-300:]
                raise StudyError(
                    f"a worker cannot start: {told} All machines need the same autopeft, with the extra `ray`."
                ) from None
            self._lose(worker, str(error))
        except RayError as error:  # such as memory that ran out on its node
            self._bury(worker, f"was ended by Ray ({type(error).__name__})", machine=True)
        else:
            worker.call, worker.doubted = None, None
            if isinstance(reply, Place):
                worker.where = reply
                worker.ask("look", self._order)
            elif isinstance(reply, bool):
                worker.ask("begin", self._rows, self._threads, self._pieces if reply else [])
            else:
                self._hear(worker, reply)

    @functools.cached_property
    def _pieces(self) -> list[tuple[str, Any]]:
        """The base model in the object store, put there once a node asks for it."""
        return pieces(self._work.model_files)

    def _hear(self, worker: Worker, messages: list[Any]) -> None:
        """Pass an actor's messages on, and call it again unless it has nothing to do."""
        method = "wait"
        given: tuple[str | None, ...] = ()
        for message in messages:
            job = worker.job
            if message.what == "silent":
                self._bury(worker, message.content)
                return
            if message.what == "end":
                worker.job = None
            answer = self._work.hear(worker.name, job, message)
            if message.what == "ready":
                worker.ready = True
            elif message.what == "rung":
                method, given = "go_on", (answer,)
        if worker.job or not worker.ready:
            worker.ask(method, *given)

    def _doubt(self, worker: Worker) -> None:
        """Wait until Ray knows whether a node that cannot be reached is gone; the call may have run, or not."""
        worker.doubted = worker.doubted or time.monotonic()
        if self._gone(worker) or time.monotonic() - worker.doubted > DOUBT_SECONDS:
            self._lose(worker)
        else:
            time.sleep(LISTEN_SECONDS / 10)

    def _lose(self, worker: Worker, told: str = "") -> None:
        """Handle the death of an actor, of which Ray told: with its node, which is nobody's fault, or alone."""
        if self._gone(worker) or NODE_DIED in told:
            self._remove(worker)
            node = f"Node {worker.where.address}" if worker.where else "A node"
            self._work.say(f"{node} is gone; its trial, if any, is not lost.")
            if worker.job:
                worker.job.lost(f"the node of {worker.name} is gone", asked=True)
        else:
            self._bury(worker, "died")

    def _gone(self, worker: Worker) -> bool:
        """Whether the actor's node has left the cluster."""
        return worker.where is not None and worker.where.node not in [node["NodeID"] for node in nodes.alive()]

    def _bury(self, worker: Worker, how: str, *, machine: bool = False) -> None:
        """End an actor that died or hangs, and give its trial back; each is replaced once."""
        self._remove(worker)
        self._deaths += 1
        self._work.say(f"{worker.name[0].upper()}{worker.name[1:]} {how}; its trial, if any, is not lost.")
        if worker.job:
            worker.job.lost(f"{worker.name} {how}", machine=machine)
        if not self._workers and self._wanted() <= 0:
            raise StudyError(
                f"{worker.name} {how}, and no worker is left, though each was started twice. Run the same command "
                "again: the trials that finished are kept."
            )
        self._looked = 0.0

    def _remove(self, worker: Worker) -> None:
        self._workers.remove(worker)
        ray.kill(worker.actor)

    def _wanted(self) -> int:
        """How many actors there should be now."""
        whole = min(self._work.workers or nodes.room(nodes.alive(), gpu=self._gpu), self._work.most)
        return whole - max(0, self._deaths - whole)

    def _grow(self) -> None:
        """Start actors where there is room for more, as when nodes have come, or actors have died.

        Raises:
            StudyError: there has been no room for any for too long.
        """
        now = time.monotonic()
        if any(worker.where for worker in self._workers):
            self._room_since, self._told = now, False
        if now - self._room_since > ROOM_SECONDS:
            raise StudyError(
                f"no node of the Ray cluster had room for a worker for {ROOM_SECONDS / 60:.0f} minutes; see `ray "
                "status`, and run the same command again: the trials that finished are kept."
            )
        if now - self._room_since > ROOM_TOLD and not self._told:
            self._told = True
            need = "GPU" if self._gpu else "CPU"
            self._work.say(f"No node of the Ray cluster has room for a worker, which needs a {need}; waiting for one.")
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._workers += [self._start() for _ in range(self._wanted() - len(self._workers))]

    def _start(self) -> Worker:
        options = {"num_cpus": 1, "num_gpus": int(self._gpu), "scheduling_strategy": "SPREAD"}
        made = ray.remote(Actor).options(max_restarts=0, max_task_retries=0, **options)
        worker = Worker(made.remote(self._folder, gpu=self._gpu))
        worker.ask("place")
        return worker

    def __enter__(self) -> Self:
        work = self._work
        size = sum(field.values.nbytes for field in work.rows.encoded.fields.values())
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        room = max(cores, work.workers or 1)
        try:
            self._folder = self._stack.enter_context(connected(work.address, room, gpus=self._gpu, size=size))
            found = nodes.alive()
            wanted = max(1, min(work.workers or nodes.room(found, gpu=self._gpu), work.most))
            self._threads = max(1, work.threads // wanted) if self._folder else nodes.threads(found, wanted)
            self._order, self._rows = ray.put(work.order), ray.put(work.rows)
            work.say(f"Trials run on Ray, in {_several(wanted, 'worker')} on {_several(len(found), 'node')}.")
            self._polled = self._room_since = time.monotonic()
            self._grow()
        except BaseException as error:  # Ctrl-C among them
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with suppress(RayError):
                there = [worker for worker in self._workers if worker.where and not self._folder]
                if closing := [worker.actor.close.remote() for worker in there]:
                    ray.wait(closing, num_returns=len(closing), timeout=FAREWELL_SECONDS)
                for worker in self._workers:
                    ray.kill(worker.actor)
        finally:
            self._stack.close()


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
