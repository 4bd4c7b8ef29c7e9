"""alignlab: align a language model with published methods, and prove what changed."""

__version__ = "0.1.0"
