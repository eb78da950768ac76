"""A world as a person would write it."""

from __future__ import annotations

from typing import Any


class Safe:
    """It opens at one digit, and says so when it is pulled at another one."""

    def reset(self, task: dict[str, Any]) -> str:
        self.code, self.dial, self.is_open = task["code"], 0, False
        return "A safe. Its dial is at 0."

    def step(self, action: str) -> str:
        verb, _, digit = action.partition(" ")
        if verb == "turn" and digit.isdigit():
            self.dial = int(digit)
            return f"The dial is at {digit}."
        if verb != "pull":
            raise ValueError(f'"{action}" is nothing to do here. Say "turn 3" or "pull".')
        if self.dial != self.code:
            raise ValueError(f"It stays shut. The lamp blinks {self.code} times.")
        self.is_open = True
        return "It opens."

    def success(self) -> bool:
        return self.is_open


class Broken:
    """Lacks what a world has."""

    def reset(self, task: dict[str, Any]) -> str:
        return ""
