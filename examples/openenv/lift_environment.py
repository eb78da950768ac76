"""A lift, written as OpenEnv has it: models of action and observation, an environment with reset, step and state."""

from typing import Any, Literal

from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

FLOORS = range(1, 6)


class LiftAction(Action):
    move: Literal["up", "down", "open"]


class LiftObservation(Observation):
    text: str


class LiftEnvironment(Environment[LiftAction, LiftObservation, State]):
    """Moves by one floor and opens at the one that is wanted."""

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, floor: int = 1, wanted: int = 1, **others: Any
    ) -> LiftObservation:
        self._state = State(episode_id=episode_id)
        self._floor, self._wanted = floor, wanted
        return self._told()

    def step(self, action: LiftAction, timeout_s: float | None = None, **others: Any) -> LiftObservation:
        self._state.step_count += 1
        if action.move == "open":
            right = self._floor == self._wanted
            return self._told(done=right, reward=float(right), error="" if right else "This is the wrong floor.")
        floor = self._floor + (1 if action.move == "up" else -1)
        if floor not in FLOORS:
            return self._told(error=f"There is no floor {floor}.")
        self._floor = floor
        return self._told()

    @property
    def state(self) -> State:
        return self._state

    def _told(self, done: bool = False, reward: float = 0.0, error: str = "") -> LiftObservation:
        text = "It opens." if done else f'It is at "{self._floor}", wanted at "{self._wanted}".'
        metadata = {"error": f"{error} {text}"} if error else {}
        return LiftObservation(text=text, done=done, reward=reward, metadata=metadata)
