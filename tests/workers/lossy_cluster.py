"""A cluster in this process whose workers are lost when a test says so; their sandboxes are real."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from typing import Any

from regrpo_jax.sandbox.results import WorkerLost
from regrpo_jax.workers.place import Place, Told

# Asked before a worker plays anything.
STARTING = ("look", "begin", "end")


class LossyWorker:
    """A `Place` here, to which everything comes as it would through a network."""

    def __init__(self, cluster: LossyCluster, place: Place, begun: Told | None) -> None:
        self._cluster, self.place, self.begun = cluster, place, begun
        self.machine, self.process, self.gone = "", 0, False

    @property
    def name(self) -> str:
        return f"the worker on {self.machine}" if self.machine else "a worker"

    def ask(self, what: str, *arguments: Any, wanted: Callable[[], bool] = lambda: True, grace: float = 10.0) -> Told:
        if what == "look":
            while not self._cluster.room_for_more.wait(0.02):
                if not wanted():
                    raise WorkerLost("not wanted any more")
            if self.begun is not None and arguments in self._cluster.looks:
                return self._cluster.looks[arguments]
        if what == "begin" and self.begun is not None:
            return self.begun  # a sandbox that another worker left: tests have no time for many
        lost = "" if what in STARTING else self._cluster.loss()
        if lost == "before" or self.gone:
            self.gone = True
            raise WorkerLost(f"{self.name} is gone")
        told = pickle.loads(pickle.dumps(self.place.do(what, *pickle.loads(pickle.dumps(arguments)))))
        if what == "begin":
            self.begun = told
        if what == "look":
            self._cluster.looks[arguments] = told
        if lost:
            self.gone = True
            raise WorkerLost(f"{self.name} is gone")
        return told

    def tell(self, what: str) -> None:
        self.place.do(what)

    def end(self, seconds: float = 0.0) -> None:
        self.gone = True
        self.place.do("close")
        self._cluster.left(self)


class LossyCluster:
    """losses: "before" or "after" by the number of the question, from 0: whether what was asked is still done."""

    def __init__(self) -> None:
        self.losses: dict[int, str] = {}
        self.always = False
        self.looks: dict[tuple[Any, ...], Told] = {}  # what was found, so that it is found out once
        self.asked = 0
        self.room_for_more = threading.Event()
        self.room_for_more.set()
        self._lock = threading.Lock()
        self._spare: list[tuple[Place, Told | None]] = []

    def loss(self) -> str:
        with self._lock:
            number, self.asked = self.asked, self.asked + 1
        return "after" if self.always else self.losses.get(number, "")

    def new_worker(self) -> LossyWorker:
        with self._lock:
            place, begun = self._spare.pop() if self._spare else (Place(), None)
        return LossyWorker(self, place, begun)

    def left(self, worker: LossyWorker) -> None:
        with self._lock:
            if all(place is not worker.place for place, _ in self._spare):
                self._spare.append((worker.place, worker.begun))

    def room(self) -> str:
        return "each takes 1 CPU, and there is none"

    def end(self) -> None:
        for place, _ in self._spare:
            place.do("end")
