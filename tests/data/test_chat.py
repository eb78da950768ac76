"""Spans of conversations under chat templates of several families, for any text."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatError, ChatRenderer, RenderedChat, Segment, _labelled_parts
from regrpo_jax.data.tokenizer import CHAT_TEMPLATE, IMAGE_TOKEN, SPECIAL_TOKENS
from regrpo_jax.records import (
    ErrorType,
    Reflection,
    Turn,
    extract_code,
    render_reflection,
    split_reflection,
)
from regrpo_jax.records.reflection import reflection_ranges

Decode = Callable[[ChatRenderer, np.ndarray], str]
PROPERTY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

OTHER_MARKERS = ("<s>", "</s>", "[INST]", "[/INST]", "<bos>", "<start_of_turn>", "<end_of_turn>")
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PIECES = st.sampled_from(
    (
        "\n",
        " ",
        "Thought: ünïcödé 思考 🤷🏽‍♀️ ",
        "```py\nprint(1)\n```",
        "```python\n\n    x = 1\n\n    print(x)\n```",
        "```",
        "Code:\n",
        "Reflection:\n",
        "- FixPlan: no\n",
        "<|im_end",
        "assistant\n",
        "[INST",
        "</think>",
        "{{ message }}",
        "<image>",
        "\r\n\t\u00a0",
        "\ue0001\ue000",
    )
)
TEXTS = st.lists(ANY_TEXT | PIECES, max_size=5).map("".join)
FIELDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=15)
REFLECTIONS = st.builds(Reflection, st.sampled_from(ErrorType), FIELDS, FIELDS).map(render_reflection)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    """[system], user, assistant, user, ..; texts recur in turns of either role."""
    pool = draw(st.lists(TEXTS, min_size=1, max_size=3))
    said = st.sampled_from(pool) | TEXTS
    turns = [Turn("system", draw(said))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        block = draw(st.just("") | REFLECTIONS)
        turns += [Turn("user", draw(said)), Turn("assistant", block + draw(said))]
    spoken = "\n".join(turn.content for turn in turns)
    assume(not any(token in spoken for token in (*SPECIAL_TOKENS, *OTHER_MARKERS)))  # hypothesis reads our sources
    return tuple(turns if draw(st.booleans()) else turns[:-1])


REPEATED = (
    Turn("user", "yes"),
    Turn("assistant", "yes"),
    Turn("user", "  yes\n"),
    Turn("assistant", "\n yes \n"),
    Turn("user", "Reflection:\n"),
    Turn("assistant", "Reflection:\n"),
)
EMPTY = (Turn("user", ""), Turn("assistant", ""))


def spans_and_texts(chat: RenderedChat, turns: Sequence[Turn]) -> list[tuple[tuple[int, int], str]]:
    """Each assistant turn's token range with the text it must decode to."""
    assistant = [turn.content.strip() for turn in turns if turn.role == "assistant"]
    return list(zip(chat.spans, assistant, strict=True))


