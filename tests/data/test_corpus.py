"""Records that do not fit: named with what is too long and what to raise, then skipped or fatal, never cut."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_collections
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data import corpus
from regrpo_jax.data.corpus import clean_examples, groups_to_visit, replayable, rot_examples, rot_groups
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Group
from regrpo_jax.errors import UserError
from regrpo_jax.records import ImageReference, RotRecord, Trajectory, Turn

Picture = Callable[[int, int], str]
AddImages = Callable[..., RotRecord]


def config(**fields: Any) -> ml_collections.ConfigDict:
    """The base config with overrides, "sft__row_length" for sft.row_length; a bad record is fatal."""
    changed = base_config()
    large = {"data.prefix_buckets": (4096,), "data.branch_buckets": (4096,)}
    large |= {"sft.row_length": 4096, "data.on_bad_record": "fatal"}
    changed.update_from_flattened_dict(large | {name.replace("__", "."): value for name, value in fields.items()})
    return changed


class TestLengths:
    """One token too many is one too many."""

    def test_supervised_examples(
        self, chatml_reader: ConversationReader, rot_record: RotRecord, clean_record: Trajectory
    ) -> None:
        for build, record in ((rot_examples, rot_record), (clean_examples, clean_record)):
            (whole,) = build([record], chatml_reader, config())
            size = len(whole.tokens)
            assert len(build([record], chatml_reader, config(sft__row_length=size))) == 1
            message = rf"record {record.id}: {size} tokens exceed config\.sft\.row_length={size - 1}; raise"
            with pytest.raises(UserError, match=message):
                build([record], chatml_reader, config(sft__row_length=size - 1))

    def test_one_sentence_says_what_the_longest_needs(
        self, chatml_reader: ConversationReader, clean_record: Trajectory, caplog: pytest.LogCaptureFixture
    ) -> None:
        turns = clean_record.conversation
        longer = dataclasses.replace(clean_record, conversation=(*turns, *turns[1:]))
        fits, needed = (len(clean_examples([one], chatml_reader, config())[0].tokens) for one in (clean_record, longer))
        short = config(sft__row_length=fits, data__on_bad_record="skip", data__clean="clean.json")
        assert len(clean_examples([longer, clean_record, longer], chatml_reader, short)) == 1
        told = f"too long and left out: for the longest config.sft.row_length needs {needed}"
        assert caplog.messages[-1] == f"clean.json: 2 of 3 records are {told}"
        with pytest.raises(UserError, match=f"clean.json: no record fits; 1 of 1 records are {told}"):
            clean_examples([longer], chatml_reader, short)

    def test_patches(
        self, chatml_reader: ConversationReader, rot_record: RotRecord, with_images: AddImages, picture: Picture
    ) -> None:
        record = with_images(rot_record, [ImageReference("", picture(3, 2))])
        assert len(rot_examples([record], chatml_reader, config(sft__row_patches=24))) == 1
        message = r"record ledger_rot: 24 image patches exceed config\.sft\.row_patches=23; raise it or lower"
        with pytest.raises(UserError, match=message):
            rot_examples([record], chatml_reader, config(sft__row_patches=23))

    def test_groups(self, chatml_reader: ConversationReader, rot_record: RotRecord) -> None:
        (group,) = rot_groups([rot_record], chatml_reader, config().data, "rot.json")
        size = len(group.prefix) - 1
        fits = config(data__prefix_buckets=(8, size)).data
        assert len(rot_groups([rot_record], chatml_reader, fits, "rot.json")) == 1
        short = config(data__prefix_buckets=(8, size - 1)).data
        with pytest.raises(UserError, match=rf"rot\.json: record ledger_rot: its prefix of {size} tokens"):
            rot_groups([rot_record], chatml_reader, short, "rot.json")

    def test_replayed_prompts(self, chatml_reader: ConversationReader, rot_record: RotRecord) -> None:
        prompt, _, _ = chatml_reader.read_prompt(rot_record.conversation[:-1], ())
        size = len(prompt) - 1
        fits, short = (config(data__prefix_buckets=(length,)).data for length in (size, size - 1))
        assert replayable([rot_record], chatml_reader, fits, "rot.json") == [rot_record]
        with pytest.raises(UserError, match=rf"prompt of its last turn has {size} tokens but .* is {size - 1}; add"):
            replayable([rot_record], chatml_reader, short, "rot.json")

    def test_an_example_that_teaches_nothing(self, chatml_reader: ConversationReader, clean_record: Trajectory) -> None:
        silent = dataclasses.replace(clean_record, conversation=clean_record.conversation[:2])
        with pytest.raises(UserError, match="none of its tokens would be trained on"):
            clean_examples([silent], chatml_reader, config())


class TestVisits:
    """The order of a stage's first pass: decided by the seed, whatever the stage's length and whatever is left out."""

    BAD = ("record 2", "record 5")
    DULL = ("record 7",)

    @pytest.fixture
    def visit(
        self, chatml_reader: ConversationReader, rot_record: RotRecord, with_images: AddImages
    ) -> Callable[..., list[str]]:
        """(most, seed) -> ids of the groups that are built; some records are bad, and one teaches nothing."""
        records = [dataclasses.replace(rot_record, id=f"record {number}") for number in range(10)]
        gone = [ImageReference("", "gone.png")]
        records = [with_images(record, gone) if record.id in self.BAD else record for record in records]

        def teaches(group: Group) -> bool:
            return group.record_id not in self.DULL

        def ids(most: int | None, seed: int = 0) -> list[str]:
            chosen = config(seed=seed, data__on_bad_record="skip")
            found = groups_to_visit(records, chatml_reader, chosen, most=most, keep=teaches)
            return [group.record_id for group in found]

        return ids

    def test_a_longer_stage_begins_with_the_groups_of_a_shorter_one(self, visit: Callable[..., list[str]]) -> None:
        whole = visit(None)
        assert sorted(whole) == [f"record {number}" for number in (0, 1, 3, 4, 6, 8, 9)] != whole
        for most in range(9):
            assert visit(most) == whole[:most]
        assert visit(None, seed=1) != whole

    def test_nothing_is_built_in_vain(self, visit: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []
        build = corpus.build_group

        def watched(record: RotRecord, *args: Any, **options: Any) -> Group:
            tried.append(record.id)
            return build(record, *args, **options)

        monkeypatch.setattr(corpus, "build_group", watched)
        found = visit(3)
        assert tried[-1] == found[-1] and len(tried) <= 3 + len(self.BAD) + len(self.DULL)

    def test_no_usable_record(self, chatml_reader: ConversationReader, rot_record: RotRecord) -> None:
        short = config(data__on_bad_record="skip", data__prefix_buckets=(2,), data__rot="rot.json")
        with pytest.raises(UserError, match=r"rot\.json: no record fits"):
            groups_to_visit([rot_record], chatml_reader, short, most=4)


class TestBadRecords:
    """Image files that cannot be read, and image tokens without an image."""

    def test_skipped_by_name(
        self,
        chatml_reader: ConversationReader,
        rot_record: RotRecord,
        with_images: AddImages,
        picture: Picture,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        (tmp_path / "text.png").write_text("no image")
        names = {"good": picture(1, 1), "text": str(tmp_path / "text.png"), "gone": str(tmp_path / "gone.png")}
        records = [
            dataclasses.replace(with_images(rot_record, [ImageReference("", path)]), id=name)
            for name, path in names.items()
        ]
        for build, options in ((rot_examples, ()), (rot_groups, ("",))):
            caplog.clear()
            skipping = config(data__on_bad_record="skip")
            with caplog.at_level(logging.WARNING):
                built = build(records, chatml_reader, skipping.data if options else skipping, *options)
            assert [item.record_id for item in built] == ["good"]
            assert len(caplog.messages) == 2
            assert "record text:" in caplog.messages[0] and "text.png: not a readable image" in caplog.messages[0]
            assert "record gone:" in caplog.messages[1] and "gone.png: no such image file" in caplog.messages[1]

    def test_fatal_by_name(
        self, chatml_reader: ConversationReader, rot_record: RotRecord, with_images: AddImages
    ) -> None:
        record = with_images(rot_record, [ImageReference("", "gone.png")])
        with pytest.raises(UserError, match=r"rot\.json: record ledger_rot: gone\.png: no such image file"):
            rot_groups([record], chatml_reader, config().data, "rot.json")

    @pytest.mark.parametrize("turn", (1, 4))
    def test_a_stray_image_token(self, chatml_reader: ConversationReader, rot_record: RotRecord, turn: int) -> None:
        turns = list(rot_record.conversation)
        turns[turn] = Turn(turns[turn].role, turns[turn].content + " <|image_pad|>")
        record = dataclasses.replace(rot_record, conversation=tuple(turns))
        message = rf"record ledger_rot: turn {turn} contains the tokenizer's control token '<\|image_pad\|>' as text"
        with pytest.raises(UserError, match=message):
            rot_examples([record], chatml_reader, config())
