"""From `config.data` to examples and groups in memory; a record that does not fit is named, then skipped or fatal."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import ml_collections
import numpy as np

from regrpo_jax.data.chat import ChatError, TooLong
from regrpo_jax.data.examples import ConversationReader, Example, clean_example, rot_example
from regrpo_jax.data.groups import Group, build_group
from regrpo_jax.data.loader import row_overflow
from regrpo_jax.errors import UserError
from regrpo_jax.records import RotRecord, Trajectory, load_clean, load_rot
from regrpo_jax.records.failed_turns import failed_turns
from regrpo_jax.records.opened_images import ImageError
from regrpo_jax.records.path_roots import path_roots

_log = logging.getLogger(__name__)
Record = TypeVar("Record", RotRecord, Trajectory)
Built = TypeVar("Built")


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The records of a run.

    Attributes:
      clean: successful trajectories to train on.
      rot: Reflection-of-Thought records to train on.
      eval_rot: records that evaluation replays.
      held_out: whether `eval_rot` is disjoint from `rot` by its source.
    """

    clean: list[Trajectory]
    rot: list[RotRecord]
    eval_rot: list[RotRecord]
    held_out: bool

    def texts(self) -> Iterable[str]:
        """All training text, for a tokenizer: turns under their roles, as the chat template puts them."""
        conversations = [record.conversation for record in self.clean] + [record.conversation for record in self.rot]
        for turns in conversations:
            yield from (f"{turn.role}\n{turn.content}" for turn in turns)


def load_corpus(config: ml_collections.ConfigDict, *, needs_clean: bool, needs_rot: bool = True) -> Corpus:
    """Reads the files of `config.data`.

    Args:
      needs_clean: clean trajectories will be trained on.
      needs_rot: RoT records will be trained on, or replayed.
    Raises:
      UserError: a file cannot be read, has no usable record, or one that the stages need is not named.
    """
    data = config.data
    if not (needs_rot or needs_clean):
        if config.model.path:
            return Corpus([], [], [], False)
        needs_clean, needs_rot = bool(data.clean), bool(data.rot) and not data.clean
    if not (needs_rot or needs_clean):
        raise UserError(
            "config.model.path is empty: a fresh policy learns its tokenizer from text; name a model, or records in "
            "config.data.clean, or begin config.stages with 'data'"
        )
    if needs_rot and not data.rot:
        raise UserError(
            "config.data.rot is empty; set it to a JSON or JSONL file of RoT records, or begin config.stages with "
            "'data'"
        )
    if needs_clean and not data.clean:
        raise UserError(
            f"config.data.clean is empty but config.sft.clean_ratio={config.sft.clean_ratio} asks for clean "
            "trajectories; set the file or --config.sft.clean_ratio=0"
        )
    roots = path_roots(data.path_roots)
    how: dict[str, Any] = {"on_bad_record": data.on_bad_record, "salvage": data.salvage, "roots": roots}
    rot = load_rot(data.rot, **how) if needs_rot else []
    clean = load_clean(data.clean, **how) if needs_clean else []
    eval_rot = load_rot(data.eval_rot, **how) if data.eval_rot else rot
    return Corpus(clean, rot, eval_rot, bool(data.eval_rot))


def clean_examples(
    records: Sequence[Trajectory], reader: ConversationReader, config: ml_collections.ConfigDict
) -> list[Example]:
    """Supervised examples of clean trajectories, with their failed turns as `config.data.failed_turns` says.

    Raises:
      UserError: as `build_all`; or every trajectory is left out.
    """
    treatment = config.data.failed_turns
    kept = [record for record in records if treatment != "drop" or not failed_turns(record)]
    if not kept:
        raise UserError(f"{config.data.clean}: config.data.failed_turns='drop' leaves no trajectory; choose 'mask'")

    def build(record: Trajectory) -> Example:
        context = failed_turns(record) if treatment == "mask" else ()
        return fitting_example(clean_example(record, reader, context), config)

    return build_all(kept, build, config.data, config.data.clean)


def told_failures(records: Sequence[Trajectory], treatment: str) -> str:
    """What a run says of the failed turns of its clean trajectories; "" where there are none."""
    found = [len(turns) for record in records if (turns := failed_turns(record))]
    done = {"mask": "shown and not trained", "train": "trained", "drop": "left out with their trajectories"}
    told = f"{sum(found)} turns in {len(found)} of {len(records)} clean trajectories failed or have no code"
    return f"{told}: {done[treatment]} (config.data.failed_turns)" if found else ""


def rot_examples(
    records: Sequence[RotRecord], reader: ConversationReader, config: ml_collections.ConfigDict
) -> list[Example]:
    """Supervised examples of RoT records."""

    def build(record: RotRecord) -> Example:
        return fitting_example(rot_example(record, reader), config)

    return build_all(records, build, config.data, config.data.rot)


