"""YAML to facts, strictly: unknown key, missing source, wrong type stop the load with file and line.

A profile file is a mapping of kinds (``gpus``, ``checkpoints``...) to lists of rows; folders and file
names are free. Later folders are merged over earlier ones by id.
"""

from __future__ import annotations

from qwenhost.profiles.catalog import builtin_dir, load_catalog
from qwenhost.profiles.lookup import FoundRow, find_rows
from qwenhost.profiles.mistakes import Mistake, ProfileError
from qwenhost.profiles.sheet import KINDS, Sheet, row_id, schema_of
from qwenhost.profiles.sources import DatedFact, dated_facts, rows_of

__all__ = [
    "KINDS",
    "DatedFact",
    "FoundRow",
    "Mistake",
    "ProfileError",
    "Sheet",
    "builtin_dir",
    "dated_facts",
    "find_rows",
    "load_catalog",
    "row_id",
    "rows_of",
    "schema_of",
]
