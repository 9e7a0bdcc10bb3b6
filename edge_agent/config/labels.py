"""The settings of what labels a machine's time: the reasons of its stops, its products and its jobs."""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from edge_agent.contract import Period, Settings

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
"""Letters, digits, `_` and `-`, at most 64, beginning with a letter or digit; no dot, so that `device.tag` has one."""

TagName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""A tag anywhere: `device.tag`."""

REASON_LENGTH = 200
"""The most characters of a reason."""

_RESERVED = "unclassified"
_NOT_TEXT = {"Cc", "Cs", "Zl", "Zp"}


def reason_path(text: str) -> str:
    """A reason as it is kept: names separated by `/`, without spaces around them.

    Raises:
        ValueError: it is no such path; the message says what to write.
    """
    parts = [part.strip() for part in text.split("/")]
    path = "/".join(parts)
    if not all(parts):
        raise ValueError("a reason is names separated by /, such as hydraulics/low pressure, and none of them is empty")
    if len(path) > REASON_LENGTH:
        raise ValueError(f"a reason has at most {REASON_LENGTH} characters, this one {len(path)}; shorten its names")
    if any(unicodedata.category(character) in _NOT_TEXT for character in path):
        raise ValueError("a reason is text on one line, without control characters; remove them")
    if parts[0].casefold() == _RESERVED:
        raise ValueError(f"{_RESERVED} is what a stop without a reason is called; choose another name, such as other")
    return path


Reason = Annotated[
    str,
    AfterValidator(reason_path),
    Field(json_schema_extra={"pattern": r"^[^/]*[^/\s][^/]*(/[^/]*[^/\s][^/]*)*$", "maxLength": REASON_LENGTH}),
]
"""Why a machine stood still, or an item is bad: names from the general to the special, as `hydraulics/low pressure`."""


def _product(text: str) -> str:
    name = text.strip()
    if not name:
        raise ValueError("a product is named as its tag or its job says it, and the name is not empty")
    return name


Product = Annotated[str, AfterValidator(_product), Field(json_schema_extra={"pattern": r"\S"})]


class ReasonSettings(Settings):
    """Why a machine stops: by the PLC's alarm code, and what people may say."""

    tag: TagName | None = None
    """The alarm code."""
    map: Annotated[dict[int | str, Reason], Field(min_length=1)] | None = None
    """The codes and their reasons."""
    tree: tuple[Reason, ...] = ()
    """The reasons that people may give beside those of the map; without it they may give any text."""
    planned_stop: tuple[Reason, ...] = ()
    """A stop with one of these reasons, or with one below them in the tree, counts as planned_stop."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the map and of the tree, each once."""
        return tuple(dict.fromkeys((*(self.map or {}).values(), *self.tree)))

    def is_planned(self, reason: str) -> bool:
        """Whether a stop with this reason counts as planned_stop."""
        return any(reason == planned or reason.startswith(f"{planned}/") for planned in self.planned_stop)

    @model_validator(mode="after")
    def _some_source(self) -> ReasonSettings:
        if self.map is not None and self.tag is None:
            raise ValueError("map: belongs to a tag, such as tag: press-01-plc.alarm_code; give both or neither")
        if self.tag is not None and self.map is None:
            raise ValueError("tag: belongs to a map of its values, such as map: {17: guard open}; give both or neither")
        if self.tag is None and not self.tree:
            raise ValueError("give tag with map, for the PLC's alarm code, or tree, for what people may say, or both")
        return self


class ProductSettings(Settings):
    """The product in work, and the planned run time of each."""

    tag: TagName | None = None
    """What says the product; without it the product comes with the job."""
    planned_run_time_per_item: dict[Product, Period] = {}
    """By product, as the tag or the job names it, without spaces around it; any other product has the machine's."""

    @model_validator(mode="after")
    def _some_use(self) -> ProductSettings:
        if self.tag is None and not self.planned_run_time_per_item:
            raise ValueError("give the tag that says the product, or planned_run_time_per_item by product, or both")
        return self


class JobSettings(Settings):
    """The job in work, as the PLC says it; without it jobs come from entries alone."""

    tag: TagName
    """The order, as text or number; empty, 0 and none mean no job."""
    operation: TagName | None = None
    planned_quantity: TagName | None = None
    fields: dict[Name, TagName] = {}
    """More tags whose last values during it go into the job's record, by the names that they have there."""
