"""Types and pure algebra that every layer shares; imports torch and jaxtyping, never transformers."""
