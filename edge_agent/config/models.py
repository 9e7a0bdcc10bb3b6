"""The sections of the configuration, as validated models. Drivers bring the models of their devices and tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, field_validator, model_validator

from edge_agent.config.labels import JobSettings as JobSettings
from edge_agent.config.labels import Name as Name
from edge_agent.config.labels import ProductSettings as ProductSettings
from edge_agent.config.labels import Reason as Reason
from edge_agent.config.labels import ReasonSettings as ReasonSettings
from edge_agent.config.labels import TagName as TagName
from edge_agent.contract import Duration, Period, Rate, Secret, Settings, Size, parse_duration, parse_size
from edge_agent.equipment import named_maps, rules
from edge_agent.shifts import FIXED_WINDOWS_S as FIXED_WINDOWS_S

State = Literal["producing", "short_stop", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled", "unknown"]
MappedState = Literal["producing", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled"]
"""What a status value may be mapped to: `short_stop` and `unknown` are found, never told."""

TimeOfDay = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""A local time such as "06:00"."""

JOB = "job"
WINDOWS = (*FIXED_WINDOWS_S, "shift", "day", JOB)
"""What `summarize` may name: fixed windows, those of the calendar, and each job."""


def _window(given: Any) -> str:
    name = str(given).replace(" ", "")
    if name not in WINDOWS:
        raise ValueError(f"not a window; allowed: {', '.join(WINDOWS)}")
    return name


Window = Annotated[str, AfterValidator(_window)]


class AgentSettings(Settings):
    """Who this agent is and where it stands."""

    name: Name
    """Unique among all agents of the broker: the MQTT client id, and part of every record's source."""
    enterprise: Name
    site: Name
    timezone: str = "UTC"
    """An IANA zone, for windows, shifts and production days; everything else is UTC."""
    data: Path | None = None
    """The folder of the store. Default: $STATE_DIRECTORY, else ./data."""

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError("not an IANA time zone, such as Europe/Paris") from error
        return name


LEAST_SIZE = parse_size("10 MB")
"""Of the store: with less there is no room for open windows, and what is due to go is what is just written."""


class BufferSettings(Settings):
    """The local store."""

    max_size: Size = parse_size("2 GB")
    """The hard bound on disk."""
    keep_readings: Period = parse_duration("14 d")
    keep_records: Period = parse_duration("90 d")
    refresh: Period = parse_duration("60 s")
    """A reading is stored at least this often, changed or not."""
    commit: Period = parse_duration("500 ms")
    """Readings are committed together this often; at most this much is lost at a power cut."""

    @field_validator("max_size")
    @classmethod
    def _room_to_work_in(cls, given: int) -> int:
        if given < LEAST_SIZE:
            raise ValueError("must be at least 10 MB: what is just read and waits needs room")
        return given


class MqttSettings(Settings):
    """The broker that takes the records."""

    url: str
    """mqtt://, mqtts://, ws:// or wss://, host, and the port unless it is the usual one."""
    username: str | None = None
    password: Secret | None = None
    ca: Path | None = None
    """The certificates that vouch for the broker; the system's unless given."""
    certificate: Path | None = None
    """The agent's own certificate; with `key`: mutual TLS."""
    key: Secret | None = None
    """The key of the certificate, as {file: …} or {credential: …}."""
    version: Literal["auto", "5", "3.1.1"] = "auto"
    """auto: MQTT 5, and 3.1.1 only where the broker refuses 5 explicitly."""
    topic_prefix: str = Field(default="edge/v1", pattern=r"^[^+#\s/]+(/[^+#\s/]+)*$")

    @field_validator("version", mode="before")
    @classmethod
    def _version_as_text(cls, given: Any) -> Any:
        return str(given) if isinstance(given, int | float) and not isinstance(given, bool) else given

    @field_validator("url")
    @classmethod
    def _url_of_a_broker(cls, url: str) -> str:
        if "@" in url:
            raise ValueError("write username and password as keys of their own, not in the URL")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ValueError("expected mqtt://host[:port], mqtts://…, ws://… or wss://…") from None
        if parts.scheme not in ("mqtt", "mqtts", "ws", "wss") or not parts.hostname:
            raise ValueError("expected mqtt://host[:port], mqtts://…, ws://… or wss://…")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError("the port must be a number from 1 to 65535")
        return url

    @model_validator(mode="after")
    def _key_with_certificate(self) -> MqttSettings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both or neither")
        return self


Days = Annotated[
    str, StringConstraints(pattern=r"^(mon|tue|wed|thu|fri|sat|sun)([-,] ?(mon|tue|wed|thu|fri|sat|sun))*$")
]
Break = Annotated[str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]


