"""onnxruntime reports its use to its makers (since 1.29, on Linux too) and keeps a device id below the home folder.

Tools that promise to work offline and to leave nothing behind turn that off, before it is first imported; it is
imported by rapidocr and, through magika, by markitdown.
"""

from __future__ import annotations

import os


def turn_off_telemetry() -> None:
    """Call it before importing anything that imports onnxruntime."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