def rot_groups(
    records: Sequence[RotRecord], reader: ConversationReader, data: ml_collections.ConfigDict, source: str
) -> list[Group]:
    """Contrastive groups of RoT records."""
    return build_all(records, lambda record: _group(record, reader, data), data, source)


def groups_to_visit(
    records: Sequence[RotRecord],
    reader: ConversationReader,
    config: ml_collections.ConfigDict,
    *,
    most: int | None,
    keep: Callable[[Group], bool] = lambda group: True,
) -> list[Group]:
    """Contrastive groups in the order in which a stage visits them, as far as it gets in its first pass.

    The order is decided by the seed alone, so that a stage that is given more updates goes on with the groups that it
    would have come to anyway, and none is built in vain.

    Args:
      most: groups that the stage visits; None builds all of them.
      keep: which groups the stage can learn from; it never comes to the others.
    Raises:
      UserError: as `build_all`.
    """
    order = np.random.default_rng(config.seed).permutation(len(records))

    def build(record: RotRecord) -> Group:
        return _group(record, reader, config.data)

    built = _built([records[index] for index in order], build, config.data, config.data.rot)
    return list(itertools.islice(filter(keep, built), most))


def _group(record: RotRecord, reader: ConversationReader, data: ml_collections.ConfigDict) -> Group:
    return build_group(
        record,
        reader,
        conditioning=data.conditioning,
        max_prefix=max(data.prefix_buckets),
        max_branch=max(data.branch_buckets),
    )


def replayable(
    records: Sequence[RotRecord], reader: ConversationReader, data: ml_collections.ConfigDict, source: str
) -> list[RotRecord]:
    """The records that can be tokenised as a whole and whose recorded prompts fit, which evaluation needs."""
    largest = max(data.prefix_buckets)

    def build(record: RotRecord) -> RotRecord:
        chat, _, _ = reader.read(record.conversation, record.images)
        longest = chat.spans[-1][0] - 1  # the prompt of the last turn, without the token that leads the turn
        if longest > largest:
            raise TooLong(
                f"the prompt of its last turn has {longest} tokens but the largest of config.data.prefix_buckets is "
                f"{largest}; add a larger bucket",
                "data.prefix_buckets",
                longest,
            )
        return record

    return build_all(records, build, data, source)


def build_all(
    records: Sequence[Record], build: Callable[[Record], Built], data: ml_collections.ConfigDict, source: str
) -> list[Built]:
    """`build` over all records; one that does not fit is skipped with a warning, or fatal.

    Raises:
      UserError: on a bad record under `on_bad_record="fatal"`, or when none is left.
    """
    return list(_built(records, build, data, source))


def _built(
    records: Sequence[Record], build: Callable[[Record], Built], data: ml_collections.ConfigDict, source: str
) -> Iterator[Built]:
    """One after another, as `build_all` says."""
    found, too_long = 0, list[TooLong]()
    for record in records:
        try:
            built = build(record)
        except (ChatError, ImageError) as error:
            message = f"{source}: record {record.id}: {error}"
            if data.on_bad_record == "fatal":
                raise UserError(message) from error
            _log.warning("skipped %s", message)
            too_long += [error] if isinstance(error, TooLong) else []
            continue
        found += 1
        yield built
    told = told_lengths(too_long, len(records))
    if not found:
        raise UserError(f"{source}: no record fits; {told or 'the last reason is in the log above'}")
    if told:
        _log.warning("%s: %s", source, told)


def told_lengths(too_long: Sequence[TooLong], records: int) -> str:
    """One sentence on all records that are too long, with what their fields must be; "" for none."""
    if not too_long:
        return ""
    names = dict.fromkeys(one.field for one in too_long)
    needed = {name: max(one.needed for one in too_long if one.field == name) for name in names}
    fields = ", ".join(f"config.{name} needs {most}" for name, most in needed.items())
    return f"{len(too_long)} of {records} records are too long and left out: for the longest {fields}"


def fitting_example(example: Example, config: ml_collections.ConfigDict) -> Example:
    """The example as it is; nothing is ever cut.

    Raises:
      TooLong: it is larger than the config allows.
      ChatError: it would teach nothing.
    """
    if not example.segments.any():
        raise ChatError("none of its tokens would be trained on: its assistant turns are empty, or failed")
    if reason := row_overflow(example, row_length=config.sft.row_length, row_patches=config.sft.row_patches):
        tokens, patches = len(example.tokens), len(example.images.patches)
        long = tokens > config.sft.row_length
        raise TooLong(reason, "sft.row_length" if long else "sft.row_patches", tokens if long else patches)
    return example
