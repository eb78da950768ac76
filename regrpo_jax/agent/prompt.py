"""The first two turns of every episode: what an agent may do, and its task.

Records of the data engine and live episodes take them from here, so that a policy meets at run time what it was
trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from smolagents.tools import Tool

from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.toolbox.toolset import describe, describe_briefly

BRIEF = "Call one tool at each step."
STEP = """Thought: what to do and why

Code:
```py
result = tool(...)
print(result)
```
You then see what the code returned. When a step failed, you may open the next one with a reflection:
Reflection:
- ErrorType: one of GroundingDrift, ToolMismatch, ArgInvalid, InfoInsufficient, NonCommit, CodeError
- Evidence: words of the observation that show what went wrong
- FixPlan: what to do instead
"""
"""The form of a step, and of a reflection."""
_FULL = f"""You solve a task with tools, one step at a time. Each step is a thought and one block of Python:
{STEP}End with final_answer(...). The tools:
"""


RELEASE = "You are a tool-using agent. Each step write a Thought then a Code block calling one tool.\nTools:\n{tools}"
"""As the records of the authors' release begin; the tools are ours to add, because a policy cannot guess them."""
TOOLS = "{tools}"


def system_text(names: Sequence[str], loaded: Mapping[str, Tool], *, brief: bool, template: str = "") -> str:
    """The system turn of a task: the format of a step, and the tools that the task has.

    Args:
      names: the task's tools; () is all that are loaded. `final_answer` is always there.
      loaded: tools by name.
      brief: for policies that read little: the format is shown by demonstrations alone, and tools are told in a few
        words.
      template: what is said in the place of our words, with `TOOLS` where the tools are told; "" for ours.
    """
    tools = {name: loaded[name] for name in dict.fromkeys((*(names or loaded), FINAL_ANSWER))}
    if not brief:
        return (template or _FULL + TOOLS).replace(TOOLS, describe(tools))
    told = describe_briefly({name: tools[name] for name in tools if name != FINAL_ANSWER})
    return (template or f"{BRIEF} Tools:\n{TOOLS}").replace(TOOLS, told)


def placeholders(images: Sequence[str]) -> dict[str, str]:
    """Placeholder in the text -> image, numbered as MAT-Agent's and the release's records do."""
    return {f"<image_{number:02d}>": name for number, name in enumerate(images)}


def instruction_text(instruction: str, images: Sequence[str]) -> str:
    """The first user turn: the images' placeholders, then the task."""
    return "".join(f"{placeholder}\n" for placeholder in placeholders(images)) + f"Task: {instruction}"


def observation_text(step: int, text: str) -> str:
    """The user turn after a step, as MAT-Agent's and the release's records write it; steps count from 0."""
    return f"[OUTPUT OF STEP {step}] -> Observation:\n{text}"


def free_placeholders(count: int, first: int, said: Sequence[str]) -> list[str]:
    """Placeholders for `count` further pictures, numbered from `first` on; none that was said already.

    Args:
      said: the user turns so far, and the text that the pictures come after; a tool may print whatever it likes.
    """
    found: list[str] = []
    number = first
    while len(found) < count:
        placeholder = f"<image_{number:02d}>"
        if not any(placeholder in text for text in said):
            found.append(placeholder)
        number += 1
    return found
