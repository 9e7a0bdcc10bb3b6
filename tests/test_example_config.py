"""The example configuration in config/ is sound, fits the simulated plant, and shows every key that there is."""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from edge_agent.config import load, models
from edge_agent.contract import Quality, Secret, Settings
from edge_agent.registry import installed
from edge_agent.simulator.machine import ALARM_GUARD_OPEN, ALARM_LOW_PRESSURE, NS_PER_S, STATUS_CODES
from edge_agent.simulator.plant import OVEN, PACKING, PRESS, Plant
from edge_agent.simulator.serve import DEFAULT_MODBUS_PORT, DEFAULT_OPCUA_PORT, DEFAULT_SERIAL_DIR, serve
from edge_agent_modbus.settings import ModbusDevice, ModbusTag
from edge_agent_opcua.settings import OpcuaSettings, OpcuaTagSettings
from edge_agent_serial.settings import Frame, SerialSettings, SerialTagSettings

CONFIG = Path(__file__).parent.parent / "config"
TEXTS = {path.relative_to(CONFIG).as_posix(): path.read_text("utf-8") for path in sorted(CONFIG.rglob("*.yaml"))}
MODELS: list[type[BaseModel]] = [
    *(ModbusDevice, ModbusTag, OpcuaSettings, OpcuaTagSettings, SerialSettings, SerialTagSettings, Frame),
    *(
        model
        for model in vars(models).values()
        if isinstance(model, type) and issubclass(model, Settings) and model not in (Settings, Secret)
    ),
]
COMMENTED = re.compile(r"^ *# +(?P<key>[a-z_]+): (?P<value>\S.*)$", re.MULTILINE)


def _fields() -> dict[str, list[FieldInfo]]:
    fields: dict[str, list[FieldInfo]] = defaultdict(list)
    for model in MODELS:
        for name, field in model.model_fields.items():
            fields[field.alias or name].append(field)
    return fields


FIELDS = _fields()


def _commented() -> Iterator[tuple[str, str, str]]:
    """The keys that are switched off behind a #, with their values and the files they stand in."""
    for file, text in TEXTS.items():
        for match in COMMENTED.finditer(text):
            if match["key"] in FIELDS:
                yield file, match["key"], match["value"]


def test_example_loads_without_error_or_warning() -> None:
    configuration = load(CONFIG)
    assert [str(fault) for fault in configuration.faults] == []
    assert configuration.disabled == {}
    assert set(configuration.machines) == set(Plant(1).machines)


def test_example_gives_the_press_its_reasons_and_products() -> None:
    press = load(CONFIG).machines["press-01"]
    assert press.reason is not None
    assert press.reason.map is not None
    assert set(press.reason.map) == {ALARM_LOW_PRESSURE, ALARM_GUARD_OPEN}
    assert tuple(press.product_run_times_ns) == PRESS.recipes
    fastest_ns = PRESS.least_cycle_s * NS_PER_S
    assert all(0.95 * fastest_ns < run_time_ns <= fastest_ns for run_time_ns in press.product_run_times_ns.values())


def test_example_with_its_jobs_and_reasons_of_people_switched_on_is_sound(tmp_path: Path) -> None:
    for file, text in TEXTS.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(re.sub(r"^( +)# ((tree|planned_stop): )", r"\1\2", text, flags=re.MULTILINE))
    press = tmp_path / "machines" / "press-01.yaml"
    on, count = re.subn(r"^( +)# (job: .*planned_quantity)", r"\1\2", press.read_text(), flags=re.MULTILINE)
    assert count == 1
    press.write_text(re.sub(r"press-01-plc\.(order|step|lot_size)", "press-01-plc.recipe", on))
    configuration = load(tmp_path)
    assert [str(fault) for fault in configuration.faults] == []
    reason = configuration.machines["press-01"].reason
    assert reason is not None
    assert [name for name in reason.reasons if reason.is_planned(name)] == ["cleaning"]
    assert configuration.machines["press-01"].job is not None


