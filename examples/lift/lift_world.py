"""A world with a state: a lift that has to be brought to a floor and opened there."""

FLOORS = range(1, 6)


class Lift:
    """Moves by one floor; opened at a wrong floor, or sent where there is none, it says what is the matter."""

    def reset(self, task: dict[str, int]) -> str:
        self.floor, self.wanted, self.is_open = task["floor"], task["wanted"], False
        return self._seen()

    def step(self, action: str) -> str:
        if action == "open" and self.floor == self.wanted:
            self.is_open = True
            return "It opens."
        if action == "open":
            raise ValueError(f"This is the wrong floor. {self._seen()}")
        if action not in ("up", "down"):
            raise ValueError(f'"{action}" is nothing to do. Say up, down or open.')
        floor = self.floor + (1 if action == "up" else -1)
        if floor not in FLOORS:
            raise ValueError(f"There is no floor {floor}. {self._seen()}")
        self.floor = floor
        return self._seen()

    def success(self) -> bool:
        return self.is_open

    def _seen(self) -> str:
        return f'It is at "{self.floor}", wanted at "{self.wanted}".'
