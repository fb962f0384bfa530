"""How often a run in training tells and saves; what hears it needs no torch to know."""

from __future__ import annotations

FLUSH_SECONDS = 0.2
"""Losses stay on the device and are read at this pace: reading each would stop the device."""

CHECKPOINT_SECONDS = 30.0
