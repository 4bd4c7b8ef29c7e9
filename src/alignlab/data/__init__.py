"""Readers, writers, column mapping and adapters of published formats: everything that turns bytes into rows."""

from .columns import DataError
from .rows import read, write

__all__ = ["DataError", "read", "write"]
