"""Preflight, weights, the engine's process and its supervisor."""
