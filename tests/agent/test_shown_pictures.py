"""What a policy is shown of the pictures that tools write, whatever they wrote; what it is not shown, it is told."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regrpo_jax.agent import shown_pictures as module
from regrpo_jax.agent.loop import EpisodeLoop, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import Told
from regrpo_jax.agent.prompt import free_placeholders, observation_text
from regrpo_jax.agent.shown_pictures import NO_PICTURES, PictureLimits, ShownPicture, shown_pictures, with_pictures
from regrpo_jax.data.image_parts import image_order, with_image_parts
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.images import load_image
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ImageReference, Status, Turn

FIVE = "0.png, 1.png, 2.png, 3.png and 1 more"
RED, GREEN, BLUE = (220, 40, 40), (40, 180, 60), (50, 80, 220)


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **more)
    return stream.getvalue()


def card(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (40, 30)) -> bytes:
    return encoded(Image.new("RGB", size, colour))


def opened(picture: ShownPicture) -> Image.Image:
    with Image.open(picture.path) as image:
        assert image.format == "PNG"
        return image.copy()


def test_a_picture_is_a_file_under_the_hash_of_what_it_holds(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there"
    made = [("red.png", card()), ("again.png", card()), ("out/green.png", card(GREEN))]
    shown, note = shown_pictures(made, PictureLimits(), folder, before=0)
    assert note == "" and [one.name for one in shown] == ["red.png", "again.png", "out/green.png"]
    assert shown[0].path == shown[1].path != shown[2].path
    for picture, (_, content) in zip(shown, made, strict=True):
        held = Path(picture.path).read_bytes()
        assert Path(picture.path).parent == folder and Path(picture.path).name == f"{digest(held)}.png"
        assert picture.digest == digest(content)
        np.testing.assert_array_equal(np.asarray(opened(picture)), np.asarray(Image.open(io.BytesIO(content))))
    assert [one.words for one in shown] == ["only red", "only red", "only green"]
    assert len(list(folder.iterdir())) == 2, "and no unfinished file"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_of_four_hundred_a_few_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    made = [(f"{number:03d}.png", card(size=(2 + number, 3))) for number in range(400)]
    shown, note = shown_pictures(made, PictureLimits(of_observation=4), tmp_path, before=0)
    assert [one.name for one in shown] == [f"{number:03d}.png" for number in range(4)]
    told = "004.png, 005.png, 006.png, 007.png and 392 more"
    assert note == f"(not shown, as a step shows at most 4 pictures: {told})"
    assert len(list(tmp_path.iterdir())) == 4, "the others are not even opened"


@pytest.mark.parametrize(
    ("limits", "before", "count", "words"),
    [
        (PictureLimits(4, 16), 14, 2, "(not shown, as an episode shows at most 16 pictures: 2.png, 3.png, 4.png)"),
        (PictureLimits(4, 16), 16, 0, f"(not shown, as an episode shows at most 16 pictures: {FIVE})"),
        (PictureLimits(4, 16), 12, 4, "(not shown, as a step shows at most 4 pictures: 4.png)"),
        (PictureLimits(4, 16), 20, 0, f"(not shown, as an episode shows at most 16 pictures: {FIVE})"),
        (PictureLimits(8, 3), 0, 3, "(not shown, as an episode shows at most 3 pictures: 3.png, 4.png)"),
        (PictureLimits(5, 5), 0, 5, ""),
        (PictureLimits(0, 16), 0, 0, f"(pictures are not shown here: {FIVE})"),
        (PictureLimits(4, 0), 0, 0, f"(pictures are not shown here: {FIVE})"),
        (NO_PICTURES, 0, 0, f"(pictures are not shown here: {FIVE})"),
    ],
)  # fmt: skip
def test_limits_of_a_step_and_of_an_episode(
    tmp_path: Path, limits: PictureLimits, before: int, count: int, words: str
) -> None:
    shown, note = shown_pictures([(f"{number}.png", card()) for number in range(5)], limits, tmp_path, before)
    assert (len(shown), note) == (count, words)


def test_nothing_made_is_nothing_told(tmp_path: Path) -> None:
    for limits in (PictureLimits(), NO_PICTURES):
        assert shown_pictures([], limits, tmp_path / "unmade", before=0) == ((), "")
    assert not (tmp_path / "unmade").exists()


def test_large_pictures_are_made_smaller_and_keep_their_shape(tmp_path: Path) -> None:
    wide = Image.fromarray(np.tile(np.array([[RED], [BLUE]], np.uint8).repeat(100, 0), (1, 20_000, 1)))
    assert wide.size == (20_000, 200)
    (shown,), note = shown_pictures([("wide.png", encoded(wide))], PictureLimits(pixels=40_000), tmp_path, 0)
    image = opened(shown)
    assert note == "" and image.size == (2000, 20) and shown.words == "blue, red"
    assert image.getpixel((1000, 2)) == RED and image.getpixel((1000, 18)) == BLUE
    for size in ((1001, 999), (3000, 17), (5, 900)):
        (shown,), _ = shown_pictures([("a.png", card(size=size))], PictureLimits(pixels=3000), tmp_path, 0)
        width, height = opened(shown).size
        assert width * height <= 3000 and 0.5 < (width / height) / (size[0] / size[1]) < 2
    exact = card(size=(50, 60))
    (shown,), _ = shown_pictures([("a.png", exact)], PictureLimits(pixels=3000), tmp_path, 0)
    assert opened(shown).size == (50, 60)
    (shown,), _ = shown_pictures([("a.png", exact)], PictureLimits(pixels=1), tmp_path, 0)
    assert opened(shown).size == (1, 1)


@pytest.mark.parametrize("pixels", [1, 150, 3000, 1_003_520])
def test_what_is_shown_can_be_cut_into_patches(tmp_path: Path, pixels: int) -> None:
    """However long it is: a side of few pixels loses more than its share, and the aspect grows."""
    for size in ((20_000, 100), (100, 20_000), (8_600, 43), (199, 1), (7_777, 39)):
        (shown,), note = shown_pictures([("a.png", card(size=size))], PictureLimits(pixels=pixels), tmp_path, 0)
        width, height = opened(shown).size
        assert note == "" and width * height <= max(pixels, 1)
        assert load_image(shown.path, ImageSettings(min_pixels=28 * 28, max_pixels=64 * 28 * 28)).num_tokens > 0


def test_what_is_elongated_after_all_is_told(tmp_path: Path) -> None:
    shown, note = shown_pictures([("strip.png", card(size=(20_000, 99)))], PictureLimits(), tmp_path, 0)
    words = "20000x99 pixels is too elongated; crop the image below an aspect of 200"
    assert not shown and note == f"(strip.png is not shown: {words})"


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "damaged"])
def test_a_file_that_cannot_be_read_takes_nobodys_place(tmp_path: Path, kind: str) -> None:
    noise = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)))
    damaged = bytearray(noise)
    damaged[len(damaged) // 2] ^= 0xFF
    content = {"text": b"hello", "empty": b"", "cut": noise[: len(noise) // 2], "damaged": bytes(damaged)}[kind]
    made = [("broken.png", content), ("red.png", card()), ("green.png", card(GREEN))]
    shown, note = shown_pictures(made, PictureLimits(of_observation=2), tmp_path, before=0)
    assert [one.name for one in shown] == ["red.png", "green.png"]
    assert note.startswith("(broken.png is not shown: not a readable image (") and "\n" not in note
    assert "0x" not in note, "an address in memory is another one in the next run"
    again, repeated = shown_pictures(made, PictureLimits(of_observation=2), tmp_path, before=0)
    assert (again, repeated) == (shown, note)


def kinds() -> dict[str, tuple[bytes, tuple[int, int, int]]]:
    """Files of every kind, and the colour that is seen in their middle."""
    frames = [Image.new("P", (8, 8)), Image.new("P", (8, 8))]
    frames[0].putpalette([*RED, *GREEN])
    frames[1].putpalette([*GREEN, *RED])
    greys = Image.fromarray(np.full((8, 8), 257 * 120, np.uint16))
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([*RED, *BLUE])
    clear, half = Image.new("RGBA", (8, 8), (*RED, 0)), Image.new("LA", (8, 8), (0, 0))
    turned = Image.new("RGB", (8, 16), RED)
    exif = turned.getexif()
    exif[0x0112] = 6  # to be turned by a quarter
    return {
        "animated": (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), RED),
        "cmyk": (encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "TIFF"), (255, 0, 0)),
        "16 bits": (encoded(greys), (120, 120, 120)),
        "palette": (encoded(palette), BLUE),
        "transparent": (encoded(clear), (255, 255, 255)),
        "opaque": (encoded(Image.new("RGBA", (8, 8), (*GREEN, 255))), GREEN),
        "grey and clear": (encoded(half), (255, 255, 255)),
        "black and white": (encoded(Image.new("1", (8, 8), 1)), (255, 255, 255)),
        "turned": (encoded(turned, "PNG", exif=exif), RED),
    }


@pytest.mark.parametrize("kind", list(kinds()))
def test_any_kind_of_file_is_shown_as_a_person_sees_it(tmp_path: Path, kind: str) -> None:
    content, colour = kinds()[kind]
    (shown,), note = shown_pictures([("a", content)], PictureLimits(), tmp_path, 0)
    image = opened(shown)
    assert note == "" and image.mode == "RGB" and image.getpixel((4, 4)) == colour
    assert image.size == ((16, 8) if kind == "turned" else (8, 8)) and not getattr(image, "is_animated", False)


def test_a_blind_policy_is_shown_black_of_the_same_size(tmp_path: Path) -> None:
    made = [("red.png", card(size=(300, 200))), ("green.png", card(GREEN, size=(300, 200)))]
    seeing, _ = shown_pictures(made, PictureLimits(pixels=15_000), tmp_path, 0)
    blind, note = shown_pictures(made, PictureLimits(pixels=15_000, blind=True), tmp_path, 0)
    assert (
        note == "" and [opened(one).size for one in blind] == [opened(one).size for one in seeing] == [(150, 100)] * 2
    )
    assert all(not np.asarray(opened(one)).any() for one in blind)
    assert [one.digest for one in blind] == [one.digest for one in seeing], (
        "what a tool made is judged, not what is shown"
    )
    assert [one.words for one in blind] == ["only black"] * 2 and blind[0].path == blind[1].path


@pytest.mark.parametrize("numbers", [(-1, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_limits_that_mean_nothing_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="agent.observation_images"):
        PictureLimits(*numbers)


def test_a_full_disk_is_told_and_leaves_no_half_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*unused: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(UserError, match="a picture cannot be kept there .No space left on device"):
        shown_pictures([("a.png", card())], PictureLimits(), tmp_path, 0)
    assert not list(tmp_path.glob("*.png"))


def test_a_file_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    (first,), _ = shown_pictures([("a.png", card())], PictureLimits(), tmp_path, 0)
    os.utime(first.path, (1, 1))
    (second,), _ = shown_pictures([("b.png", card())], PictureLimits(), tmp_path, 0)
    assert second.path == first.path and Path(second.path).stat().st_mtime == 1


def test_placeholders_are_those_that_nobody_said() -> None:
    assert free_placeholders(0, 3, []) == []
    assert free_placeholders(2, 0, ["Task"]) == ["<image_00>", "<image_01>"]
    assert free_placeholders(2, 0, ["see <image_00>", "a tool prints <image_01> and <image_03>"]) == [
        "<image_02>",
        "<image_04>",
    ]
    assert free_placeholders(3, 98, ["<image_099>"]) == ["<image_98>", "<image_99>", "<image_100>"]
    assert free_placeholders(1, 10, ["<image_100>", "image_10", "<image_10"]) == ["<image_10>"]


def test_the_text_of_an_observation_names_its_pictures() -> None:
    assert observation_text(2, "17") == "[OUTPUT OF STEP 2] -> Observation:\n17"
    text, images = with_pictures("", [picture("a.png"), picture("b.png")], 1, ["Task: <image_00>"])
    assert text == "\na.png: <image_01>\nb.png: <image_02>"
    assert images == (ImageReference("<image_01>", "/a.png"), ImageReference("<image_02>", "/b.png"))


def replayed(*observations: Played, asked: Told | None = None) -> list[Told]:
    loop = EpisodeLoop(LoopSettings(), None, asked or Told("Task: x"))
    return [loop.replayed("Thought: x", played) for played in observations]


def picture(name: str) -> ShownPicture:
    return ShownPicture(name, "digest", f"/{name}", "red")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("it prints <image_01>", ("a.png", "b.png")),
        ("<image_01> <image_02> <image_03>", ("a.png",)),
        ("17", ("<image_01>.png", "b.png")),  # the file is called like a placeholder
        ("17", ("b.png", "<image_01>", "<image_02>.png")),
        ("17", ("x\n<image_01>: y.png", "z.png")),
    ],
)
def test_no_text_and_no_name_of_a_file_stands_for_a_picture(text: str, names: tuple[str, ...]) -> None:
    asked = Told("<image_00>\nTask: x", (ImageReference("<image_00>", "/task.png"),))
    first = Played(Status.OK, text, pictures=tuple(map(picture, names)), note="(c.png is not shown)")
    second = Played(Status.OK, "and <image_01> <image_09>", pictures=(picture("last.png"),))
    told = replayed(first, second, asked=asked)
    for one, wanted in zip(told, (names, ("last.png",)), strict=True):
        turn = Turn("user", one.text)
        assert [image.path for image in image_order([turn], one.images)] == [f"/{name}" for name in wanted]
        parts = with_image_parts([turn], one.images)[0]["content"]
        before = [parts[place - 1]["text"] for place, part in enumerate(parts) if part["type"] == "image"]
        assert all(words.endswith(f"{name}: ") for words, name in zip(before, wanted, strict=True))
    turns = [Turn("user", asked.text), *(Turn("user", one.text) for one in told)]
    every = [image for one in (asked, *told) for image in one.images]
    paths = ["/task.png", *(f"/{name}" for name in names), "/last.png"]
    assert [image.path for image in image_order(turns, every)] == paths, "also in the whole conversation"
    assert "(c.png is not shown)" in told[0].text


def test_what_evidence_may_quote_and_what_tells_observations_apart() -> None:
    picture = ShownPicture("a.png", "d1", "/x.png", "only red")
    one = Played(Status.OK, "17 in a.png", pictures=(picture,), note="(note)", made=(("a.png", "d1"),))
    other = dataclasses.replace(one, made=(("a.png", "d2"),))
    assert one.words == "17 in a.png\n(note)\na.png: only red" == other.words
    assert one.seen == "17 in <picture 0>\nd1" != other.seen
    hidden = Played(Status.OK, "17 in b_2.png", note="(not shown)", made=(("b_2.png", "d1"),))
    assert hidden.seen == one.seen, "neither its name nor what is shown of it matters"
    assert Played(Status.OK, "17").seen == Played(Status.OK, "17").words == "17"


def test_a_step_is_right_only_with_the_right_picture() -> None:
    right, other = (Played(Status.OK, "done", made=(("a.png", digest),)) for digest in ("d1", "d2"))
    for played, expected in ((right, True), (other, False), (Played(Status.OK, "done"), False)):
        loop = EpisodeLoop(LoopSettings(), [right.seen])
        loop.replayed("Thought: x", played)
        assert loop._last_right is expected
