"""A server in one text, as a config names it: "ADDRESS MODEL KEY_VARIABLE".

"http://localhost:8000/v1 Qwen2-VL-7B" has no key; "https://api.example.com/v1 gpt-x API_KEY" has one in the environment
variable API_KEY. The key itself stands in no config: a config is written to the run's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from regrpo_jax.errors import UserError

FORM = "'ADDRESS MODEL' or 'ADDRESS MODEL KEY_VARIABLE', such as 'http://localhost:8000/v1 Qwen2-VL-7B'"
FORM_WITHOUT_MODEL = "'ADDRESS' or 'ADDRESS KEY_VARIABLE', such as 'http://localhost:8080'"
ENDPOINTS = {"vision": True, "images": True, "detect": False, "segment": False, "caption": False}
"""Models that may stand behind tools, and whether a model is named with the address."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Server(NamedTuple):
    """model: its name there. key_variable: environment variable that holds the key, "" for a server without one."""

    url: str
    model: str = ""
    key_variable: str = ""


def is_address(text: str) -> bool:
    """Whether a text begins as one of a server does, and no path."""
    return text.startswith(("http://", "https://"))


def servers_of(texts: Sequence[str], known: Mapping[str, bool]) -> dict[str, Server]:
    """Servers by what they do, of texts such as "detect=http://localhost:9000/detect KEY_VARIABLE".

    Args:
      known: what they may do -> whether a model is named with them.
    Raises:
      UserError: a text is none of these, or says again what one before it said.
    """
    found: dict[str, Server] = {}
    for text in texts:
        name, _, rest = text.partition("=")
        if name not in known or name in found:
            raise UserError(
                f"{name.partition(' ')[0]!r}: write NAME=ADDRESS or 'NAME=ADDRESS KEY_VARIABLE', with a MODEL after "
                f"the address where one is named, each of {', '.join(known)} once"
            )
        found[name] = server_of(rest, model=known[name])
    return found


def server_of(text: str, *, model: bool = True) -> Server:
    """The server that a text names.

    Args:
      model: whether a model is named; a search engine has none.
    Raises:
      UserError: it names none. What stands in the key's place is not told again, because it may be a key.
    """
    words = text.split()
    least = 2 if model else 1
    if len(words) not in (least, least + 1) or not is_address(words[0]):
        raise UserError(f"write a server as {FORM if model else FORM_WITHOUT_MODEL}")
    key_variable = words[least] if len(words) > least else ""
    if key_variable and not _VARIABLE.fullmatch(key_variable):
        raise UserError(f"the server {words[0]}: name the environment variable that holds its key, not the key")
    return Server(words[0], words[1] if model else "", key_variable)
