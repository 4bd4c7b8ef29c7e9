"""The offline town: invented people, places, works and habits whose truth is known exactly."""

from alignlab.world.sets import rows

__all__ = ["rows"]
