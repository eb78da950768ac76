"""A world with a state: a safe with a dial, a note that says where to turn it, and now and then a newer lock."""


class Safe:
    """Opens when it is pulled while the dial is at its code; a changed lock tells its code to whoever pulls in vain."""

    def reset(self, task: dict[str, str]) -> str:
        self.code, self.dial, self.is_open = task["code"], "none", False
        return f'The note says "{task["note"]}".'

    def step(self, action: str) -> str:
        verb, _, place = action.partition(" ")
        if verb == "turn" and place:
            self.dial = place
            return f'The dial is at "{place}".'
        if verb != "pull":
            raise ValueError(f'"{action}" is nothing to do. Turn or pull.')
        if self.dial != self.code:
            raise ValueError(f'It stays shut. The lock is new, and opens at "{self.code}".')
        self.is_open = True
        return "It opens."

    def success(self) -> bool:
        return self.is_open
