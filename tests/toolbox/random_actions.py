"""Random and mutated code actions by seed, for the tests and for experiments/sandbox_fuzz."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from tests.toolbox.hostile_actions import HOSTILE

VALID = (
    "text = read_text('notes.txt')\nprint(text.split('\\n')[0])",
    "found = find('apple')\nfor line in found:\n    print(line.upper())",
    "total = add(2, 3) + add(4.5, -1)\nprint(f'{total:.2f}')",
    "name = paint('blue')\nprint(name)",
    "import json\nprint(json.dumps({'a': [1, 2, {'b': None}]}, indent=2))",
    "import re\nprint(re.findall(r'\\d+', 'a1b22c333'))",
    "import numpy as np\nx = np.arange(12).reshape(3, 4)\nprint(x.mean(), x @ x.T)",
    "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nprint([fib(n) for n in range(10)])",
    "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\np = Point(1, 2)\np.x + p.y",
    "try:\n    read_text('missing.txt')\nexcept Exception as error:\n    print(error)\nfinally:\n    print('done')",
    "x = 0\nwhile x < 10:\n    x += 1\n    if x == 5:\n        continue\nprint(x)",
    "pairs = {k: v for k, v in zip('abc', range(3))}\nsorted(pairs.items(), key=lambda pair: -pair[1])",
    "with open('out.txt', 'w') as file:\n    file.write('x' * 100)\nread_text('out.txt')",
    "gen = (n * n for n in range(5))\nprint(sum(gen), list(gen))",
    "answer = ask_host({'q': [1, 2.5, 'three', None]})\nprint(answer)",
    "final_answer({'sum': add(1, 2)})",
    "from PIL import Image\nimage = Image.new('RGB', (8, 8), 'red')\nimage.save('square.png')\nimage.size",
    "import datetime\nprint(datetime.date(2024, 2, 29) + datetime.timedelta(days=365))",
)
_PIECES = (
    *("0", "-1", "10**9", "2**64", "1e308", "float('nan')", "''", "None", "[]", "{}", "...", "b'\\x00'", "lambda: 0"),
    *("print", "read_text", "find", "add", "paint", "final_answer", "open", "__import__('os')", "().__class__", "x"),
    *(
        "(",
        ")",
        "[",
        "]",
        ":",
        "\n",
        "\n    ",
        "\t",
        ";",
        "=",
        "==",
        ",",
        ".",
        "@",
        "**",
        "*",
        "'",
        '"""',
        "\\",
        "#",
        "\0",
    ),
    *("for x in ", "while ", "if ", "else:", "def f():", "return ", "yield ", "import ", "class A:", "raise ", "del "),
    *(
        "async ",
        "await ",
        "global ",
        "nonlocal ",
        "match ",
        "case ",
        "with ",
        "try:",
        "except:",
        "lambda x:",
        "é",
        "\ud800",
        "\U0001f600",
    ),
)


def _position(rng: random.Random, code: str) -> int:
    return rng.randrange(len(code) + 1)


def _delete(rng: random.Random, code: str) -> str:
    start = _position(rng, code)
    return code[:start] + code[start + rng.randint(1, 8) :]


def _insert(rng: random.Random, code: str) -> str:
    start = _position(rng, code)
    return code[:start] + rng.choice(_PIECES) + code[start:]


def _replace(rng: random.Random, code: str) -> str:
    start = _position(rng, code)
    return code[:start] + rng.choice(_PIECES) + code[start + rng.randint(1, 6) :]


def _character(rng: random.Random, code: str) -> str:
    start = _position(rng, code)
    return code[:start] + chr(rng.choice((rng.randrange(128), rng.randrange(0x110000)))) + code[start + 1 :]


def _lines(rng: random.Random, code: str) -> str:
    lines = code.split("\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    action = rng.randrange(3)
    if action == 0:
        lines[first], lines[second] = lines[second], lines[first]
    elif action == 1:
        lines.insert(first, lines[second])
    else:
        lines[first] = rng.choice(("    ", "  ", "\t", "")) + lines[first].strip()
    return "\n".join(lines)


def _splice(rng: random.Random, code: str) -> str:
    other = rng.choice(VALID)
    return code[: _position(rng, code)] + other[_position(rng, other) :]


def _repeat(rng: random.Random, code: str) -> str:
    start = _position(rng, code)
    piece = code[start : start + rng.randint(1, 12)]
    return code[:start] + piece * rng.choice((2, 10, 1000)) + code[start:]


_WORD = re.compile(r"\b[A-Za-z_]\w*\b|\b\d+\b|'[^'\\n]*'")
_VALUES = (
    *(
        "0",
        "-1",
        "10**9",
        "2**64",
        "1e308",
        "''",
        "None",
        "[]",
        "{}",
        "b'x'",
        "(1, 2)",
        "True",
        "'\\ud800'",
        "'missing.txt'",
    ),
    *(
        "print",
        "read_text",
        "find",
        "add",
        "paint",
        "open",
        "text",
        "x",
        "len",
        "sorted",
        "range",
        "str",
        "int",
        "list",
    ),
)


def _word(rng: random.Random, code: str) -> str:
    """Another word in the place of one: most often still Python, no longer what was meant."""
    words = list(_WORD.finditer(code))
    if not words:
        return code
    chosen = rng.choice(words)
    other = rng.choice((rng.choice(_VALUES), rng.choice(words)[0]))
    return code[: chosen.start()] + other + code[chosen.end() :]


_MUTATIONS: tuple[Callable[[random.Random, str], str], ...] = (
    *(_delete, _insert, _replace, _character, _lines, _splice, _repeat),
)


def _from_pieces(rng: random.Random) -> str:
    return "".join(rng.choice(_PIECES) for _ in range(rng.randint(1, 40)))


def _from_characters(rng: random.Random) -> str:
    top = rng.choice((128, 256, 0x110000))
    return "".join(chr(rng.randrange(top)) for _ in range(rng.randint(0, 200)))


def random_action(rng: random.Random, hostile: Sequence[str] = tuple(action.code for action in HOSTILE)) -> str:
    """One action: valid (1 in 10), made of pieces or characters (2), hostile with other words (1),
    valid with other words (4), valid mutated as text (2)."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.choice(VALID)
    if kind == 1:
        return _from_pieces(rng)
    if kind == 2:
        return _from_characters(rng)
    code = rng.choice(hostile) if kind == 3 else rng.choice(VALID)
    if kind < 8:
        for _ in range(rng.choice((1, 1, 2, 3))):
            code = _word(rng, code)
        return code
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        code = rng.choice(_MUTATIONS)(rng, code)
    return code
