"""Roof: one sub-command a verb; files in, rooms, files out."""

from .main import main

__all__ = ["main"]
