"""GTA's figures worked out a second time, straight from the JSON of a file of predictions, for well-formed files.

Written from the description in arXiv 2407.08713 and the behaviour of its evaluator, so that our sums have a rival.
"""

from __future__ import annotations

import json
import re
from typing import Any

TYPES = {
    **dict.fromkeys(["OCR", "ImageDescription", "RegionAttributeDescription", "TextToBbox"], "P"),
    **dict.fromkeys(["DrawBox", "AddText", "GoogleSearch"], "O"),
    **dict.fromkeys(["Calculator", "Solver", "Plot", "MathOCR", "CountGivenObject"], "L"),
    **dict.fromkeys(["TextToImage", "ImageStylization"], "C"),
}
PICTURES = {"DrawBox", "AddText", "Plot", "TextToImage", "ImageStylization"}


def right(text: str, truth: Any) -> float:
    """Of an objective answer, or of a subjective one that must be the same text."""
    if isinstance(truth, list):
        return float(text in truth)
    if not truth:
        return 0.0
    patterns = [r"\b(?:" + "|".join(map(re.escape, group)) + r")\b" for group in truth["whitelist"]]
    if any(re.search(pattern, text, re.I) is None for pattern in patterns):
        return 0.0
    if truth["blacklist"]:
        banned = [alias for group in truth["blacklist"] for alias in group]
        return float(re.search(r"\b(?:" + "|".join(map(re.escape, banned)) + r")\b", text, re.I) is None)
    return 1.0


def called(turn: dict[str, Any]) -> dict[str, Any] | None:
    """The first call of a turn."""
    return turn["tool_calls"][0]["function"] if "tool_calls" in turn else None


def steps(entries: list[dict[str, Any]], truths: list[Any]) -> dict[str, float]:
    """InstAcc, ToolAcc, ArgAcc and SummAcc in percent."""
    hits = dict.fromkeys(["InstAcc", "ToolAcc", "ArgAcc", "SummAcc"], 0.0)
    calls = answers = 0
    for entry, truth in zip(entries, truths, strict=False):
        answers += bool(truth)
        for mine, theirs in zip(entry["prediction"], entry["gold"], strict=False):
            one, other = called(mine), called(theirs)
            calls += other is not None
            hits["InstAcc"] += (one is None) == (other is None) and "error" not in mine
            if one and other:
                hits["ToolAcc"] += one["name"] == other["name"]
                hits["ArgAcc"] += one == other
            elif not one and not other:
                hits["SummAcc"] += right(mine["content"], truth)
    under = {"InstAcc": calls + answers, "ToolAcc": calls, "ArgAcc": calls, "SummAcc": answers}
    return {name: 100 * hits[name] / under[name] for name in hits if under[name]}


def episodes(entries: list[dict[str, Any]], truths: list[Any]) -> dict[str, float]:
    """AnsAcc, with images too, and F1 of the four kinds of tools, in percent."""
    answer = image = 0.0
    counts = {kind: {"gold": 0, "mine": 0, "hit": 0} for kind in "POLC"}
    for entry, truth in zip(entries, truths, strict=False):
        mine, theirs = entry["prediction"][0], entry["gold"][0]
        last = mine[-1]
        if truth and called(last) is None and last["role"] == "assistant" and last["content"]:
            answer += right(last["content"], truth)
        names = [call["name"] for turn in mine if (call := called(turn))]
        if not truth:
            made = {call["name"]: call for turn in mine if (call := called(turn)) and "error" not in turn}
            wanted = [call for turn in theirs if (call := called(turn)) and call["name"] in PICTURES]
            image += all(json.dumps(made.get(call["name"])) == json.dumps(call) for call in wanted)
        for name in names:
            if name in TYPES:
                counts[TYPES[name]]["mine"] += 1
        for turn in theirs:
            if call := called(turn):
                counts[TYPES[call["name"]]]["gold"] += 1
                counts[TYPES[call["name"]]]["hit"] += call["name"] in names
    found = {
        "AnsAcc": 100 * answer / max(1, sum(map(bool, truths))),
        "AnsAcc with images": 100 * (answer + image) / len(truths),
    }
    for kind, count in counts.items():
        if count["gold"]:
            precision, recall = count["hit"] / (count["mine"] + 1e-5), count["hit"] / count["gold"]
            found[f"{kind} F1"] = 100 * 2 * precision * recall / (precision + recall + 1e-5)
    return found
