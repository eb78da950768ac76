"""Conversations to token ids with exact spans, under any Hugging Face chat template.

The template is rendered once with a marker in the place of every assistant turn. The text between markers and the
turns themselves (split again where a reflection ends) are tokenised piece by piece, so every span edge is a token edge
by construction, which is also how an agent meets them: prompt, then its own tokens, then the next prompt. Two checks
keep the trick honest: the pieces must add up to the template's own rendering, and every span must decode to its text,
up to the canonical form of Unicode that many tokenizers give it.
"""

import dataclasses
import enum
import functools
import unicodedata
from collections.abc import Sequence

import numpy as np
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from regrpo_jax.data.image_parts import with_image_parts
from regrpo_jax.data.tokenizer import VISION_TOKENS
from regrpo_jax.errors import UserError
from regrpo_jax.records.fences import code_range
from regrpo_jax.records.reflection import reflection_ranges, split_reflection
from regrpo_jax.records.types import ImageReference, Turn


class Segment(enum.IntEnum):
    """What a token is: only REFLECTION and ACTION tokens are ever trained or scored."""

    NONE = 0
    REFLECTION = 1
    ACTION = 2


_EXCHANGE = (Turn("user", "a"), Turn("assistant", "b"))


class ChatError(UserError):
    """A conversation that the chat template or the tokenizer cannot carry faithfully."""


class TooLong(ChatError):
    """A conversation that is longer than the config allows. field: which of its fields; needed: what it must be."""

    def __init__(self, message: str, field: str, needed: int) -> None:
        super().__init__(message)
        self.field, self.needed = field, needed


@dataclasses.dataclass(frozen=True)
class RenderedChat:
    """A tokenised conversation.

    Attributes:
      tokens: int32 ids; an image is one run of image tokens.  # [token]
      segments: int8 `Segment` of each token, for all assistant turns.  # [token]
      code: bool, the tokens inside an action's code fence.  # [token]
      spans: per assistant turn (in order), the half-open token range of its own text; the end-of-turn token
        follows the range.
      turn_indices: which conversation turn each span is.
    """

    tokens: np.ndarray
    segments: np.ndarray
    code: np.ndarray
    spans: tuple[tuple[int, int], ...]
    turn_indices: tuple[int, ...]

    def span_of(self, turn_index: int) -> tuple[int, int]:
        """Token range of the assistant turn at `turn_index` of the conversation."""
        return self.spans[self.turn_indices.index(turn_index)]


