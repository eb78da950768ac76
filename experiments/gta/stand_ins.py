"""Pictures of the right names for records whose images may not be passed on: a name in large letters on a pale ground.

    python -m experiments.gta.stand_ins shared/data/gta runs/gta

Every box and position that a dialog names fits on its pictures; nothing that it says of them is true.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from regrpo_jax.suites.gta.record_types import GtaRecord
from regrpo_jax.suites.gta.records import dataset_file, read_gta

_LEAST, _MARGIN, _LARGEST = 1024, 64, 4000  # pixels of a side
_NUMBER = re.compile(r"\d+")


def with_stand_ins(source: Path, folder: Path) -> Path:
    """Copy GTA's files to `folder` and draw a picture for each one that they name; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(dataset_file(source), folder / "dataset.json")
    if (source / "toolmeta.json").is_file():
        shutil.copyfile(source / "toolmeta.json", folder / "toolmeta.json")
    for record in read_gta(folder).records:
        side = _side(record)
        for file in record.files:
            place = folder / file.path
            if place.resolve().is_relative_to(folder.resolve()) and not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                _picture(place.stem, side).save(place)
    return folder


def _side(record: GtaRecord) -> int:
    """Long enough for all boxes and positions that the dialog asks for."""
    told = [
        str(call.arguments[name])
        for turn in record.dialog
        for call in turn.calls
        for name in ("bbox", "position")
        if name in call.arguments
    ]
    numbers = [int(number[:5]) for text in told for number in _NUMBER.findall(text)]
    return min(_LARGEST, max([_LEAST, *(number + _MARGIN for number in numbers)]))


def _picture(words: str, side: int) -> Image.Image:
    picture = Image.new("RGB", (side, side), (250, 246, 220))
    ImageDraw.Draw(picture).text((side // 8, side // 2), words, fill="black", font=ImageFont.load_default(side // 10))
    return picture


if __name__ == "__main__":
    print(with_stand_ins(Path(sys.argv[1]), Path(sys.argv[2])))
