"""How long text is cut: the head and the tail stay, the middle is counted and left out.

The decisive line of an observation is as often the last one (an exception, a total) as the first, so neither
end may go. `HeadAndTail` does the same as `truncate` for text that arrives in pieces and is never held whole.
"""

from __future__ import annotations


def omission(characters: int) -> str:
    """What stands in the place of the middle."""
    return f"\n[... {characters} characters omitted ...]\n"


def truncate(text: str, limit: int) -> str:
    """`text` itself up to `limit` characters, else its head and tail (`limit` characters together) around a note."""
    collected = HeadAndTail(limit)
    collected.write(text)
    return collected.text()


class HeadAndTail:
    """Collects text, keeping the first and the last half of `limit` characters; `bytes` counts all of it (UTF-8)."""

    def __init__(self, limit: int) -> None:
        if limit < 2:
            raise ValueError(f"limit must be at least 2 characters, got {limit}")
        self.limit = limit
        self.characters = 0
        self.bytes = 0
        self._head = ""  # the first limit - limit // 2 characters
        self._rest = ""  # what came after, only its end

    def write(self, text: str) -> None:
        """Add `text`; lone surrogates become "?"."""
        if not text.isascii():
            encoded = text.encode("utf-8", "replace")
            self.bytes += len(encoded)
            text = encoded.decode("utf-8")
        else:
            self.bytes += len(text)
        self.characters += len(text)
        room = self.limit - self.limit // 2 - len(self._head)
        self._head += text[:room]
        self._rest += text[room:][-self.limit :]
        if len(self._rest) > 4 * self.limit:  # not at every write, which would copy the tail each time
            self._rest = self._rest[-self.limit :]

    def text(self) -> str:
        """Everything if it fits, else head, note and tail."""
        if self.characters <= self.limit:
            return self._head + self._rest
        tail = self._rest[-(self.limit // 2) :]
        return f"{self._head}{omission(self.characters - self.limit)}{tail}"
