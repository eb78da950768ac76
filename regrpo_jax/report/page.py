"""One HTML file per run that needs nothing else: what was trained, how it went, what the policy does now.

It reads what the run left in its folder, whatever of it is there, and writes `report.html` beside it; a run that still
goes on can be looked at. The page needs no network and holds no script, and its own policy (CSP) forbids any; what
tasks and policies wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from regrpo_jax.config.former_fields import recorded_fields
from regrpo_jax.data.rollout_credit import credit_settings
from regrpo_jax.environments.viewer import page_template
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.trend_alarms import trend_alarms
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.report import files
from regrpo_jax.report.advantages import ShownUpdate, shown_update
from regrpo_jax.report.curves import Panel, stage_panels
from regrpo_jax.report.episodes import ShownEpisode, reading_policy, reflection_lengths, shown_episodes
from regrpo_jax.report.facts import flat_fields, run_facts
from regrpo_jax.report.files import LeftOut, Lines, Played, is_number
from regrpo_jax.report.images import ImageShelf
from regrpo_jax.report.plots import bar_plot, histogram, line_plot
from regrpo_jax.report.tables import (
    PART_LABELS,
    LengthRow,
    Policies,
    dropped_alarms,
    headline,
    length_row,
    part_bars,
    part_names,
    part_table,
    policy_table,
    replay_table,
    training_headline,
)

_FOLDER = Path(__file__).parent
REPORT_FILE = "report.html"
_JUDGING = ("objective", "online")  # sections of a config that say what rollouts are worth


class Part(NamedTuple):
    """Something for the page, or why it is not there."""

    data: Any
    why: str = ""


def write_report(workdir: Path) -> Path:
    """Writes `report.html` into the folder of a run; returns its path.

    Raises:
      UserError: there is no run in the folder, or the page cannot be written.
    """
    files.check_run(workdir)
    path = workdir / REPORT_FILE
    page = render_report(workdir).encode("utf-8", "replace").decode()  # a policy may write half a surrogate
    try:
        replace_text(path, page)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def run_alarms(workdir: Path) -> list[str]:
    """What should worry a person about the online stage of a run; [] where it had none."""
    found = _part(_alarms, _part(files.read_metrics, workdir)).data
    return found[0] if found else []


def render_report(workdir: Path) -> str:
    """The page; what cannot be shown is left out, with a word why."""
    shelf = ImageShelf([workdir / "rollouts" / "images", workdir / "recovery" / "images"])
    lines, record = _part(files.read_metrics, workdir), _part(files.read_record, workdir)
    policies = _part(files.read_recovery, workdir)
    played = _part(_all_played, workdir, policies)
    return page_template(_FOLDER / "page.html.jinja").render(
        name=workdir.resolve().name,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        facts=_part(run_facts, record),
        alarms=_part(_alarms, lines),
        headline=_part(headline, policies) if policies.data else _part(_training_headline, lines),
        held_out=policies.data is not None,
        titles=list(policies.data or ()),
        table=_part(policy_table, policies),
        dropped=_part(dropped_alarms, policies),
        part_labels=list(PART_LABELS.values()),
        families=_part(_family_plots, policies),
        error_types=_part(part_table, policies, "error_types"),
        replay=_part(replay_table, _part(files.read_replay, workdir)),
        stages=_part(_stages, lines),
        lengths=_part(_lengths, played),
        reader=reading_policy([one.title for one in played.data]) if played.data else "",
        episodes=_part(_episodes, played, shelf),
        updates=_part(_updates, workdir, record, shelf),
        fields=_part(flat_fields, record),
        versions=(record.data or {}).get("versions") or {},
    )


def _part(build: Callable[..., Any], *arguments: Any) -> Part:
    """What `build` makes of the arguments; a part among them that is missing is the reason why this one is, too."""
    missing = next((one.why for one in arguments if isinstance(one, Part) and one.data is None), "")
    if missing:
        return Part(None, missing)
    try:
        return Part(build(*(one.data if isinstance(one, Part) else one for one in arguments)))
    except LeftOut as why:
        return Part(None, str(why))


def _history(lines: Lines) -> list[dict[str, float | None]]:
    """What was measured of the rollouts of each update, under the names of `rollout_metrics`. LeftOut."""
    prefix = "rollouts/"
    found = [
        {name.removeprefix(prefix): line[name] for name in line if name.startswith(prefix) and is_number(line[name])}
        for line in lines.get("online", ())
    ]
    if not any(found):
        raise LeftOut("there was no online stage to watch")
    return found


def _alarms(lines: Lines) -> tuple[list[str], int]:
    """The alarms, and of how many updates."""
    history = _history(lines)
    return trend_alarms(history), len(history)


def _training_headline(lines: Lines) -> Any:
    return training_headline(_history(lines))


def _stages(lines: Lines) -> list[tuple[str, list[tuple[Panel, str]]]]:
    """(title of a stage, its panels with their plots)."""
    return [(title, [(panel, line_plot(title, panel)) for panel in panels]) for title, panels in stage_panels(lines)]


def _family_plots(policies: Policies) -> tuple[list[tuple[str, str]], Any]:
    """Plots of success and recovery, and the table of the same numbers."""
    table, names = part_table(policies, "families"), part_names(policies, "families")
    plots = [
        (label, bar_plot(label, names, part_bars(policies, "families", name)))
        for name, label in (("success", "Task solved"), ("recovery", "Recovered after a failure"))
    ]
    return plots, table


def _all_played(workdir: Path, policies: Policies) -> list[Played]:
    """The episodes of every policy that kept them. LeftOut where none did."""
    parts = [_part(files.read_played, workdir, title) for title in policies]
    if not any(part.data for part in parts):
        raise LeftOut(parts[0].why)
    return [part.data for part in parts if part.data]


def _lengths(played: Sequence[Played]) -> tuple[str, list[LengthRow]]:
    """The histogram, and a table of what it shows. LeftOut."""
    rows = [(one.title, reflection_lengths(one)) for one in played]
    rows = [(title, lengths) for title, lengths in rows if lengths]
    if not rows:
        raise LeftOut("no policy reflected on an unseen task")
    table = [length_row(title, lengths) for title, lengths in rows]
    return histogram("Length of reflections", "tokens of a reflection", rows), table


def _episodes(played: Sequence[Played], shelf: ImageShelf) -> list[ShownEpisode]:
    chosen = reading_policy([one.title for one in played])
    return shown_episodes(next(one for one in played if one.title == chosen), played, shelf)


def _updates(workdir: Path, record: Mapping[str, Any], shelf: ImageShelf) -> list[ShownUpdate]:
    """The first and the last update. LeftOut."""
    updates, tokenizer = files.read_updates(workdir), files.read_tokenizer(workdir)
    try:
        fields = [(*field.split("."), value) for field, value in recorded_fields(record["config"]).items()]
        told = {name: value for section, name, value in (f for f in fields if len(f) == 3) if section in _JUDGING}
        judged = {"credit": "shared"} | told  # as all runs did before there was a choice
        settings = credit_settings(ConfigDict(judged))
    except (KeyError, AttributeError, TypeError) as error:
        raise LeftOut(f"config.json does not say how rollouts were judged ({error})") from error
    return [shown_update(update, settings, tokenizer, shelf) for update in updates]