class ShiftSettings(Settings):
    """One shift, in local time; one that ends before it begins runs over midnight."""

    days: Days = "mon-sun"
    """Such as `mon-fri` or `mon, wed, sat`: the days on which it begins."""
    from_: TimeOfDay = Field(alias="from")
    to: TimeOfDay
    breaks: tuple[Break, ...] = ()
    """Such as `["09:00-09:15"]`."""


class CalendarSettings(Settings):
    """Shifts, breaks, production days. Without shifts, all time is scheduled."""

    production_day_starts: TimeOfDay = "00:00"
    shifts: dict[Name, ShiftSettings] = {}
    closed: tuple[date, ...] = ()
    """Production days without production."""


def _named(maps: Mapping[str, Mapping[int | str, str]]) -> Callable[[Any], Any]:
    def named(given: Any) -> Any:
        if isinstance(given, str) and given not in maps:
            raise ValueError(f"not a named map, and no map of values to words; allowed: {', '.join(maps)}")
        return dict(maps[given]) if isinstance(given, str) else given

    return named


def _rule(text: str) -> str:
    rules.parse(text)
    return text


ModeState = Literal["production", "delay", "down", "setup", "idle", "planned_stop", "not_scheduled"]
"""What a mode may be mapped to: `production` leaves the state as it is, any other word overrides it."""

StateMap = Annotated[
    dict[int | str | bool, MappedState],
    BeforeValidator(
        _named(named_maps.STATE_MAPS),
        json_schema_input_type=Literal["packml", "packml-tmc", "machinery"] | dict[int | str | bool, MappedState],
    ),
]
ModeMap = Annotated[
    dict[int | str | bool, ModeState],
    BeforeValidator(
        _named(named_maps.MODE_MAPS),
        json_schema_input_type=Literal["packml", "packml-tmc", "machinery"] | dict[int | str | bool, ModeState],
    ),
]
RuleText = Annotated[str, AfterValidator(_rule)]


class ModeSettings(Settings):
    """The machine's mode, such as maintenance or set up, which says more than its status."""

    tag: TagName
    map: ModeMap
    """The values and their words, or a named map: packml, packml-tmc, machinery."""


class FromCountSettings(Settings):
    """The state from the counts of produced items alone."""

    stopped_after: float = Field(gt=0, le=1_000_000)
    """So many planned run times without an item are a stop."""


class StateSettings(Settings):
    """Where a machine's state comes from: one of a status tag with a map, rules on tags, or the count."""

    tag: TagName | None = None
    map: StateMap | None = None
    """The values and their words, or a named map: packml, packml-tmc, machinery."""
    mode: ModeSettings | None = None
    when: Annotated[dict[MappedState, RuleText], Field(min_length=1)] | None = None
    """Words and their rules; the first that is true says the state; none: delay."""
    from_count: FromCountSettings | None = None

    @model_validator(mode="after")
    def _one_source(self) -> StateSettings:
        if (self.tag is None) != (self.map is None):
            raise ValueError("tag and map belong together")
        if self.mode is not None and self.tag is None:
            raise ValueError("mode: belongs to a status; give tag and map")
        if sum(source is not None for source in (self.tag, self.when, self.from_count)) != 1:
            raise ValueError("give exactly one of: tag with map, when, from_count")
        return self


class CountSettings(Settings):
    """One count of a machine; several of one quantity add up."""

    tag: TagName
    kind: Literal["counter", "pulse", "increment"] = "counter"
    """counter: cumulative. pulse: rising edges. increment: each reading is a quantity; its tag has `store: every`."""
    rollover: int | None = Field(default=None, gt=0)
    """The value at which the counter wraps to 0, such as 65536; without it a fall is a reset."""
    max_rate: Rate | None = None
    """No faster than this: a greater step is not believed. A counter's default: three times the planned rate."""
    reset: Literal["count", "drop"] = "count"
    """After a reset the new value is the step (`count`), or nothing (`drop`)."""
    items_per_count: int = Field(default=1, gt=0)
    reason: Reason | None = None
    """Why its items are scrap or rework; `/` makes a tree, as in `dimension/too long`."""

    @model_validator(mode="after")
    def _keys_of_its_kind(self) -> CountSettings:
        for key in sorted({"rollover", "reset"} & self.model_fields_set):
            if self.kind != "counter":
                raise ValueError(f"{key}: only a counter has it; remove it, or write kind: counter")
        if self.kind == "pulse" and "max_rate" in self.model_fields_set:
            raise ValueError("max_rate: a pulse has none, each edge is one count; remove it")
        return self


def _listed(given: Any) -> Any:
    # An empty list is refused here: pydantic's min_length would count the sound items only, beside their own faults.
    if given == []:
        raise ValueError("give one count, or a list of some")
    return given if isinstance(given, list | tuple) else [given]


Counts = Annotated[
    tuple[CountSettings, ...],
    BeforeValidator(_listed, json_schema_input_type=CountSettings | list[CountSettings]),
]
"""One count, or a list of them that add up."""


