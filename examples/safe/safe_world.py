"""A world with a state: a safe that opens when it is pulled after its dial went to two places, in their order."""


class Safe:
    """What counts is where the dial went last; a pull in vain tells where that was."""

    def reset(self, task: dict[str, list[str]]) -> str:
        self.code, self.went, self.is_open = task["code"], [], False
        return 'The note says "{}", then "{}".'.format(*self.code)

    def step(self, action: str) -> str:
        verb, _, place = action.partition(" ")
        if verb == "turn" and place:
            self.went = [*self.went, place][-2:]
            return f'The dial is at "{place}".'
        if verb != "pull":
            raise ValueError(f'"{action}" is nothing to do. Turn or pull.')
        if self.went != self.code:
            raise ValueError("It stays shut. The dial went to " + ", then ".join(f'"{one}"' for one in self.went))
        self.is_open = True
        return "It opens."

    def success(self) -> bool:
        return self.is_open