def test_example_reads_the_plant_at_its_defaults() -> None:
    urls = {name: device.settings.url for name, device in load(CONFIG).devices.items()}
    assert urls == {
        "press-01-plc": f"tcp://127.0.0.1:{DEFAULT_MODBUS_PORT}",
        "oven-plc": f"opc.tcp://127.0.0.1:{DEFAULT_OPCUA_PORT}",
        "packing-counter": f"rtu://{DEFAULT_SERIAL_DIR}/counter?baud=19200&parity=N&stop=1",
        "packing-scale": f"{DEFAULT_SERIAL_DIR}/scale",
    }


async def test_example_read_by_the_drivers_shows_the_truth(tmp_path: Path) -> None:
    clock = iter((0, 100 * NS_PER_S))  # started, and frozen 100 s later
    plant = Plant(1, lambda: next(clock))
    async with serve(plant, modbus_port=0, opcua_port=0, serial_dir=tmp_path / "plant") as served:
        endpoints = served.endpoints
        plant.start()
        await served.freeze()
        values = {
            **await _read("press-01-plc", endpoints.press),
            **await _read("oven-plc", endpoints.oven),
            **await _read("packing-counter", f"rtu://{endpoints.counter}?parity=N"),
            **await _read("packing-scale", endpoints.scale),
        }
    for kind, produced, scrap in (
        (PRESS, "press-01-plc.part_count", "press-01-plc.rejects"),
        (OVEN, "oven-plc.trays", "oven-plc.rejects"),
        (PACKING, "packing-counter.boxes", "packing-counter.rejects"),
    ):
        made = plant.truth()["machines"][kind.name]
        assert values[produced] == kind.first_produced + made["produced"]
        assert values[scrap] == kind.first_scrap + made["scrap"]
    assert values["press-01-plc.recipe"] == plant.look("press-01").recipe
    assert (values["packing-scale.weight"], values["packing-scale.stable"]) == (0.0, True)
    statuses = {name: value for name, value in values.items() if name.endswith(".status")}
    assert set(statuses.values()) == {STATUS_CODES["idle"]}
    assert len(statuses) == 3


async def _read(name: str, url: str) -> dict[str, Any]:
    """What each tag of a device of the example says, the device being at this URL; all of it must be good."""
    example = load(CONFIG).devices[name]
    device = dataclasses.replace(example, settings=example.settings.model_copy(update={"url": url}))
    driver = installed().driver(example.settings.driver)([device])
    await driver.connect()
    try:
        readings = await driver.read(device, device.tags)
    finally:
        await driver.close()
    assert [reading for reading in readings if reading.quality is not Quality.GOOD] == []
    return {reading.tag.name: reading.value for reading in readings}


def test_example_schedules_every_hour_of_the_week() -> None:
    shifts = load(CONFIG).calendar.shifts.values()
    assert all(shift.days == "mon-sun" and not shift.breaks for shift in shifts)
    ends = {shift.from_: shift.to for shift in shifts}
    assert len(ends) == 3
    assert set(ends) == set(ends.values())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_example_shows_every_key_of(model: type[BaseModel]) -> None:
    text = "\n".join(TEXTS.values())
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert [key for key in keys if not re.search(rf"(^|[ {{]){key}:( |$)", text, re.MULTILINE)] == []


@pytest.mark.parametrize(("file", "key", "value"), list(_commented()), ids=lambda text: text.partition("  ")[0])
def test_example_commented_value_is_valid(file: str, key: str, value: str) -> None:
    given: Any = YAML(typ="safe", pure=True).load(f"{key}: {value}")[key]
    faults = []
    for field in FIELDS[key]:
        try:
            annotated: Any = Annotated[field.annotation, key, *field.metadata]
            TypeAdapter(annotated).validate_python(given)
        except ValidationError as error:
            faults.append(error)
        else:
            return
    pytest.fail(f"{file}: {key}: {value}: {faults}")


def test_example_commented_lines_were_found() -> None:
    assert len(list(_commented())) > 25
