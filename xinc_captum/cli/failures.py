"""Failures whose message says all a person needs; everything else keeps its traceback."""

from ..hooks import LayerError
from ..images import PhotoError
from ..inr import CheckpointError
from ..propagation import CarryError
from ..store import StoreError
from ..videos import VideoError
from ..zoo import AssetError


class UsageError(ValueError):
    """An option that cannot be used as given."""


FAILURES = (
    UsageError,
    PhotoError,
    VideoError,
    StoreError,
    CheckpointError,
    LayerError,
    CarryError,
    AssetError,
    FileNotFoundError,
)