class ProcessSettings(Settings):
    """Statistics and limits of one tag."""

    tag: TagName
    limits: dict[str, float] = {}


class MachineSettings(Settings):
    """One machine: where its state and counts come from, and what is computed."""

    area: Name
    line: Name
    state: StateSettings
    counts: dict[Literal["produced", "good", "scrap", "rework"], Counts] = Field(min_length=1)
    """Of produced, good and scrap, up to two; the third follows. A list of counts adds up."""
    planned_run_time_per_item: Period | None = None
    short_stop: Duration = parse_duration("1 min")
    """A stop shorter than this is a short stop."""
    short_stop_counts_as: Literal["availability", "effectiveness"] = "availability"
    setup_counts_as: Literal["availability_loss", "outside_planned_time"] = "availability_loss"
    idle_counts_as: Literal["availability_loss", "outside_planned_time"] = "availability_loss"
    planned_stop_counts_as: Literal["availability_loss", "outside_planned_time"] = "outside_planned_time"
    when_offline: Literal["unknown", "down", "delay", "idle", "planned_stop"] = "unknown"
    """What it means for this machine that its device went offline."""
    settle: Duration = parse_duration("5 s")
    """A window closes this long after its end."""
    reason: ReasonSettings | None = None
    product: ProductSettings | None = None
    job: JobSettings | None = None
    goal: Rate | None = None
    """What the line should make, which is less than the planned rate."""
    summarize: tuple[Window, ...] = Field(default=("1h",), min_length=1)
    process: dict[Name, ProcessSettings] = {}

    @property
    def counted(self) -> tuple[CountSettings, ...]:
        """The counts of what is made: produced, else good."""
        return self.counts.get("produced") or self.counts["good"]

    @property
    def label_tags(self) -> tuple[str, ...]:
        """The tags that say reason, product and job, with what belongs to the job, each once."""
        given = [part.tag for part in (self.reason, self.product, self.job) if part is not None]
        if self.job is not None:
            given += [self.job.operation, self.job.planned_quantity, *self.job.fields.values()]
        return tuple(dict.fromkeys(tag for tag in given if tag is not None))

    @property
    def product_run_times_ns(self) -> Mapping[str, int]:
        """The planned run times per item that products have of their own, in ns."""
        return {} if self.product is None else self.product.planned_run_time_per_item

    @property
    def shortest_run_time_ns(self) -> int | None:
        """The least planned run time per item of the machine and of all its products, in ns; None without any."""
        own = self.planned_run_time_per_item
        return min((*self.product_run_times_ns.values(), *(() if own is None else (own,))), default=None)

    @property
    def stopped_after_ns(self) -> int | None:
        """So long without an item is a stop, in ns, where the state comes from the count.

        With the machine's planned run time; where only products have one, with the longest of theirs.
        """
        longest = max(self.product_run_times_ns.values(), default=None)
        run_time_ns = longest if self.planned_run_time_per_item is None else self.planned_run_time_per_item
        return None if run_time_ns is None else self.stopped_after(run_time_ns)

    def stopped_after(self, run_time_ns: int) -> int | None:
        """So long without an item is a stop at this planned run time, in ns, where the state comes from the count.

        A step stands for `items_per_count` items, and takes as many planned run times.
        """
        if self.state.from_count is None:
            return None
        cycle_ns = run_time_ns * max(count.items_per_count for count in self.counted)
        return int(Fraction(str(self.state.from_count.stopped_after)) * cycle_ns)

    @model_validator(mode="after")
    def _counts_agree(self) -> MachineSettings:
        if {"produced", "good", "scrap"} <= self.counts.keys():
            raise ValueError("counts: of produced, good and scrap give two; the third follows from them")
        if not self.counts.keys() & {"produced", "good"}:
            raise ValueError("counts: give produced or good")
        if self.state.from_count is not None and self.shortest_run_time_ns is None:
            raise ValueError(
                "state.from_count: needs the machine's planned_run_time_per_item, such as 2.4 s, or its products'"
            )
        tags: set[str] = set()
        for name, place, count in (
            (name, f"counts.{name}.{number}", count)
            for name, several in self.counts.items()
            for number, count in enumerate(several)
        ):
            if count.kind == "counter" and count.max_rate is None and self.shortest_run_time_ns is None:
                raise ValueError(
                    f"{place}: a counter needs max_rate, such as 2 /s, or the machine or its products "
                    "planned_run_time_per_item"
                )
            if count.tag in tags:
                raise ValueError(f"{place}.tag: {count.tag} is counted twice; each tag counts once")
            if count.reason and name not in ("scrap", "rework"):
                raise ValueError(f"{place}.reason: only scrap and rework have reasons; remove it")
            tags.add(count.tag)
        return self
