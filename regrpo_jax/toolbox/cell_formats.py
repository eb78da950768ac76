"""A cell of a workbook as it is shown: its value through its number format, as far as the format is a usual one.

Formats that are not known here (fractions, conditions, elapsed hours) and those that each country shows in its own way
show the value itself.
"""

from __future__ import annotations

import datetime
import re
from decimal import ROUND_HALF_UP, Decimal

_LITERAL = r'"(?P<quoted>[^"]*)"|\\(?P<escaped>.)|_.|\*.|\[\$(?P<symbol>[^\]-]*)[^\]]*\]'
_COLOURS = r"\[(?:Black|Blue|Cyan|Green|Magenta|Red|White|Yellow|Colou?r ?\d+)\]"
_NUMBER_PART = re.compile(
    rf"{_LITERAL}|{_COLOURS}|(?P<digits>[0#][0#,]*(?:\.[0#]*,*)?(?:E\+0+)?|\.[0#]+)|(?P<general>General)"
    r"|(?P<unknown>\[[^\]]*\]|[@/?E])|(?P<plain>.)",
    re.IGNORECASE | re.DOTALL,
)
_DATE_PART = re.compile(
    rf"{_LITERAL}|(?P<part>AM/PM|A/P|y+|m+|d+|h+|s+(?:\.0+)?)|(?P<unknown>\[[^\]]*\])|(?P<plain>.)",
    re.IGNORECASE | re.DOTALL,
)
_SECTION = re.compile(r'((?:"[^"]*"|\\.|\[[^\]]*\]|[^;"\\\[])*)(?:;|\Z)', re.DOTALL)
_OF_THE_COUNTRY = ("mm-dd-yy", "m/d/yy h:mm")  # what openpyxl calls Excel's formats 14 and 22
_DAYS = {"d": "{0.day}", "dd": "{0:%d}", "ddd": "{0:%a}", "dddd": "{0:%A}"}
_MONTHS = {"m": "{0.month}", "mm": "{0:%m}", "mmm": "{0:%b}", "mmmm": "{0:%B}"}
_TIMES = {"y": "{0:%y}", "yy": "{0:%y}", "yyy": "{0:%Y}", "yyyy": "{0:%Y}", "h": "{0.hour}", "hh": "{0:%H}",
          "s": "{0.second}", "ss": "{0:%S}", "am/pm": "{0:%p}"}  # fmt: skip


def shown(value: object, number_format: str) -> str:
    """The text that a cell shows."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, int | float):
        text = _number(value, number_format)
        return _general(value) if text is None else text
    if isinstance(value, datetime.date | datetime.time):
        text = _moment(value, number_format)
        return iso(value) if text is None else text
    return str(value)


def iso(value: datetime.date | datetime.time) -> str:
    """The moment as text; without the midnight that workbooks give to every date."""
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ")
    return value.isoformat()


def _general(value: float) -> str:
    """Fifteen digits, which is what a workbook keeps."""
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    return f"{value:.15g}".replace("e", "E")


def _number(value: float, number_format: str) -> str | None:
    sections = [section[1] for section in _SECTION.finditer(number_format)]
    chosen = 1 if value < 0 and len(sections) > 2 else 2 if value == 0 and len(sections) > 3 else 0
    tokens = list(_NUMBER_PART.finditer(sections[chosen]))
    if any(token["unknown"] for token in tokens) or sum(bool(token["digits"]) for token in tokens) > 1:
        return None
    amount = Decimal(repr(abs(value))) * 100 ** sum(token["plain"] == "%" for token in tokens)
    text = ""
    for token in tokens:
        if token["digits"]:
            text += _digits(amount, token["digits"])
        else:
            text += _general(abs(value)) if token["general"] else _literal(token)
    return "-" * (value < 0 and chosen == 0 and re.search("[1-9]", text) is not None) + text.strip()


def _literal(token: re.Match[str]) -> str:
    return token["quoted"] or token["escaped"] or token["symbol"] or token["plain"] or ""


def _digits(amount: Decimal, code: str) -> str:
    mantissa, _, exponent = code.upper().partition("E")
    bare = mantissa.rstrip(",")  # each comma at the end is a thousand
    scaled = amount / 1000 ** (len(mantissa) - len(bare))
    bare, _, rest = bare.partition(".")
    if exponent:
        return f"{float(amount):.{len(rest)}E}"
    before, _, after = f"{scaled.quantize(Decimal(1).scaleb(-len(rest)), ROUND_HALF_UP):f}".partition(".")
    while after and after[-1] == "0" and rest[len(after) - 1] == "#":
        after = after[:-1]
    before = before.lstrip("0").zfill(bare.count("0"))
    if "," in bare:
        before = re.sub(r"(?<=\d)(?=(?:\d{3})+\Z)", ",", before)
    return f"{before}.{after}" if after else before


def _moment(value: datetime.date | datetime.time, number_format: str) -> str | None:
    if number_format.lower() in _OF_THE_COUNTRY:
        return None
    tokens = list(_DATE_PART.finditer(next(_SECTION.finditer(number_format))[1]))
    parts = [(token["part"] or "").lower() for token in tokens]
    if any(token["unknown"] for token in tokens) or not any(parts):
        return None
    text = ""
    for place, (token, part) in enumerate(zip(tokens, parts, strict=True)):
        if not part:
            text += _literal(token)
            continue
        form = _form(part, [one for one in parts[:place] if one], [one for one in parts[place + 1 :] if one])
        if form is None or (isinstance(value, datetime.time) and part[0] in "yd"):
            return None
        if "am/pm" in parts and part in ("h", "hh"):
            form = "{0:%I}"
        try:
            found = form.format(value)
        except (AttributeError, ValueError):
            return None
        text += found.lstrip("0") if form == "{0:%I}" and part == "h" else found
    return text.strip()


def _form(part: str, before: list[str], behind: list[str]) -> str | None:
    """How a part is written; m and mm are minutes behind hours and before seconds."""
    if part in ("m", "mm") and (before[-1:] in (["h"], ["hh"]) or behind[:1] in (["s"], ["ss"])):
        return "{0.minute}" if part == "m" else "{0:%M}"
    return _DAYS.get(part) or _MONTHS.get(part) or _TIMES.get(part)
