"""One look and one wording for states, causes and reasons, in the terminal and on the page."""

from __future__ import annotations

from typing import NamedTuple


class Look(NamedTuple):
    """How a state is shown: a word, a letter, a colour, and a height that reads without colour."""

    label: str
    letter: str
    colour: str
    glyph: str


LOOKS = {
    "producing": Look("producing", "P", "#009988", "█"),  # teal
    "short_stop": Look("short stop", "S", "#EECC44", "▆"),  # yellow
    "delay": Look("delay (waiting)", "W", "#EE7733", "▃"),  # orange
    "down": Look("down", "D", "#BB2211", "▁"),  # red
    "setup": Look("setup (changeover)", "C", "#33BBEE", "▄"),  # cyan
    "idle": Look("idle (no job)", "I", "#AA77BB", "▂"),  # mauve
    "planned_stop": Look("planned stop", "B", "#1565AE", "─"),  # blue
    "not_scheduled": Look("not scheduled", "N", "#C4C8CC", "·"),  # grey
    "unknown": Look("not observed", "?", "#80868B", "░"),  # hatched on the page
}
"""The nine states in the order of records. Told apart with protanopia, deuteranopia and tritanopia (delta E > 15)."""

UNKNOWN = "unknown"
UNCLASSIFIED = "unclassified"
NEUTRAL = "#80868B"
"""The colour of what has no reason."""

CAUSES = {
    "device_offline": "device offline",
    "agent_down": "the agent did not run",
    "bad_quality": "bad quality",
    "unmapped_state": "a status that its map does not know",
    "stale": "no fresh reading",
    "not_started": "before the first reading",
    "misconfigured": "device disabled by its configuration",
    "overflow": "readings dropped, the disk stalled",
}

KPI_REASONS = {
    "no_planned_busy_time": "no planned busy time",
    "no_planned_operation_time": "no planned operation time",
    "no_observed_operation_time": "nothing observed in the scheduled time",
    "no_observed_time": "nothing observed",
    "no_run_time": "the machine did not run",
    "no_run_or_delay_time": "neither run nor delay",
    "no_run_or_setup_time": "neither run nor setup",
    "no_busy_time": "no busy time",
    "no_planned_run_time": "no planned run time per item",
    "produced_not_counted": "produced is not counted",
    "good_not_counted": "good is not counted",
    "scrap_not_counted": "scrap is not counted",
    "rework_not_counted": "rework is not counted",
    "nothing_produced": "nothing produced",
    "corrected_below_zero": "corrections exceed what was made",
    "rework_exceeds_good": "more rework than good",
    "no_failure": "no failure",
}

FLAGS = {
    "count_gap": "A count has a hole: what was made in it may be missing.",
    "producing_outside_plan": "The machine produced outside the plan.",
}

BY = {"plc": "PLC", "person": "person"}


def in_words(table: dict[str, str], word: str) -> str:
    """A word of records as people say it; one that the table does not know, without its underscores."""
    return table.get(word) or word.replace("_", " ")


def look(state: str) -> Look:
    """How a state is shown; one that nobody knows looks unknown, under its own name."""
    return LOOKS.get(state) or LOOKS[UNKNOWN]._replace(label=state.replace("_", " "))


def flag(word: str) -> str:
    """A flag of a record as a sentence."""
    if word in FLAGS:
        return FLAGS[word]
    plain = word.removesuffix("_over_1").replace("_", " ")
    if word.endswith("_over_1"):
        return f"{plain.capitalize()} is over 100 %: is the planned run time per item right?"
    return f"{plain.capitalize()}."
