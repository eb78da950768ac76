"""One episode as a machine of states: which words open the next turn, whether its action runs, when all is over.

    loop.opening()            -> the words that the next turn must start with
    loop.write_down(turn)     -> what to do with it: PLAY the action, HOLD_BACK and ask again, or END
    loop.observed(played)     after PLAY: what came of the action, judged, and the gate's decision
    loop.user_turn()          what the policy is told before its next turn, with pictures that the action made

It never calls a policy or an environment, so that thousands of episodes go on over batches of either.
Source: ReGRPO (arXiv 2606.31392): the local trajectory, the inference gate.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from regrpo_jax.agent.gate import GateDecision, adaptive_threshold, confidence, reflection_gate
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.parse import NO_ERROR, ParsedTurn, parse_turn
from regrpo_jax.agent.policy import ACTION_OPENING, NO_OPENING, REFLECTION_OPENING, Heard, SampledTurn, Told
from regrpo_jax.agent.prompt import observation_text
from regrpo_jax.agent.rollout import FAILURES, Label, Opener, Rollout, RolloutTurn
from regrpo_jax.agent.shown_pictures import ShownPicture, told_apart, with_pictures
from regrpo_jax.agent.token_book import TokenBook, code_logprobs, labels_of
from regrpo_jax.records.reflection import telling_span
from regrpo_jax.records.types import ImageReference, Status
from regrpo_jax.sandbox.results import ToolRun

NOTHING_TOLD = Told("")
HELD_BACK = "Not executed yet: the action is uncertain. Reflect, then act."


@dataclass(frozen=True)
class Played:
    """What came of an action. outcome: how the episode ended, "" while it goes on. tool_calls: without final_answer.
    calls: the first ones in words, with it. answer: in words.
    asked_again: it brought a further message of the user, which the text ends with.
    pictures: those that the policy is shown; note: what it is told of those that it is not. made: name and SHA-256 of
    every picture that the action made.
    """

    status: Status
    text: str
    outcome: str = ""
    success: bool = False
    tool_calls: int = 0
    error: str = ""
    pictures: tuple[ShownPicture, ...] = ()
    note: str = ""
    made: tuple[tuple[str, str], ...] = ()
    calls: tuple[ToolRun, ...] = ()
    answer: str = ""
    asked_again: bool = False

    @property
    def told(self) -> str:
        """The text and the note."""
        return f"{self.text}\n{self.note}" if self.note else self.text

    @property
    def seen(self) -> str:
        """What tells observations apart, whatever is shown of them; see `told_apart`."""
        return told_apart(self.text, self.made)

    @property
    def words(self) -> str:
        """What evidence may quote: the text, and what the pixels of the pictures say."""
        return "\n".join((self.told, *(f"{picture.name}: {picture.words}" for picture in self.pictures)))


class Move(enum.Enum):
    """What becomes of a turn that was written."""

    PLAY = enum.auto()
    HOLD_BACK = enum.auto()
    END = enum.auto()


class EpisodeLoop:
    """expected: what a perfect agent observes (`Played.seen`) at each step but the last, None when nobody knows.
    asked: the user turn with the task, its pictures included.
    """

    def __init__(
        self, settings: LoopSettings, expected: Sequence[str] | None = None, asked: Told = NOTHING_TOLD
    ) -> None:
        self.settings = settings
        self.outcome, self.error = "", ""
        self.success = self.truncated = False
        self._scored = True
        self._expected = expected
        self._book = TokenBook()
        self._turns: list[RolloutTurn] = []
        self._step, self._first_step = -1, 0
        self._failures = self._blocks = self._actions = self._sampled = 0
        self._actions_before = 0  # the last message of the user
        self._confidences: list[float] = []
        self._last: Played | None = None
        self._said, self._images = [asked.text], len(asked.images)  # user turns, and pictures in them
        self._told = asked
        self._image_files: list[ImageReference] = []
        self._last_right: bool | None = None
        self._gate = GateDecision(False, "none", 0.0, 0.0)
        self._waits = False  # the last action was withdrawn
        self._opening = NO_OPENING

    @property
    def done(self) -> bool:
        return bool(self.outcome)

    def replayed(self, text: str, played: Played) -> Told:
        """An earlier turn, which the policy finds in its prompt; it is context and never trained.

        Returns:
          the user turn that follows it there.
        """
        if self._turns:
            raise ValueError("earlier turns come before the policy's own")
        self._enter_step(parse_turn(text))
        self._judge(played)
        self._decide(0.0, confident=True)
        return self._told

    def expect(self, texts: Sequence[str] | None) -> None:
        """What a perfect agent observes, for an episode in which nothing has been judged yet."""
        if self._last is not None:
            raise ValueError("what was observed has been judged already")
        self._expected = texts

    def opening(self) -> str:
        """The words that the next turn must start with; "" leaves the choice to the policy."""
        self._opening = self._next_opening()
        return self._opening

    def _next_opening(self) -> str:
        if self._last is None and not self._waits:
            return ACTION_OPENING
        if self._gate.open:
            return REFLECTION_OPENING
        bare = self.settings.gate == "never" or self._same_step_goes_on() or self._blocks > 0
        return ACTION_OPENING if bare else NO_OPENING

    @property
    def budget(self) -> int:
        """Tokens that the policy may sample in its next turn."""
        return min(self.settings.turn_tokens, self.settings.episode_tokens - self._sampled)

    def write_down(self, turn: SampledTurn) -> Move:
        """Take the turn to the books and say what becomes of it."""
        if turn.no_room:
            return self._out_of_tokens(turn.error)
        parsed = parse_turn(turn.text)
        reflected_on, right, waited = self._last, self._last_right, self._waits
        self._enter_step(parsed)
        if not self._turns:
            self._first_step = self._step
        self._sampled += len(turn.tokens)
        self._scored &= turn.scored
        labels = labels_of(parsed, turn.starts)
        start, sampled_from, end = self._book.add_turn(turn, labels, self._relative_step)
        certainty = confidence(code_logprobs(parsed, turn).tolist())
        # An engine that cannot be given an opening leaves every block to the policy's own will.
        opener = Opener.GATE if self._opening == REFLECTION_OPENING and len(turn.opening) else Opener.POLICY
        nothing_wrong = reflected_on is not None and reflected_on.status == Status.OK and right is not False
        seen = "" if reflected_on is None else reflected_on.words
        self._turns.append(
            RolloutTurn(
                start=start,
                sampled_from=sampled_from,
                end=end,
                text=turn.text,
                step=self._relative_step,
                reflection=opener if parsed.reflects else Opener.NOBODY,
                reflection_tokens=int(np.count_nonzero(labels == Label.REFLECTION)),
                error_type=parsed.error_type,
                malformed=parsed.malformed,
                needless=parsed.reflects and nothing_wrong and not waited,
                grounded=bool(parsed.evidence and telling_span(parsed.evidence, seen)),
                confidence=certainty,
                problems=parsed.problems if turn.finished else (*parsed.problems, "unfinished"),
            )
        )
        if turn.error:
            return self._end("infra_error", turn.error)
        if not turn.finished:
            self.truncated = True
            return self._end("out_of_tokens")
        if parsed.code and self._is_held_back(certainty):
            self._waits = True
            self._amend(held_back=True, gate=self._gate)
            return Move.HOLD_BACK if self.budget > 0 else self._out_of_tokens()
        return Move.PLAY

    def observed(self, played: Played) -> None:
        """What came of the action of the last turn."""
        self._judge(played)
        turn = self._turns[-1]
        self._decide(turn.confidence, confident=self.settings.timing == "pre")
        if played.status != Status.INFRA_ERROR:
            self._confidences.append(turn.confidence)
        self._amend(
            status=played.status,
            observation=played.told,
            images=self._told.images,
            pictured=bool(played.made),
            right=self._last_right,
            tool_calls=played.tool_calls,
            calls=played.calls,
            gate=self._gate,
        )
        if played.outcome or played.status == Status.INFRA_ERROR:
            self.success = played.success
            self._end(played.outcome or "infra_error", played.error)
        elif self._failures > self.settings.retries:
            self._end("failed_step")
        elif self._actions - self._actions_before >= self.settings.max_steps:
            self._end("out_of_steps")
        elif self.budget < 1:
            self._out_of_tokens()

    def user_turn(self) -> Told:
        """The user turn that follows the last turn of the policy."""
        if self._waits:
            return Told(observation_text(self._actions, HELD_BACK))
        if self._last is None:
            raise ValueError("nothing has happened that the policy could be told")
        return self._told

    def heard(self, heard: Heard | None) -> None:
        """The tokens of the user turn; None ends the episode: no room is left, or it cannot be said."""
        if heard is None:
            self._out_of_tokens()
        else:
            self._image_files += self.user_turn().images
            self._book.add_heard(heard, self._relative_step)

    def rollout(self, *, task_id: str, group: int, branch: int, policy_version: int, seed: int) -> Rollout:
        """The books, closed."""
        return Rollout(
            task_id=task_id,
            group=group,
            branch=branch,
            **self._book.arrays(),
            turns=tuple(self._turns),
            step_success=self._step_success(),
            success=self.success,
            outcome=self.outcome,
            dropped=self.outcome == "infra_error",
            truncated=self.truncated,
            policy_version=policy_version,
            seed=seed,
            error=self.error,
            scored=self._scored,
            image_files=tuple(self._image_files),
            answer=self._last.answer if self._last is not None else "",
        )

    @property
    def _relative_step(self) -> int:
        return self._step - self._first_step

    def _same_step_goes_on(self) -> bool:
        return self._waits or (self._last is not None and self._last.status in FAILURES)

    def _saw_another_picture(self) -> bool:
        last = self._last
        return last is not None and bool(last.made) and last.status == Status.OK and self._last_right is False

    def _enter_step(self, parsed: ParsedTurn) -> None:
        """Which step a turn belongs to.

        A step goes on after a failure, after a wrong result that the policy itself corrects in a reflection, and after
        a picture that is not the right one, which no status tells.
        """
        goes_on = self._same_step_goes_on()  # what the policy can know
        corrects = parsed.reflects and parsed.error_type != NO_ERROR and self._last_right is False and self._blocks == 0
        if not (goes_on or corrects or self._saw_another_picture()):
            self._step += 1
        # What the gate, the openings and the retries count by must not depend on what only an oracle knows.
        self._failures, blocks = (self._failures, self._blocks) if goes_on else (0, 0)
        self._blocks = blocks + parsed.reflects
        self._waits = False

    def _judge(self, played: Played) -> None:
        self._actions += 1
        self._actions_before = self._actions if played.asked_again else self._actions_before
        self._failures += played.status in FAILURES
        self._last, self._last_right = played, self._is_right(played)
        text, images = with_pictures(played.told, played.pictures, self._images, self._said)
        self._told = Told(observation_text(self._actions - 1, text), images)
        self._said.append(self._told.text)
        self._images += len(images)

    def _is_right(self, played: Played) -> bool | None:
        if played.outcome == "answered":
            return played.success
        if played.status != Status.OK:
            return False
        if self._expected is None:
            return None
        return self._step < len(self._expected) and played.seen == self._expected[self._step]

    def _decide(self, certainty: float, *, confident: bool) -> None:
        """confident: leave the clause of low confidence out."""
        assert self._last is not None
        number = 1 if confident or self.settings.gate == "failure" else len(self._confidences) + 1
        decision = reflection_gate(self._last.status, number, certainty, self._confidences, self._blocks)
        self._gate = GateDecision(False, "never", *_numbers(decision)) if self.settings.gate == "never" else decision

    def _is_held_back(self, certainty: float) -> bool:
        if self.settings.timing != "pre" or self._blocks or not self._confidences:
            return False
        threshold = adaptive_threshold(self._confidences)
        if certainty < threshold:
            self._gate = GateDecision(True, "low_confidence", certainty, threshold)
        return certainty < threshold

    def _step_success(self) -> tuple[bool, ...]:
        last = {turn.step: turn for turn in self._turns}
        return tuple(turn.went_right for _, turn in sorted(last.items()))

    def _amend(self, **changes: object) -> None:
        self._turns[-1] = replace(self._turns[-1], **changes)  # type: ignore[arg-type]

    def _end(self, outcome: str, error: str = "") -> Move:
        self.outcome, self.error = outcome, error
        return Move.END

    def _out_of_tokens(self, error: str = "") -> Move:
        self.truncated = True
        return self._end("out_of_tokens", error)


def _numbers(decision: GateDecision) -> tuple[float, float]:
    return decision.confidence, decision.threshold
