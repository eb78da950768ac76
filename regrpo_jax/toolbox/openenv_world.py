"""An OpenEnv environment as a world of ours: it runs in the process of the tools, without its server.

    class Echo(OpenEnvWorld):
        environment, action = EchoEnvironment, EchoAction

A task's "world" holds what `reset` of the environment takes.
"""

import json
import random
from typing import Any

OVER = "The episode is over: call final_answer."


class OpenEnvWorld:
    """environment: its class. action: the model of its actions. enough: the least last reward of a success."""

    environment: Any
    action: Any
    enough = 1.0

    def reset(self, task: dict[str, Any]) -> str:
        random.seed(json.dumps(task, sort_keys=True))  # many draw from the global generator, and a world must repeat
        self.inside = self.environment()
        return self._seen(self.inside.reset(**task))

    def step(self, action: str) -> str:
        if self.last.done:
            raise ValueError(OVER)
        return self._seen(self.inside.step(self._parsed(action)))

    def success(self) -> bool:
        return (self.last.reward or 0.0) >= self.enough

    def _parsed(self, text: str) -> Any:
        """The action of a text: the value of its only field that must be given, else a JSON object."""
        needed = [name for name, field in self.action.model_fields.items() if field.is_required()]
        given = {needed[0]: text} if len(needed) == 1 and not text.lstrip().startswith("{") else None
        try:
            return self.action.model_validate(given) if given else self.action.model_validate_json(text)
        except ValueError as error:  # pydantic's errors are such; they tell what the model of the action is like
            told: list[dict[str, Any]] = getattr(error, "errors", list)()
            reasons = [f"{'.'.join(map(str, one['loc']))} {one['msg']}".strip() for one in told]
            raise ValueError(f"No such action: {'; '.join(reasons) or error}") from None

    def _seen(self, observation: Any) -> str:
        """What it shows, as text; an error that it tells of is one of the action."""
        self.last = observation
        shown = observation.model_dump(mode="json", exclude={"done", "reward", "metadata"}, exclude_none=True)
        error = shown.get("error") or observation.metadata.get("error")
        if error:
            raise ValueError(error if isinstance(error, str) else json.dumps(error))
        values = list(shown.values())
        text = values[0] if len(values) == 1 and isinstance(values[0], str) else json.dumps(shown)
        return f"{text} {OVER}" if observation.done else text
