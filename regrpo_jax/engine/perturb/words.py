"""Words that may stand in the place of others: those that the situation knows, and those that lists name together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from regrpo_jax.engine.cases import Situation
from regrpo_jax.toolbox.shapes import COLORS, SHAPES

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")

TABLE_ENDINGS = (".csv", ".tsv", ".xlsx")


def word_set(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


DOCUMENT_ENDINGS = (".pdf", ".docx", ".xlsx", ".pptx", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".htm",
                    ".txt", ".md", ".log", ".ini", ".yaml", ".yml", ".py", ".db", ".mp3", ".mp4", ".wav")  # fmt: skip
_ENDING = "|".join(re.escape(ending) for ending in (*IMAGE_ENDINGS, *DOCUMENT_ENDINGS))
_FILE = re.compile(rf"\w[\w./-]*(?:{_ENDING})\Z", re.IGNORECASE)
_QUOTED = re.compile(r'"([^"\n]{1,60})"|(?<!\w)\'([^\'\n]{1,60})\'(?!\w)')
_NAMES = re.compile(rf"\w[\w./-]*(?:{_ENDING})\b|\b[A-Z]\w+(?: [A-Z]\w+)*|\b\d[\d,.]*\b")
_THINGS = re.compile(r"\b(?:the|a|an|of|each|how many|this|these)\s+([a-z]{3,})\b", re.IGNORECASE)
_QUESTION_WORDS = word_set(
    "What Which How Who Where When Why Is Are Does Do Did Can Task The A An In Of On At It Its Use Find Get Read Look "
    "Count Give Search Should And Output Step Observation"
)
_NO_THINGS = word_set("image picture photo following given total number amount first last same most each and")
_OPENS_SENTENCE = re.compile(r"(?:\A|[.?!:>\n])\s*\Z")
_EMPTY_WORDS = word_set(
    "what which with does much many from this that there should have will would could they them their then than into "
    "about after before your some such must please using used only also been being were where when each"
)
_CLAUSE = re.compile(r"[:;()\n]|\.\s")
_ITEM = re.compile(r",\s*(?:or\s+|and\s+)?|\s+or\s+|\s+and\s+")
_BEFORE_LIST = re.compile(r"\A(?:one of|such as|for example|e\.g\.|like)\s+", re.IGNORECASE)
_MOST_ITEM_WORDS = 3
_NEARLY_THE_SAME = ({"square", "rectangle"}, {"circle", "ellipse"}, {"gray", "white"}, {"gray", "black"},
                    {"person", "people"}, {"person", "face"}, {"man", "person"}, {"woman", "person"})  # fmt: skip
_PAIRS = ("left right", "top bottom", "upper lower", "first last", "largest smallest", "inside outside", "front back")
OPPOSITE = {one: other for pair in _PAIRS for one, other in (pair.split(), pair.split()[::-1])}


def unique(words: Iterable[str]) -> tuple[str, ...]:
    """The words in their order, each once."""
    return tuple(dict.fromkeys(words))


def is_file_name(text: str) -> bool:
    """Whether it looks like "folder/name.ext"."""
    return _FILE.match(text) is not None


def word_kind(word: str) -> str:
    """What sort of name it is: words of one kind can be mistaken for each other."""
    if is_file_name(word):
        return "file"
    if re.fullmatch(r"(?:19|20)\d\d", word):
        return "year"
    if re.fullmatch(r"[-+]?\d[\d,.]*", word):
        return "number"
    if " " in word.strip():
        return "phrase"
    return "proper name" if word[:1].isupper() else "name"


def words_told(situation: Situation) -> tuple[str, ...]:
    """Names and numbers that the instruction, the steps before and what they returned tell; no tool's name."""
    before = situation.observations[: situation.index]
    texts = (situation.instruction, *(step.code for step in situation.steps[: situation.index]), *before)
    found = unique(word for text in texts for word in (*quoted(text), *_named(text)))
    return tuple(word for word in found if word not in situation.tools)


