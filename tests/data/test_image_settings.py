"""Image settings as checkpoints of several generations state them, and files that do not fit."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from regrpo_jax.data.image_settings import ImageSettings, image_settings
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig

VISION = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64)
# preprocessor_config.json of Qwen2-VL-7B-Instruct.
PUBLISHED = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "image_processor_type": "Qwen2VLImageProcessor",
    "processor_class": "Qwen2VLProcessor",
}


# preprocessor_config.json of Qwen3-VL-8B-Instruct.
PUBLISHED_3 = {
    "size": {"longest_edge": 16777216, "shortest_edge": 65536},
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "processor_class": "Qwen3VLProcessor",
    "image_processor_type": "Qwen2VLImageProcessorFast",
}


def write(folder: Path, content: Any, name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_the_published_settings_are_the_defaults(tmp_path: Path) -> None:
    stated = image_settings(write(tmp_path, PUBLISHED), VISION)
    assert stated == ImageSettings() and hash(stated) == hash(ImageSettings())
    assert image_settings(None, VISION) == stated


def test_a_folder_without_a_file(tmp_path: Path) -> None:
    assert image_settings(tmp_path, VISION) == ImageSettings()
    small = dataclasses.replace(VISION, patch_size=7, temporal_patch_size=1, spatial_merge_size=3)
    expected = ImageSettings(patch_size=7, temporal_patch_size=1, merge_size=3)
    assert image_settings(tmp_path, small) == image_settings(None, small) == expected


def test_the_published_settings_of_qwen3_vl_are_the_defaults_of_its_tower(tmp_path: Path) -> None:
    tower = dataclasses.replace(VISION, patch_size=16, interpolated_grid=48)
    stated = image_settings(write(tmp_path, PUBLISHED_3), tower)
    assert stated == image_settings(None, tower)
    assert (stated.patch_size, stated.min_pixels, stated.image_mean) == (16, 256 * 256, (0.5,) * 3)
    with pytest.raises(UserError, match="patch_size is 16, but vision_config in config.json says 14"):
        image_settings(tmp_path, VISION)


def test_every_setting_is_read(tmp_path: Path) -> None:
    stated = {
        "size": {"shortest_edge": 100, "longest_edge": 200},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "rescale_factor": 0.01,
        "resample": 2,
        "image_processor_type": "Qwen2VLImageProcessorFast",
    }
    expected = ImageSettings(100, 200, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 0.01, 2)
    assert image_settings(write(tmp_path, stated), VISION) == expected


def test_old_names_count_before_new_ones(tmp_path: Path) -> None:
    stated = PUBLISHED | {"min_pixels": 400, "size": {"shortest_edge": 100, "longest_edge": 900}, "max_pixels": None}
    settings = image_settings(write(tmp_path, stated), VISION)
    assert (settings.min_pixels, settings.max_pixels) == (400, 900)


@pytest.mark.parametrize(
    ("stated", "pixels"),
    [
        ({}, (3136, 1003520)),
        ({"size": None, "min_pixels": 50}, (50, 1003520)),
        ({"size": {"shortest_edge": 100, "longest_edge": 200}, "max_pixels": 500}, (100, 500)),
        ({"size": {"shortest_edge": 100}, "max_pixels": 500}, (100, 500)),
        ({"size": {"min_pixels": 7, "max_pixels": 9}, "min_pixels": 50, "max_pixels": 500}, (50, 500)),
        ({"size": 280}, None),
        ({"size": 280, "min_pixels": 50, "max_pixels": 500}, None),
        ({"size": [280, 280]}, None),
        ({"size": "280"}, None),
        ({"size": {"height": 280, "width": 280}}, None),
        ({"size": {"height": 280, "width": 280}, "min_pixels": 50, "max_pixels": 500}, None),
        ({"size": {"shortest_edge": 100}}, None),
        ({"size": {"longest_edge": 100}}, None),
        ({"size": {"min_pixels": 7, "max_pixels": 9}}, None),
        ({"size": {}}, None),
        ({"min_pixels": 0}, None),
        ({"size": {"shortest_edge": 0, "longest_edge": 100}}, None),
    ],
)
def test_sizes_are_what_transformers_resizes_to_or_refused(
    tmp_path: Path, stated: dict[str, Any], pixels: tuple[int, int] | None
) -> None:
    rest = {name: value for name, value in PUBLISHED.items() if not name.endswith("_pixels")}
    folder = write(tmp_path, rest | stated)
    theirs = Qwen2VLImageProcessorPil.from_dict
    if pixels is None:
        with pytest.raises(UserError, match=r"preprocessor_config\.json: .*size") as error:
            image_settings(folder, VISION)
        assert "\n" not in str(error.value)
        with pytest.raises((TypeError, ValueError)):
            theirs(copy.deepcopy(rest | stated))(Image.new("RGB", (60, 60)))
    else:
        found = image_settings(folder, VISION)
        size = theirs(copy.deepcopy(rest | stated)).size
        assert (found.min_pixels, found.max_pixels) == pixels == (size.shortest_edge, size.longest_edge)


def test_the_file_of_transformers_5(tmp_path: Path) -> None:
    write(tmp_path, PUBLISHED | {"min_pixels": 1})
    write(tmp_path, {"processor_class": "Qwen2VLProcessor"}, "processor_config.json")
    assert image_settings(tmp_path, VISION).min_pixels == 1  # an older processor_config.json speaks of other things
    write(tmp_path, {"image_processor": PUBLISHED | {"min_pixels": 2}}, "processor_config.json")
    assert image_settings(tmp_path, VISION).min_pixels == 2


@pytest.mark.parametrize("name", ("patch_size", "temporal_patch_size", "merge_size"))
def test_a_file_that_contradicts_the_tower(tmp_path: Path, name: str) -> None:
    message = rf"preprocessor_config\.json: {name} is 7, but vision_config in config\.json says"
    with pytest.raises(UserError, match=message):
        image_settings(write(tmp_path, PUBLISHED | {name: 7}), VISION)


@pytest.mark.parametrize(
    ("content", "message"),
    (
        ("{broken", "invalid JSON at line 1"),
        ("[]", "expected a JSON object"),
        (PUBLISHED | {"image_mean": [0.5]}, "cannot be used: not enough values"),
        (PUBLISHED | {"image_mean": 3}, "cannot be used"),
        (PUBLISHED | {"image_std": [0.0, 1.0, 1.0]}, "image_std is .* above 0"),
        (PUBLISHED | {"min_pixels": 10, "max_pixels": 9}, "images of 10 to 9 pixels are no range"),
        (PUBLISHED | {"min_pixels": "many"}, "invalid literal"),
        (PUBLISHED | {"resample": 99}, "99 is not a valid Resampling"),
        (PUBLISHED | {"do_normalize": False}, "do_normalize is False, only true"),
        (PUBLISHED | {"image_processor_type": "CLIPImageProcessor"}, "image_processor_type is 'CLIPImageProcessor'"),
    ),
)
def test_a_broken_file_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(UserError, match=rf"preprocessor_config\.json: .*{message}"):
        image_settings(write(tmp_path, content), VISION)


def test_a_config_narrows_the_range() -> None:
    settings = ImageSettings(min_pixels=100, max_pixels=1000)
    for asked, given in (((50, 2000), (100, 1000)), ((200, 500), (200, 500)), ((1, 100), (100, 100))):
        narrowed = settings.within(*asked)
        assert (narrowed.min_pixels, narrowed.max_pixels) == given
    with pytest.raises(
        UserError, match=r"config\.data\.pixels=\(\d+, 99\) leaves no size .* range of 100 to 1000 pixels"
    ):
        settings.within(1, 99)
