"""Small corpora in files: of texts (6 RoT records and 14 clean ones, or 36 and 84), and 6 and 14 with pictures."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CorpusPaths:
    """The three JSON files of a corpus; images lie in the folder `images` beside them."""

    folder: Path

    @property
    def rot_train(self) -> Path:
        """RoT records to train on."""
        return self.folder / "rot_train.json"

    @property
    def clean_train(self) -> Path:
        """Clean trajectories to train on."""
        return self.folder / "clean_train.json"

    @property
    def rot_test(self) -> Path:
        """RoT records of other tasks."""
        return self.folder / "rot_test.json"


_HERE = Path(__file__).parent
FEW, MANY, PICTURED = (CorpusPaths(_HERE / name) for name in ("few", "many", "pictured"))