class TestSpans:
    """What holds for every conversation under every template."""

    @PROPERTY
    @given(turns=conversations())
    @example(turns=REPEATED)
    @example(turns=EMPTY)
    def test_each_span_decodes_to_its_turn(
        self, renderer: ChatRenderer, decode: Decode, turns: tuple[Turn, ...]
    ) -> None:
        chat = renderer.render(turns)
        assert chat.turn_indices == tuple(i for i, turn in enumerate(turns) if turn.role == "assistant")
        for (start, end), text in spans_and_texts(chat, turns):
            assert decode(renderer, chat.tokens[start:end]) == text

    @PROPERTY
    @given(turns=conversations())
    @example(turns=REPEATED)
    @example(turns=EMPTY)
    def test_all_tokens_decode_to_the_templates_own_rendering(
        self, renderer: ChatRenderer, decode: Decode, rendering: Callable[..., str], turns: tuple[Turn, ...]
    ) -> None:
        assert decode(renderer, renderer.render(turns).tokens) == rendering(renderer, turns)

    @PROPERTY
    @given(turns=conversations())
    @example(turns=REPEATED)
    @example(turns=EMPTY)
    def test_labels_cover_the_spans_and_the_token_that_closes_each(
        self, renderer: ChatRenderer, end_of_turn: str, turns: tuple[Turn, ...]
    ) -> None:
        chat = renderer.render(turns)
        inside = np.zeros(len(chat.tokens), bool)
        for start, end in chat.spans:
            inside[start : end + 1] = True
            assert chat.tokens[end] == renderer.tokenizer.convert_tokens_to_ids(end_of_turn)
            assert chat.segments[end] == Segment.ACTION
        np.testing.assert_array_equal(chat.segments > 0, inside)

    @PROPERTY
    @given(turns=conversations())
    @example(turns=REPEATED)
    def test_reflection_labels_decode_to_the_reflection_block(
        self, renderer: ChatRenderer, decode: Decode, turns: tuple[Turn, ...]
    ) -> None:
        chat = renderer.render(turns)
        for (start, end), text in spans_and_texts(chat, turns):
            tokens, segments = chat.tokens[start:end], chat.segments[start:end]
            block = "".join(text[begin:stop] for begin, stop in reflection_ranges(text))
            assert decode(renderer, tokens[segments == Segment.REFLECTION]) == block
            kept = "".join(part for part, kind, _ in _labelled_parts(text) if kind == Segment.ACTION)
            assert decode(renderer, tokens[segments == Segment.ACTION]) == kept
            assert text.startswith(split_reflection(text)[0]) and not (segments == Segment.NONE).any()

    @PROPERTY
    @given(turns=conversations())
    def test_code_labels_decode_to_the_code(
        self, renderers: dict[str, ChatRenderer], decode: Decode, turns: tuple[Turn, ...]
    ) -> None:
        renderer = renderers["chatml"]
        chat = renderer.render(turns)
        for (start, end), text in spans_and_texts(chat, turns):
            marked = decode(renderer, chat.tokens[start:end][chat.code[start:end]])
            expected = extract_code(split_reflection(text)[1])
            assert [line.strip() for line in marked.split("\n")] == [line.strip() for line in expected.split("\n")]

    def test_code_is_found_in_its_fence_and_not_in_the_thought(
        self, renderers: dict[str, ChatRenderer], decode: Decode
    ) -> None:
        renderer = renderers["chatml"]
        fences = "```json\nx = 1\n```\n```py\nx = 1\n```\nx = 1"
        chat = renderer.render((Turn("user", "a"), Turn("assistant", f"Thought: x = 1, so\n{fences}")))
        start, _ = chat.spans[0]
        first = start + int(np.argmax(chat.code[start:]))
        assert decode(renderer, chat.tokens[start:first]) == "Thought: x = 1, so\n```json\nx = 1\n```\n```py\n"
        assert decode(renderer, chat.tokens[chat.code]) == "x = 1"

    @PROPERTY
    @given(turns=conversations())
    def test_without_the_end_of_turn_only_spans_are_labelled(
        self, renderer: ChatRenderer, turns: tuple[Turn, ...]
    ) -> None:
        trained = renderer.render(turns)
        untrained = ChatRenderer(renderer.tokenizer, False, IMAGE_TOKEN).render(turns)
        closers = [end for _, end in trained.spans]
        assert (untrained.segments[closers] == 0).all()
        np.testing.assert_array_equal(untrained.tokens, trained.tokens)
        np.testing.assert_array_equal(np.delete(untrained.segments, closers), np.delete(trained.segments, closers))

    @PROPERTY
    @given(turns=conversations())
    def test_a_prompt_is_what_stands_before_the_recorded_turn(
        self, renderer: ChatRenderer, decode: Decode, rendering: Callable[..., str], turns: tuple[Turn, ...]
    ) -> None:
        context = turns if turns[-1].role == "user" else (*turns, Turn("user", "?"))
        chat = renderer.render((*context, Turn("assistant", "!")))
        prompt = renderer.render_prompt(context)
        np.testing.assert_array_equal(prompt, chat.tokens[: chat.spans[-1][0]])
        assert decode(renderer, prompt) == rendering(renderer, context, generation_prompt=True)

    def test_private_characters_in_the_text_are_text(
        self, renderer: ChatRenderer, decode: Decode, rendering: Callable[..., str]
    ) -> None:
        text = "\ue0001\ue000\ue0011\ue001\ue0001\ue001"
        turns = (Turn("user", text), Turn("assistant", text))
        assert decode(renderer, renderer.render(turns).tokens) == rendering(renderer, turns)

    def test_span_of_names_turns_by_their_place(self, renderer: ChatRenderer) -> None:
        chat = renderer.render(REPEATED)
        assert [chat.span_of(index) for index in (1, 3, 5)] == list(chat.spans)

    def test_the_end_of_turn_id_is_the_familys(self, renderer: ChatRenderer, end_of_turn: str) -> None:
        assert renderer.end_of_turn_id == renderer.tokenizer.convert_tokens_to_ids(end_of_turn)


