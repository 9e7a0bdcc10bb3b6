"""What stands in YAML for a device and its tags: the models that a driver extends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator

from edge_agent.contract.errors import ConfigError
from edge_agent.contract.quantities import Duration, Period, parse_duration


class Settings(BaseModel):
    """The base of everything that stands in YAML: unknown keys are errors, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Secret(Settings):
    """A secret by reference: `{file: …}`, `{env: …}` or `{credential: …}` (a systemd credential).

    A literal string is accepted, and `edge-agent check` warns about it. The value is read when it is used, so that a
    rotated file is seen at the next connect, and it appears in no representation, log or error.
    """

    file: Path | None = None
    env: str | None = None
    credential: str | None = None
    literal: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_yaml(cls, given: Any) -> Any:
        if isinstance(given, str):
            return {"literal": given}
        if not isinstance(given, dict) or len(given) != 1 or "literal" in given:
            raise ValueError("a secret is one of {file: …}, {env: …} or {credential: …}")
        return given

    def resolve(self) -> str:
        """The secret itself, without the line feed that ends a file.

        Raises:
            ConfigError: the file, variable or credential is not there.
        """
        if self.literal is not None:
            return self.literal
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise ConfigError(f"the environment variable {self.env} is not set")
            return value
        try:
            return self.path().read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise ConfigError(f"the secret in {self.path()} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the secret in {self.path()} is not text in UTF-8") from error
        except ValueError as error:  # a NUL
            raise ConfigError(f"expected a path of a secret's file, not {str(self.path())!r}") from error

    def path(self) -> Path:
        """The file of a secret that is a file or a credential.

        Raises:
            ConfigError: it is neither, or there is no credentials directory outside the systemd unit.
        """
        if self.file is not None:
            return self.file
        if self.credential is None:
            raise ConfigError("this secret must be a {file: …} or a {credential: …}")
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise ConfigError(f"the credential {self.credential!r} exists only inside the systemd unit")
        return Path(directory) / self.credential

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__


class DeviceSettings(Settings):
    """What every device has. A driver adds its own fields in a subclass, `Driver.Settings`."""

    driver: str
    """The name of the driver, as `edge-agent drivers` lists it."""
    url: str
    """Where the device is reached, in the driver's own form."""
    poll: Period = parse_duration("1 s")
    """How often the tags are read; a tag may have its own."""
    max_skew: Duration = parse_duration("2 s")
    """How far the device's own time may be from the time of receipt before the time of receipt is used instead."""


class TagSettings(Settings):
    """What every tag has. A driver adds its own fields in a subclass, `Driver.TagSettings`."""

    address: Any
    """The place in the device, in the driver's own form."""
    type: str | None = None
    """The type of the value, in the driver's own words."""
    unit: str | None = None
    """The unit, as a UCUM code: `Cel`, `kPa`, `mm/s`, `kW.h`."""
    scale: float | None = None
    """The raw number is multiplied by this."""
    offset: float | None = None
    """This is added after scaling."""
    deadband: float | None = None
    """A change of no more than this, in scaled units, is not stored (the refresh still is)."""
    poll: Period | None = None
    """How often this tag is read; the device's `poll` unless given."""
    store: Literal["change", "every"] = "change"
    """`change`: a reading is stored when it changes, and every refresh. `every`: each one is stored (scanners)."""
