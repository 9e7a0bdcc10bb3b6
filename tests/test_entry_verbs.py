"""`edge-agent entry` and `edge-agent device` against a running agent: what they print, and with which exit code."""

from __future__ import annotations

import io
import json
import os
import pwd
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from agreement import agree, whole_agrees
from brokers import free_port
from test_cli import CONFIG, HERE, Folder, has_read, until

from edge_agent import control
from edge_agent.cli import main
from edge_agent.timestamps import parse, rfc3339

Record = dict[str, Any]
ME = pwd.getpwuid(os.getuid()).pw_name
MORE = """    reason: {tree: [hydraulics/low pressure, guard open]}
    short_stop: 1 s
"""


def served(*settings: str) -> subprocess.Popen[str]:
    """A Modbus server of the machine; its first line names its port."""
    command = [sys.executable, str(HERE / "modbus_server.py"), "--counter", "100", *settings]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folder]:
    """A running agent with a machine that may be told things."""
    server = served("--set", "2=1", "--set", "3=421")
    assert server.stdout
    made = Folder(tmp_path_factory.mktemp("told"), int(server.stdout.readline().split()[1]))
    made.write(CONFIG.format(broker=free_port(), server=made_port(made)) + MORE)
    made.run_agent()
    until(lambda: has_read(made), "readings")
    yield made
    made.close()
    server.kill()
    server.communicate()


def made_port(folder: Folder) -> str:
    return (folder.config / "all.yaml").read_text().split("url: tcp://127.0.0.1:")[1].split("\n")[0]


def told(folder: Folder, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process, which is quicker, with what it prints and its exit code."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    command = ["edge-agent", *arguments[:place], "--config", str(folder.config), *arguments[place:]]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", command)
        patch.setenv("STATE_DIRECTORY", str(folder.data))
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def entered(folder: Folder, *arguments: str) -> Record:
    """What `edge-agent entry … --json` prints, which is what was published."""
    run = told(folder, "entry", arguments[0], "--json", *arguments[1:])
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    data: Record = json.loads(line)
    agree(data, "entry")
    listed = told(folder, "records", "--type", "entry", "--json").stdout.splitlines()
    (published,) = [event for event in (json.loads(one)["event"] for one in listed) if event["data"] == data]
    whole_agrees(published, "entry")
    return data


@pytest.mark.parametrize(
    ("arguments", "body", "by"),
    [
        (("reason", "press", " guard open ", "--from", "20 min", "--to", "10 min"), {"reason": "guard open"}, ME),
        (("scrap", "press", "12", "--reason", "size/ long", "--at", "1 min"), {"count": 12, "reason": "size/long"}, ME),
        (("rework", "press", "3", "--by", "ann"), {"count": 3}, "ann"),
        (("correction", "press", "--of", "scrap", "--", "-5"), {"count": -5, "quantity": "scrap"}, ME),
        (("planned-stop", "press", "--from", "2 h", "--for", "30 min"), {}, ME),
        (("planned-stop", "press", "--for", "1 h", "--reason", "guard open"), {"reason": "guard open"}, ME),
        (
            ("job-start", "press", "W", "--product", "A", "--quantity", "50", "--field", "customer=a=b", "--at", "1 s"),
            {"job": "W", "product": "A", "planned_quantity": 50, "fields": {"customer": "a=b"}},
            ME,
        ),
        (("job-end", "press"), {}, ME),
        (("counter-replaced", "press", "--value", "0"), {"tag": "plc.count", "value": 0}, ME),
        (("note", "press", "new seal — ça va"), {"text": "new seal — ça va"}, ME),
    ],
)  # fmt: skip
def test_entry_is_written_down_and_published_as_it_is_printed(
    folder: Folder, arguments: tuple[str, ...], body: Record, by: str
) -> None:
    data = entered(folder, *arguments)
    assert (data["kind"], data["machine"], data["body"], data["by"]) == (arguments[0], "press", body, by)
    assert (data["end"] is not None) == (arguments[0] in ("reason", "planned-stop"))


