"""A folder laid out as the package bfcl-eval is, with invented classes and tasks, and a small checker of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NEWS = "There is more that you can call."
_BACKEND = """
MULTI_TURN_FUNC_DOC_FILE_MAPPING = {"LampAPI": "lamps.json", "SumAPI": "sums.json"}
_FOLDER = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
CLASS_FILE_PATH_MAPPING = {"LampAPI": f"{_FOLDER}.lamps", "SumAPI": f"{_FOLDER}.sums"}
STATELESS_CLASSES = ["SumAPI"]
"""
_LAMPS = """
class LampAPI:
    def _load_scenario(self, scenario, long_context=False):
        self.lit = dict(scenario.get("lit", {}))
        if long_context:
            self.lit |= {f"spare {number}": False for number in range(50)}

    def light(self, name, watts=40):
        if name not in self.lit:
            return {"error": f"there is no lamp {name!r}, only {', '.join(self.lit)}"}
        self.lit[name] = True
        return {"lit": name, "watts": watts}

    def put_out(self, name):
        self.lit[name]
        self.lit[name] = False

    def list_lamps(self):
        return {"lamps": list(self.lit)}

    def dust(self):
        return {}

    def log_in(self, word):
        return {"login_status": word == "open"}

    def get_login_status(self):
        return {"login_status": False}

    def history(self):
        return [{"error": "nobody is logged in"}]

    def thing(self):
        return self
"""
_SUMS = """
class SumAPI:
    def add(self, first, second):
        return {"result": first + second}
"""
_CALLING = """
import copy
import importlib
import json
import re

from bfcl_eval.constants.executable_backend_config import CLASS_FILE_PATH_MAPPING, STATELESS_CLASSES


def execute(calls, entry, name):
    methods, instances = {}, {}
    for kind in entry["involved_classes"]:
        place = re.sub(r"[-./:]", "_", f"{name}_eval_{entry['id']}_{kind}_instance")
        if place not in globals():
            made = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[kind]), kind)()
            if kind not in STATELESS_CLASSES:
                config = copy.deepcopy(entry["initial_config"].get(kind, {}))
                made._load_scenario(config, long_context="long_context" in entry["id"])
            globals()[place] = made
        instances[kind] = globals()[place]
        methods |= {one: getattr(instances[kind], one) for one in dir(instances[kind]) if not one.startswith("_")}
    results = []
    for call in calls:
        try:
            results.append(json.dumps(eval(call, {}, methods), default=str))
        except Exception as error:
            results.append(f"Error during execution: {error}")
    return results, instances
"""
_CHECKER = """
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_utils import execute


def multi_turn_checker(made, gold, entry, category, name):
    seen = []
    for turn, (steps, right) in enumerate(zip(made, gold, strict=True)):
        instances = {}
        for step in steps:
            results, instances = execute(step, entry, name)
            seen += results
        wanted, models = execute(right, entry, name + "_ground_truth")
        if right and not any(steps):
            return {"valid": False, "error_type": "empty", "error_message": f"nothing in turn {turn}"}
        if not right:
            continue
        if any(vars(instances[kind]) != vars(models[kind]) for kind in models):
            return {"valid": False, "error_type": "state", "error_message": f"another state in turn {turn}"}
        left = list(seen)
        for one in wanted:
            if one not in left:
                return {"valid": False, "error_type": "response", "error_message": f"{one} was not seen"}
            left.remove(one)
    return {"valid": True}
"""


def _document(name: str, needed: dict[str, str], optional: dict[str, str] | None = None) -> str:
    properties: dict[str, Any] = {key: {"type": kind, "description": key} for key, kind in needed.items()}
    properties |= {key: {"type": kind, "default": 40} for key, kind in (optional or {}).items()}
    description = f"This tool belongs to the lamps. Tool description: Does {name}. And more."
    parameters = {"type": "dict", "properties": properties, "required": list(needed)}
    return json.dumps({"name": name, "description": description, "parameters": parameters, "response": {}})


_DOCUMENTS = {
    "lamps.json": [
        _document("light", {"name": "string"}, {"watts": "float"}),
        _document("put_out", {"name": "string"}),
        *(_document(name, {}) for name in ("list_lamps", "dust", "get_login_status", "history", "thing")),
        _document("log_in", {"word": "string"}),
    ],
    "sums.json": [_document("add", {"first": "integer", "second": "integer"})],
}
SCENARIOS = 6


def _record(kind: str, number: int) -> tuple[dict[str, Any], list[list[str]]]:
    """A scenario of two requests, as each set has it."""
    lamp = f"lamp {number}"
    first, second = f"Light {lamp}.", "Now put it out and add 2 and 3."
    light, rest = [f"light(name='{lamp}')"], [f"put_out('{lamp}')", "add(first=2, second=3)"]
    record: dict[str, Any] = {
        "id": f"multi_turn_{kind}_{number}",
        "question": [[{"role": "user", "content": first}], [{"role": "user", "content": second}]],
        "initial_config": {"LampAPI": {"lit": {lamp: False, "other": False}}},
        "path": ["LampAPI.light"],
        "involved_classes": ["LampAPI", "SumAPI"],
    }
    gold = [light, rest]
    if kind == "miss_func":
        record["question"].append([])
        record["missed_function"] = {"2": ["put_out", "add"]}
        gold = [light, [], rest]
    if kind == "miss_param":
        record["question"] = [[{"role": "user", "content": "Light a lamp."}], *record["question"]]
        gold = [[], light, rest]
    return record, gold


def write_package(folder: Path) -> Path:
    """The folder that `config.suite.path` names, with the package in it."""
    package = folder / "bfcl_eval"
    evaluation = "eval_checker/multi_turn_eval"
    files = {
        "__init__.py": "", "constants/__init__.py": "", "constants/executable_backend_config.py": _BACKEND,
        "constants/default_prompts.py": f"DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC = {NEWS!r}\n",
        "eval_checker/__init__.py": "", f"{evaluation}/__init__.py": "",
        f"{evaluation}/multi_turn_checker.py": _CHECKER, f"{evaluation}/multi_turn_utils.py": _CALLING,
        f"{evaluation}/func_source_code/__init__.py": "", f"{evaluation}/func_source_code/lamps.py": _LAMPS,
        f"{evaluation}/func_source_code/sums.py": _SUMS,
    }  # fmt: skip
    files |= {f"data/multi_turn_func_doc/{name}": "\n".join(lines) + "\n" for name, lines in _DOCUMENTS.items()}
    for kind in ("base", "miss_func", "miss_param", "long_context"):
        made = [_record(kind, number) for number in range(SCENARIOS)]
        files[f"data/BFCL_v4_multi_turn_{kind}.json"] = "".join(json.dumps(record) + "\n" for record, _ in made)
        answers = [json.dumps({"id": record["id"], "ground_truth": gold}) for record, gold in made]
        files[f"data/possible_answer/BFCL_v4_multi_turn_{kind}.json"] = "\n".join(answers)
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return folder