def quoted(text: str) -> list[str]:
    """What stands in quotes."""
    words = ((one or other).strip() for one, other in _QUOTED.findall(text))
    return [word for word in words if word and "\\" not in word]


def _named(text: str) -> list[str]:
    found = []
    for match in _NAMES.finditer(text):
        word = match.group().strip(".,")
        opens = match.group().isalpha() and _OPENS_SENTENCE.search(text[max(0, match.start() - 3) : match.start()])
        if word not in _QUESTION_WORDS and not opens:  # a capital at the start of a sentence tells nothing
            found.append(word)
    return found


def things_told(instruction: str) -> tuple[str, ...]:
    """Words of the instruction that probably name things: those behind an article or "how many"."""
    return unique(word for word in map(str.lower, _THINGS.findall(instruction)) if word not in _NO_THINGS)


def content_words(instruction: str) -> tuple[str, ...]:
    """Plain words of the instruction that carry its meaning, without names and numbers."""
    return unique(
        word for word in re.findall(r"(?<![\w\"'])[a-z]{4,}(?![\w.\"'])", instruction) if word not in _EMPTY_WORDS
    )


def listed_beside(value: str, *descriptions: str) -> tuple[str, ...]:
    """The other members of the first list "a, b, c or d" in the descriptions that has `value` as a member."""
    for description in descriptions:
        for clause in _CLAUSE.split(description):
            items = [_BEFORE_LIST.sub("", item.strip()).strip("\"'. ") for item in _ITEM.split(clause)]
            items = [item for item in items if 0 < len(item.split()) <= _MOST_ITEM_WORDS]
            if value in items and len(items) > 1:
                return tuple(item for item in unique(items) if item != value and not re.match(r"an? ", item))
    return ()


def file_names(situation: Situation) -> tuple[str, ...]:
    """All files of the workspace."""
    return unique((*(file.name for file in situation.task.files), *situation.images.values()))


def image_names(situation: Situation) -> tuple[str, ...]:
    """The pictures of the task, those that the policy is shown first."""
    others = (name for name in file_names(situation) if name.lower().endswith(IMAGE_ENDINGS))
    return unique((*situation.task.images, *situation.images.values(), *others))


def stem_of(path: str) -> str:
    """The name without its folders and ending."""
    return PurePosixPath(path).stem


def _swapped(text: str, others: Callable[[str], Iterable[str]]) -> list[str]:
    """The text with one word replaced, for every word and everything that may replace it."""
    found = []
    for match in re.finditer(r"[^\W\d_]+", text):
        for word in others(match.group().lower()):
            word = word.capitalize() if match.group()[:1].isupper() else word
            found.append(text[: match.start()] + word + text[match.end() :])
    return found


def other_look(text: str) -> list[str]:
    """The text with another colour or another shape in it."""

    def others(word: str) -> Iterable[str]:
        look = next((look for look in (COLORS, SHAPES) if word in look), ())
        return [other for other in look if not nearly_the_same(word, other)]

    return _swapped(text, others)


def other_side(text: str) -> list[str]:
    """The text with one word turned into its opposite: left and right, first and last."""
    return _swapped(text, lambda word: (OPPOSITE[word],) if word in OPPOSITE else ())


def nearly_the_same(word: str, other: str) -> bool:
    """Whether who looks for the one finds the other: also a plural and its singular."""
    word, other = word.lower().rstrip("s"), other.lower().rstrip("s")
    return word == other or {word, other} in _NEARLY_THE_SAME


def typing_errors(word: str) -> list[str]:
    """The word with two letters swapped, one left out, one doubled; [] for what is too short to be recognised."""
    letters = [at for at in range(1, len(word) - 1) if word[at].isalpha() and word[at + 1].isalpha()]
    if len(word) < 3 or not letters:
        return []
    middle, last = letters[(len(letters) - 1) // 2], letters[-1]
    found = []
    for at in dict.fromkeys((middle, last)):
        found.append(word[:at] + word[at + 1] + word[at] + word[at + 2 :])
        found.append(word[:at] + word[at + 1 :])
        found.append(word[:at] + word[at] + word[at:])
    return [other for other in unique(found) if other != word]