def test_entry_says_in_a_line_what_it_has_written_down_and_its_number_withdraws_it(folder: Folder) -> None:
    run = told(folder, "entry", "planned-stop", "press", "--from", "1 h", "--for", "10 min", "--by", "ann")
    assert run.returncode == 0
    said = run.stdout.split()
    assert run.stdout.startswith("press: entry ")
    assert (said[3:7], said[8], len(said)) == (["planned-stop", "by", "ann", "for"], "to", 10)
    number = said[2].rstrip(",")
    assert told(folder, "entry", "withdraw", number).stdout.startswith("press: entry ")
    again = told(folder, "entry", "withdraw", number)
    assert (again.returncode, again.stderr) == (1, f"edge-agent: entry {number} is withdrawn already\n")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("note", "pres", "x"), 1, "there is no machine 'pres'; did you mean 'press'?"),
        (("reason", "press", "gaurd open", "--from", "1 min"), 1, "did you mean 'guard open'?"),
        (("scrap", "press", "0"), 1, "0 is no number of items"),
        (("scrap", "press", "twelve"), 2, "integer"),
        (("scrap", "press", "1", "--at", "2099-01-01"), 1, "only a planned-stop may be said in advance"),
        (("scrap", "press", "1", "--at", "9999-12-31"), 1, "is no time from 1970 to 2262"),
        (("scrap", "press", "1", "--at", "90 d"), 1, "and what was before that is final"),
        (("scrap", "press", "1", "--at", "900000 d"), 1, "is no time from 1970 to 2262"),
        (("scrap", "press", "1", "--at", "soon"), 2, "2 h (ago) are"),
        (("planned-stop", "press", "--for", "2"), 2, "a duration is a number and its unit"),
        (("planned-stop", "press", "--for", "2 h", "--to", "1 h"), 2, "say the same; give one of them"),
        (("planned-stop", "press"), 1, "until when is it planned? give --to, or --for such as 2 h"),
        (("planned-stop", "press", "--to", "9999-12-31"), 1, "is no time from 1970 to 2262"),
        (("planned-stop", "press", "--to", "2200-01-01"), 1, "is the year right?"),
        (("job-start", "press", "W", "--field", "customer"), 2, "write name=value"),
        (("counter-replaced", "press", "--value", "99999999999999999999"), 1, "shows a whole number from 0 to"),
        (("withdraw", "99999999999999999999"), 1, "there is no entry 99999999999999999999"),
        (("note", "press", "x" * 70_000), 1, "edge-agent: that is too much to tell at once"),
        (("note", "press", "two\nlines"), 1, "text on one line, without control characters"),
    ],
)
def test_entry_that_is_refused_says_why_in_one_line(
    folder: Folder, arguments: tuple[str, ...], code: int, says: str
) -> None:
    run = told(folder, "entry", *arguments)
    said = " ".join(run.stderr.replace("│", " ").split())
    assert (run.returncode, run.stdout) == (code, ""), run.stderr
    assert says in said
    assert "Traceback" not in said
    assert code == 2 or len(run.stderr.splitlines()) == 1


def test_scrap_of_a_closed_window_is_its_next_revision_at_once(tmp_path: Path) -> None:
    server = served("--set", "2=1", "--set", "3=421")
    assert server.stdout
    fresh = Folder(tmp_path, int(server.stdout.readline().split()[1]))

    def windows() -> list[Record]:
        listed = told(fresh, "records", "--type", "production", "--json").stdout.splitlines()
        return [json.loads(one)["event"]["data"] for one in listed]

    try:
        fresh.run_agent()
        first = until(lambda: has_read(fresh) and windows(), "a record")[0]
        start, end = first["start"], first["end"]
        last = rfc3339(parse(end) - 1_000_000)
        assert told(fresh, "entry", "scrap", "press", "4", "--at", last).returncode == 0
        (revised,) = until(
            lambda: [one for one in windows() if one["revision"] and one["start"] == start], "a revision"
        )
        assert (revised["revised_because"], revised["quantity"]["scrap"]) == ("entry", 4)
        assert revised["previous"]["quantity"]["produced"] == revised["quantity"]["produced"]
    finally:
        fresh.close()
        server.kill()
        server.communicate()