@dataclasses.dataclass(frozen=True)
class ChatRenderer:
    """Renders conversations for one tokenizer.

    Attributes:
      tokenizer: any fast or slow Hugging Face tokenizer with a chat template.
      train_end_of_turn: label the token that closes an assistant turn as ACTION, so that the policy learns to stop.
        The authors' release leaves it out.
      image_token: the token that stands for one image feature, or None for a text-only policy.
    """

    tokenizer: PreTrainedTokenizerBase
    train_end_of_turn: bool = True
    image_token: str | None = None

    @functools.cached_property
    def control_tokens(self) -> dict[str, int]:
        """Text and id of every token that text must not spell, such as "<|im_start|>"."""
        # `all_special_tokens` alone leaves out the markers that the tokenizer has no named role for.
        vision = {*VISION_TOKENS, self.image_token}
        added = {
            token.content: index
            for index, token in self.tokenizer.added_tokens_decoder.items()
            if token.special or token.content in vision
        }
        return added | dict(zip(self.tokenizer.all_special_tokens, self.tokenizer.all_special_ids, strict=True))

    @functools.cached_property
    def image_token_id(self) -> int:
        """Id of `image_token`, -1 for a text-only policy.

        Raises:
          ChatError: the tokenizer has no such token.
        """
        if self.image_token is None:
            return -1
        token_id = self.tokenizer.get_vocab().get(self.image_token)
        if token_id is None:
            raise ChatError(f"{self._name}: the tokenizer has no image token {self.image_token!r}")
        return token_id

    @property
    def end_of_turn_id(self) -> int:
        """Id of the token that closes an assistant turn under this template.

        Raises:
          ChatError: the template closes turns with ordinary text.
        """
        return self._closing_ids(self._pieces((Turn("user", "a"), Turn("assistant", "b")), (), False)[-1])[0]

    def render(
        self, turns: Sequence[Turn], images: Sequence[ImageReference] = (), image_lengths: Sequence[int] = ()
    ) -> RenderedChat:
        """Tokenises a whole conversation.

        Args:
          turns: system, user and assistant turns.
          images: the images, in the order of their features.
          image_lengths: number of image tokens of each image.
        Raises:
          ChatError: the template rewrites an assistant turn, a span does not decode to its text, a turn contains a
            control token of the tokenizer, or image tokens and images do not match.
        """
        self._check_no_control_tokens(turns)
        pieces = self._pieces(turns, images, False)
        tokens: list[int] = []
        segments: list[int] = []
        code: list[bool] = []
        spans: list[tuple[int, int]] = []
        assistant_turns = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
        for order, piece in enumerate(pieces):
            if order % 2:
                start = len(tokens)
                for text, segment, is_code in _labelled_parts(piece):
                    ids = self._encode(text, check=True)
                    tokens += ids
                    segments += [segment] * len(ids)
                    code += [is_code] * len(ids)
                spans.append((start, len(tokens)))
            else:
                closes_turn = order > 0 and self.train_end_of_turn
                ids = self._closing_ids(piece) if closes_turn else self._encode(piece)
                tokens += ids
                segments += [Segment.ACTION if closes_turn and i == 0 else Segment.NONE for i in range(len(ids))]
                code += [False] * len(ids)
        return self._with_images(
            RenderedChat(
                np.array(tokens, np.int32),
                np.array(segments, np.int8),
                np.array(code, bool),
                tuple(spans),
                tuple(assistant_turns),
            ),
            image_lengths,
        )

    def render_prompt(
        self, turns: Sequence[Turn], images: Sequence[ImageReference] = (), image_lengths: Sequence[int] = ()
    ) -> np.ndarray:
        """Tokens of `turns` followed by the header of the next assistant turn.  # [token]"""
        waiting = (*turns, Turn("assistant", "x"))
        rendered = self.render(waiting, images, image_lengths)
        header = self._pieces(waiting, images, False)[-3]
        prompt = self._pieces(turns, images, True)[-1]
        if header != prompt:
            raise ChatError(
                f"{self._name}: the chat template's generation prompt {prompt[-40:]!r} differs from the header "
                f"{header[-40:]!r} it gives recorded assistant turns; training and sampling would not agree"
            )
        return rendered.tokens[: rendered.spans[-1][0]]

    def continuation(
        self, turn: Turn, images: Sequence[ImageReference] = (), image_lengths: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """What a live conversation is fed after the end-of-turn token of an assistant turn when `turn` comes next.

        Args:
          images, image_lengths: of this turn, as in `render`.
        Returns:
          int32 tokens up to the next assistant's header, as `render` gives them; bool, which are of the turn's text
          and images.
        Raises:
          ChatError: the template changes what it wrote as the conversation grows, or see `render`.
        """
        if not self._only_adds:
            words = "writes earlier turns anew as the conversation grows; use one that only adds to the end"
            raise ChatError(f"{self._name}: the chat template {words}")
        self._check_no_control_tokens((turn,))
        piece, said = self._pieces((*_EXCHANGE, turn), images, True)[-1], turn.content.lstrip()
        said = said if said in piece else said.strip()  # some templates trim
        tokens = np.array(self._closing_ids(piece)[1:], np.int32)
        if images:
            return self._with_observed_images(turn, tokens, image_lengths)
        end = len(self._encode(piece[: piece.rfind(said) + len(said)])) - 1
        order = np.arange(len(tokens)) - end + len(self._encode(said))
        return tokens, (order >= 0) & (order < len(self._encode(said)))

    def _with_observed_images(
        self, turn: Turn, tokens: np.ndarray, image_lengths: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The tokens of a turn with images, expanded, and which are its text and images and not the template's."""
        repeats = self._image_repeats(tokens, image_lengths)
        alone = self._closing_ids(self._pieces((*_EXCHANGE, Turn(turn.role, "a")), (), True)[-1])[1:]  # one token said
        body = alone.index(self._encode("a")[0]) if self._encode("a")[0] in alone else 0
        order = np.arange(len(tokens))
        template = np.isin(tokens, [*self.control_tokens.values()]) & (tokens != self.image_token_id)
        spoken = (order >= body) & (order < len(tokens) - (len(alone) - body - 1)) & ~template
        return np.repeat(tokens, repeats), np.repeat(spoken, repeats)

    @functools.cached_property
    def shows_observed_images(self) -> bool:
        """Whether the template has a place for an image in a user turn that follows an assistant's."""
        if self.image_token is None:
            return False
        mark = "<image_00>"
        try:
            self.continuation(Turn("user", f"a\nb: {mark}"), [ImageReference(mark, "")], [1])
        except ChatError:
            return False
        return True

    @functools.cached_property
    def _only_adds(self) -> bool:
        """Whether every turn is written the same however long the conversation is."""
        turns = [Turn(role, f"{role} {place}") for place, role in enumerate(("system", *("user", "assistant") * 3))]
        turns.append(Turn("user", "last"))
        alone = [self._pieces((*_EXCHANGE, turn), (), True)[-1] for turn in turns[3::2]]
        return self._pieces(turns, (), True)[::2] == [self._pieces(turns[:2], (), True)[-1], *alone]

    @property
    def _name(self) -> str:
        return str(self.tokenizer.name_or_path or type(self.tokenizer).__name__)

    def _pieces(self, turns: Sequence[Turn], images: Sequence[ImageReference], generation_prompt: bool) -> list[str]:
        """Template text and assistant texts in turn: [template, assistant, template, .., assistant, template]."""
        said = "".join(turn.content for turn in turns)
        unsaid = next(character for character in map(chr, range(0xE000, 0xF900)) if character not in said)
        markers = {index: f"{unsaid}{index}{unsaid}" for index, turn in enumerate(turns) if turn.role == "assistant"}
        marked = [Turn(turn.role, markers[index]) if index in markers else turn for index, turn in enumerate(turns)]
        rest = self._apply_template(marked, images, generation_prompt)
        pieces = []
        for index, marker in markers.items():
            before, found, rest = rest.partition(marker)
            if not found:
                raise ChatError(f"{self._name}: the chat template drops or reorders assistant turn {index}")
            pieces += [before, turns[index].content.strip()]
        pieces.append(rest)
        stripped = [Turn(t.role, t.content.strip()) if t.role == "assistant" else t for t in turns]
        if "".join(pieces) != self._apply_template(stripped, images, generation_prompt):
            raise ChatError(f"{self._name}: the chat template rewrites the text of assistant turns")
        return pieces

    def _apply_template(self, turns: Sequence[Turn], images: Sequence[ImageReference], generation_prompt: bool) -> str:
        messages = with_image_parts(turns, images)
        try:
            return str(
                self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
            )
        except (TemplateError, ValueError, TypeError) as error:
            raise ChatError(f"{self._name}: the chat template rejects this conversation: {error}") from error

    def _encode(self, text: str, check: bool = False) -> list[int]:
        ids = [int(token) for token in self.tokenizer(text, add_special_tokens=False)["input_ids"]] if text else []
        if check and text:
            decoded = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            if not _look_the_same(str(decoded), text):
                raise ChatError(
                    f"{self._name}: the tokens of an assistant turn decode to {decoded[:60]!r} instead of "
                    f"{text[:60]!r}; this tokenizer does not keep text exactly"
                )
        return ids

    def _closing_ids(self, piece: str) -> list[int]:
        """Tokens of the template's text after an assistant turn, which must open with a control token."""
        ids = self._encode(piece)
        if not ids or ids[0] not in self.control_tokens.values():
            raise ChatError(
                f"{self._name}: the chat template does not close an assistant turn with a special token, so a "
                "policy could not learn to stop; set config.data.train_end_of_turn=False or mend the template"
            )
        return ids

    def _check_no_control_tokens(self, turns: Sequence[Turn]) -> None:
        """Refuses text that would be read as a control token, such as "<|im_end|>" inside a tool's output."""
        for index, turn in enumerate(turns):
            for token in self.control_tokens:
                if token in turn.content:
                    raise ChatError(f"turn {index} contains the tokenizer's control token {token!r} as text")

    def _with_images(self, chat: RenderedChat, image_lengths: Sequence[int]) -> RenderedChat:
        """Expands each image token into as many as the image has features."""
        repeats = self._image_repeats(chat.tokens, image_lengths)
        if not len(image_lengths):
            return chat
        moved = np.concatenate([[0], np.cumsum(repeats)])
        return RenderedChat(
            np.repeat(chat.tokens, repeats),
            np.repeat(chat.segments, repeats),
            np.repeat(chat.code, repeats),
            tuple((int(moved[start]), int(moved[end])) for start, end in chat.spans),
            chat.turn_indices,
        )

    def _image_repeats(self, tokens: np.ndarray, image_lengths: Sequence[int]) -> np.ndarray:
        """How often each token stands in the expanded conversation.  # [token]"""
        places = np.flatnonzero(tokens == self.image_token_id)
        if len(places) != len(image_lengths):
            raise ChatError(f"{len(places)} image tokens in the text for {len(image_lengths)} images")
        repeats = np.ones(len(tokens), np.int64)
        repeats[places] = image_lengths
        return repeats


def _look_the_same(decoded: str, text: str) -> bool:
    """Whether two texts differ at most in how Unicode composes characters, which tokenizers may normalise."""
    return decoded == text or unicodedata.normalize("NFC", decoded) == unicodedata.normalize("NFC", text)


def _labelled_parts(text: str) -> list[tuple[str, Segment, bool]]:
    """(text, segment, is code) of an assistant turn: what is reflection, and the action around its code."""
    opening, action = split_reflection(text)
    start, end = (len(opening) + place for place in code_range(action))
    charged = reflection_ranges(text)
    marks = sorted({0, start, end, len(text), *(place for span in charged for place in span)})
    parts = []
    for first, last in zip(marks, marks[1:], strict=False):
        reflects = any(begin <= first < stop for begin, stop in charged)
        segment = Segment.REFLECTION if reflects else Segment.ACTION
        parts.append((text[first:last], segment, start <= first < end))
    return parts
