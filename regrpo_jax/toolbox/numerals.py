"""Digits as the world writes them: 1,234.5 and 1.234,5 and 1 234,5 and 1'234.5 are one number.

`english` has a point before the decimals, `continental` a comma; groups of thousands are marked by the other one, or by
a blank or an apostrophe. A text may be both ("1,234"), and then the reader must know which it is. What is neither, such
as "1,23,4", is no number: nobody should guess at it.
"""

from __future__ import annotations

import re

# Blanks of every width that are set between groups, apostrophes, and the Arabic mark.
_MARKS = " \N{NO-BREAK SPACE}\N{FIGURE SPACE}\N{THIN SPACE}\N{NARROW NO-BREAK SPACE}'\N{RIGHT SINGLE QUOTATION MARK}_٬"
SEPARATORS = f".,{_MARKS}"  # all that may stand between the digits of one number


def _form(group: str, decimal: str, more: str = "") -> re.Pattern[str]:
    """Plain digits, or groups of three with one mark throughout; then decimals."""
    groups = rf"[1-9]\d{{0,2}}(?P<mark>[{group}{_MARKS}])\d{{3}}(?:(?P=mark)\d{{3}})*"
    return re.compile(rf"(?P<whole>\d+|{groups}{more})(?:{decimal}(?P<rest>\d+))?")


_ENGLISH = _form(",", r"\.", r"|[1-9]\d?(?:,\d\d)+,\d{3}")  # the last one is Indian
_CONTINENTAL = _form(".", ",")


def _plain(form: re.Pattern[str], text: str) -> str | None:
    match = form.fullmatch(text)
    if match is None:
        return None
    whole = re.sub(r"\D", "", match["whole"])
    return f"{whole}.{match['rest']}" if match["rest"] else whole


def english(digits: str) -> str | None:
    """The digits as Python writes them, where a point comes before the decimals; None where they are no number."""
    return digits if digits.isdigit() else _plain(_ENGLISH, f"0{digits}" if digits.startswith(".") else digits)


def continental(digits: str) -> str | None:
    """The digits as Python writes them, where a comma comes before the decimals; None where they are no number."""
    return digits if digits.isdigit() else _plain(_CONTINENTAL, digits)
