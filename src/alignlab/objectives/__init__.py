"""Objectives: pure functions from scored batches to loss terms; one file per published name."""
