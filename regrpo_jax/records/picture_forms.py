"""A picture as other people name it, read as one text: the path of a file, or a data URL that holds it.

Parts of OpenAI, Anthropic, Qwen and Hugging Face data sets differ in their keys and in what they put there. What names
a picture that is not here, or that nobody could read, is refused rather than passed over.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from regrpo_jax.records.reasons import RecordError, kind_of, printable

_INSIDE = ("base64", "bytes", "data", "image_base64")  # hold the picture itself
_WHERE = ("image", "image_url", "url", "path", "file", "file_path", "image_path", "source")  # say where it is
_BESIDE = frozenset(
    {"type", "media_type", "mime_type", "detail", "text", "width", "height", "min_pixels", "max_pixels"}
)
_DATA_URL = re.compile(r"data:image(?:/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,(.*)\Z", re.DOTALL | re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=//)|(?:data|file):", re.IGNORECASE)


def describes_picture(value: Mapping[str, object]) -> bool:
    """Whether an object describes one picture, {"path": ..}, and is no list of placeholders, {"<image_00>": ..}."""
    return bool(value) and value.keys() <= _BESIDE.union(_INSIDE, _WHERE)


def picture_path(value: object) -> str:
    """The picture that a value names; "" when it names none.

    Raises RecordError for a picture that is elsewhere on the net, one whose bytes are no base64, and for what is no
    name of a picture.
    """
    if isinstance(value, str):
        return _path_of(value)
    if value is None:
        return ""
    if not isinstance(value, Mapping):
        raise RecordError((f"image_form: a picture is named by {kind_of(value)}; name its file",))
    for key in _INSIDE:
        inside = value.get(key)
        if isinstance(inside, str) and inside:
            return _path_of(inside if inside.startswith("data:") else f"data:{_media(value)};base64,{inside}")
        if inside and not isinstance(inside, Mapping):
            raise RecordError((f"image_form: `{key}` of a picture must be base64, not {kind_of(inside)}",))
    found = (picture_path(value[key]) for key in (*_WHERE, *_INSIDE) if value.get(key))
    return next((path for path in found if path), "")


def is_data_url(path: str) -> bool:
    """Whether the picture is inside the record, not in a file."""
    return path.startswith("data:")


def picture_bytes(path: str) -> bytes:
    """The content of what `picture_path` gave. Raises OSError for a file that cannot be read."""
    return base64.b64decode(path.partition(",")[2]) if is_data_url(path) else Path(path).read_bytes()


def _media(value: Mapping[str, object]) -> str:
    media = value.get("media_type", value.get("mime_type"))
    return media if isinstance(media, str) and media else "image/png"


def _path_of(text: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    match scheme.group().lower():
        case "data:":
            return _data_url(text)
        case "file:":
            return _local_path(text)
    raise RecordError((f"image_remote: {printable(text)} is not fetched; save the picture and name its file",))


def _data_url(text: str) -> str:
    match = _DATA_URL.match(text)
    try:
        content = base64.b64decode("".join(match[1].split()), validate=True) if match else b""
    except (binascii.Error, ValueError):
        content = b""
    if not content:
        raise RecordError((f"image_form: {printable(text)} is no picture in base64; name a file instead",))
    return "data:image;base64," + base64.b64encode(content).decode("ascii")


def _local_path(text: str) -> str:
    url = urlsplit(text)
    if url.netloc not in ("", "localhost") or not url.path:
        raise RecordError((f"image_remote: {printable(text)} is on another machine; name a file of this one",))
    return url2pathname(url.path)
