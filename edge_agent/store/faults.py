"""Errors as SQLite has them, for what only we can see."""

from __future__ import annotations

import sqlite3


def damage(text: str) -> sqlite3.DatabaseError:
    """The error of SQLite for a database that is damaged."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error