@pytest.mark.parametrize(
    "arguments", [("entry", "note", "press", "x"), ("entry", "withdraw", "1"), ("device", "mute", "plc", "--for", "1h")]
)
def test_nothing_can_be_told_while_no_agent_runs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    idle = Folder(tmp_path, 1)
    run = told(idle, *arguments)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "edge-agent: gw1 does not run here; start it with `edge-agent run`\n"


def test_verbs_without_arguments_show_their_help(folder: Folder) -> None:
    for verb in ("entry", "device"):
        run = folder.verb(verb)
        assert "Usage: " in run.stdout + run.stderr


def test_every_entry_verb_has_help_with_an_example(folder: Folder) -> None:
    from edge_agent.cli.entry import device, entry

    for family, app in (("entry", entry), ("device", device)):
        for command in app.registered_commands:
            assert command.callback
            assert f"edge-agent {family} " in str(command.callback.__doc__), command.callback.__name__


# ------------------------------------------------------------------------------------------------- mute


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("plcc", "--for", "2 h"), 1, "no device 'plcc' in the running configuration; there are: plc"),
        (("plc", "--for", "2"), 2, "a duration is a number and its unit"),
        (("plc", "--for", "90 d"), 1, "at most 31 d at once"),
        (("plc", "--for", "9000000 d"), 1, "at most 31 d at once"),
        (("plc",), 2, "Missing option '--for'"),
    ],
)
def test_mute_that_is_refused_says_why(folder: Folder, arguments: tuple[str, ...], code: int, says: str) -> None:
    run = told(folder, "device", "mute", *arguments)
    assert run.returncode == code
    assert says in " ".join(run.stderr.split())


def test_mute_is_shown_and_ended(folder: Folder) -> None:
    run = told(folder, "device", "mute", "plc", "--for", "2 h", "--json")
    (said,) = [json.loads(line) for line in run.stdout.splitlines()]
    assert (said["device"], said["by"]) == ("plc", ME)
    assert f"plc is muted until {said['muted_until'][:19]}" in told(folder, "status").stdout
    assert told(folder, "device", "mute", "plc", "--for", "0 s").stdout == "plc: not muted any more\n"
    assert "muted" not in told(folder, "status").stdout


def test_mute_survives_a_restart_and_what_is_still_lost_at_its_end_is_said_once(tmp_path: Path) -> None:
    server = served("--set", "2=1", "--set", "3=421")
    assert server.stdout
    folder = Folder(tmp_path, int(server.stdout.readline().split()[1]))
    try:
        first = folder.run_agent()
        until(lambda: has_read(folder), "readings")
        assert told(folder, "device", "mute", "plc", "--for", "2 h").returncode == 0
        server.kill()
        until(lambda: folder.status()["devices"][0]["error"], "the device is lost")
        first.terminate()
        _, said = first.communicate()
        assert "plc: muted until" in said
        assert "plc: lost" not in said
        second = folder.run_agent()
        until(lambda: folder.status().get("devices", [{}])[0].get("error"), "the device is lost")
        assert "plc is muted until" in folder.ask("status").stdout
        list(control.ask(folder.data / "agent.sock", "mute", device="plc", for_ns=0))
        assert second.stderr
        late = threading.Timer(25, second.kill)
        late.start()
        seen = ""
        while "plc: lost" not in seen and (line := second.stderr.readline()):
            seen += line
        late.cancel()
        assert seen.count("plc: lost") == 1
        assert seen.index("plc: muted until") < seen.index("plc: lost")
    finally:
        folder.close()
        server.kill()
        server.communicate()