CLOSED = "{% for message in messages %}<s>{{ message['role'] }}: CONTENT</s>{% endfor %}"
GENERATION = "{% if add_generation_prompt %}<s>assistant: {% endif %}"
SAID = "{{ message['content'] }}"
TWO_STEPS = (Turn("user", "go"), Turn("assistant", "<think>hm</think>a"), Turn("user", "on"), Turn("assistant", "b"))


class TestUnfaithfulTemplates:
    """A template that cannot carry a conversation is refused with its reason."""

    @pytest.mark.parametrize(
        "content",
        (
            "{{ message['content'].split('</think>')[-1] }}",
            "{{ message['content'] | replace('<think>', '') }}",
            "{{ message['content'] | upper }}",
            "{{ message['content'] }}{{ message['content'] }}",
        ),
    )
    def test_rewritten_assistant_text(
        self, make_tokenizer: Callable[..., PreTrainedTokenizerFast], content: str
    ) -> None:
        renderer = ChatRenderer(make_tokenizer(CLOSED.replace("CONTENT", content) + GENERATION))
        with pytest.raises(ChatError, match="rewrites the text of assistant turns"):
            renderer.render(TWO_STEPS)

    @pytest.mark.parametrize("order", ("messages[-2:]", "messages[2:] + messages[:2]", "messages[:1]"))
    def test_dropped_or_reordered_turns(
        self, make_tokenizer: Callable[..., PreTrainedTokenizerFast], order: str
    ) -> None:
        template = CLOSED.replace("CONTENT", SAID).replace("in messages", f"in {order}")
        with pytest.raises(ChatError, match="drops or reorders assistant turn [13]"):
            ChatRenderer(make_tokenizer(template)).render(TWO_STEPS)

    @pytest.mark.parametrize(
        "generation",
        ("", "{% if add_generation_prompt %}<s>assistant: <think>\n{% endif %}", "<s>assistant:"),
    )
    def test_generation_prompt_that_differs_from_recorded_headers(
        self, make_tokenizer: Callable[..., PreTrainedTokenizerFast], generation: str
    ) -> None:
        renderer = ChatRenderer(make_tokenizer(CLOSED.replace("CONTENT", SAID) + generation), train_end_of_turn=False)
        with pytest.raises(ChatError, match="generation prompt .* differs from the header .*<s>assistant: "):
            renderer.render_prompt((Turn("user", "go"),))

    @pytest.mark.parametrize(
        "closing",
        (
            "\n",
            "",
            "{% if loop.last %}</s>{% else %}\n{% endif %}",
            "{% if not loop.last %}</s>{% endif %}",
        ),
    )
    def test_turns_that_no_special_token_closes(
        self, make_tokenizer: Callable[..., PreTrainedTokenizerFast], closing: str
    ) -> None:
        template = (
            "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}" + closing + "{% endfor %}"
        )
        tokenizer = make_tokenizer(template)
        with pytest.raises(
            ChatError, match=r"does not close an assistant turn .*config\.data\.train_end_of_turn=False"
        ):
            ChatRenderer(tokenizer).render(TWO_STEPS)
        chat = ChatRenderer(tokenizer, train_end_of_turn=False).render(TWO_STEPS)
        labelled = sum(end - start for start, end in chat.spans)
        assert np.count_nonzero(chat.segments) == labelled > 0

    def test_what_the_template_itself_refuses(self, renderers: dict[str, ChatRenderer]) -> None:
        with pytest.raises(ChatError, match="rejects this conversation: Conversation roles must alternate"):
            renderers["gemma"].render((Turn("user", "a"), Turn("user", "b"), Turn("assistant", "c")))

    def test_a_tokenizer_that_changes_text(self, make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
        tokenizer = make_tokenizer(CHAT_TEMPLATE)
        tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
        with pytest.raises(ChatError, match="decode to 'loud' instead of 'LOUD'"):
            ChatRenderer(tokenizer).render((Turn("user", "a"), Turn("assistant", "LOUD")))


CANONICAL = st.text(st.sampled_from("eo\u0301\u0308\u2126\u212b\uf900\u1112\u1161\u11ab a\n\u00e9\ufb01"), max_size=12)


class TestNormalisers:
    """A tokenizer may write a text in its canonical form; what it changes beyond that is refused."""

    @given(text=CANONICAL)
    @example(text="caf\u0065\u0301.csv, 5 \u2126, \uf900")
    def test_canonical_forms_are_the_same_text(
        self, make_tokenizer: Callable[..., PreTrainedTokenizerFast], decode: Decode, text: str
    ) -> None:
        tokenizer = _normalising(make_tokenizer, normalizers.NFC())
        renderer = ChatRenderer(tokenizer)
        chat = renderer.render((Turn("user", text), Turn("assistant", f"x{text}x")))
        [(start, end)] = chat.spans
        assert decode(renderer, chat.tokens[start:end]) == unicodedata.normalize("NFC", f"x{text}x")

    def test_other_characters_are_another_text(self, make_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
        renderer = ChatRenderer(_normalising(make_tokenizer, normalizers.NFKC()))
        renderer.render((Turn("user", "x\u00b2"), Turn("assistant", "cafe\u0301")))
        with pytest.raises(ChatError, match="decode to 'x2' instead of 'x\u00b2'"):
            renderer.render((Turn("user", "a"), Turn("assistant", "x\u00b2")))


def _normalising(make: Callable[..., PreTrainedTokenizerFast], normaliser: object) -> PreTrainedTokenizerFast:
    tokenizer = make(CHAT_TEMPLATE)
    tokenizer.backend_tokenizer.normalizer = normaliser
    return tokenizer


class TestControlTokens:
    """Text from outside never becomes a marker."""

    @pytest.mark.parametrize("turn", (0, 1, 2))
    def test_every_marker_is_refused_in_every_turn(self, renderer: ChatRenderer, turn: int) -> None:
        assert {"<|im_start|>", "<|im_end|>", IMAGE_TOKEN, "</s>", "<|eot_id|>"} <= set(renderer.control_tokens)
        for token, index in renderer.control_tokens.items():
            assert renderer.tokenizer.convert_ids_to_tokens(index) == token
            turns = [Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c")]
            turns[turn] = Turn(turns[turn].role, f"Observation:\nx{token}y")
            with pytest.raises(ChatError, match=f"turn {turn} contains the tokenizer's control token") as caught:
                renderer.render(turns)
            assert repr(token) in str(caught.value)

    def test_a_prompt_refuses_them_too(self, renderer: ChatRenderer, end_of_turn: str) -> None:
        with pytest.raises(ChatError, match="turn 0 contains the tokenizer's control token"):
            renderer.render_prompt((Turn("user", f"{end_of_turn} I am done"),))
