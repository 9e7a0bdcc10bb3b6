"""Faults: every mistake at once, each at its line and column, with its cure, and never a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_driver import AGENT, DEVICE, MACHINE, OPENED, REGISTRY, lines, loaded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_agent.config import Fault, Place, load
from edge_agent.config.faults import closest

CASES = Path(__file__).parent / "cases"
SECRET = "hunter2-of-the-broker"


def _device(line: str) -> str:
    return DEVICE.replace("    tags:\n", f"    {line}\n    tags:\n")


def _tag(line: str) -> str:
    return DEVICE.replace("{address: 1}", line)


def test_bad_configuration_shows_every_fault_at_once_in_order() -> None:
    case = CASES / "bad_configuration"
    configuration = load(case / "config", REGISTRY)
    assert lines(configuration) == (case / "expected.txt").read_text(encoding="utf-8").splitlines()
    assert list(configuration.devices) == ["good"]
    assert configuration.machines == {}
    assert configuration.fatal
    assert OPENED == []


def test_fault_is_one_line_with_place_and_cure() -> None:
    fault = Fault(
        Place("a.yaml", 3, 7),
        "this word is not known",
        ("machines", "m", "list", 2),
        found="dwn\n\x1b[31m" + "x" * 100,
        allowed=("down", "delay"),
        suggestion="down",
    )
    assert str(fault) == (
        f"a.yaml:3:7: error: machines.m.list[2]: this word is not known; found 'dwn\\n\\x1b[31m{'x' * 50}…'; "
        "allowed: down, delay; did you mean 'down'?"
    )


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (_device("slto: 2"), "5:5", "devices.press.slto: this key is not known; allowed: driver,"),
        (_device("slto: 2"), "5:5", "did you mean 'slot'?"),
        (_device("slot: two"), "5:11", "slot: expected a whole number; found 'two'"),
        (_device("slot: 2.5"), "5:11", "slot: expected a whole number; found '2.5'"),
        (_device("slot: 12"), "5:11", "slot: must be at most 9; found '12'"),
        (_device("slot:"), "5:5", "slot: is empty; expected a whole number"),
        (_device("slot: [1]"), "5:11", "slot: expected a whole number, not a list"),
        (_device("enabled: maybe"), "5:14", "enabled: expected true or false; found 'maybe'"),
        (_device("line: 9600"), "5:11", "line: expected keys with values below this; found '9600'"),
        (_device("line: {parity: even}"), "5:20", "not known; found 'even'; allowed: N, E, O"),
        (_device("line: {parity: even}"), "5:20", "did you mean 'E'?"),
        (_device("poll: 500"), "5:11", "poll: a duration is a number and its unit, such as 500 ms"),
        (_device("poll: 5 sec"), "5:11", "did you mean '5 s'?"),
        (_device("poll: 0 s"), "5:11", "poll: must be more than zero; found '0 s'"),
        (_tag("{adress: 1}"), "6:15", "did you mean 'address'?"),
        (_tag("{adress: 1}"), "6:7", "count: the key `address` is missing: The pin"),
        (_tag('{address: "x1"}'), "6:24", "address: expected a whole number; found 'x1'"),
        (_tag("{address: 100}"), "6:15", "address: the bench has pins up to 99"),
        (_tag("{address: 13}"), "6:7", "tags.count: there is no pin 13"),
        (_tag("{address: 666}"), "6:7", "the driver cannot check these settings (TypeError)"),
        (_tag("{address: 1, scale: 0,1}"), "6:36", "write a decimal point, such as 0.1"),
        (_tag("{address: 1, scale: '0,1'}"), "6:34", "expected a number; found '0,1'; did you mean '0.1'?"),
        (_tag("{address: 1, store: allways}"), "6:34", "allowed: change, every"),
        (_tag("1"), "6:14", "expected keys with values below this, not a single value"),
        (DEVICE.replace("press:", "press.1:"), "2:3", "a name has letters, digits, _ and -, at most 64"),
        (DEVICE.replace("count:", "co unt:"), "6:7", "did you mean 'co-unt'?"),
        (DEVICE.replace("status:", "Count:"), "7:7", "differs from 'count' at "),
        (DEVICE.replace("driver: bench", "driver: bensch"), "3:13", "found 'bensch'; allowed: absent, bench"),
        (DEVICE.replace("driver: bench", "driver: bensch"), "3:13", "did you mean 'bench'?"),
        (DEVICE.replace("driver: bench", "driver: absent"), "3:13", "cannot be imported: No module named"),
        (DEVICE.replace("    driver: bench\n", ""), "2:3", "the key `driver` is missing; allowed: absent, bench"),
        (DEVICE.replace("driver:", "drvier:"), "2:3", "the key `driver` is missing; is it the key 'drvier';"),
        (DEVICE[: DEVICE.index("    tags:")], "2:3", "a device needs `tags`: names, each with its address"),
        (DEVICE[: DEVICE.index("      count:")], "5:5", "a device needs `tags`"),
    ],
)  # fmt: skip
def test_mistake_in_a_device_is_a_fault_at_its_place_and_disables_it(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    configuration = loaded(tmp_path, agent=AGENT, d=text, e=DEVICE.replace("press", "other").replace("//1", "//2"))
    assert list(configuration.devices) == ["other"]
    assert len(configuration.disabled) == 1
    assert not configuration.fatal
    assert any(line.startswith(f"d.yaml:{place}: error: devices.") and words in line for line in lines(configuration))


def test_devices_that_share_a_link_and_do_not_agree_leave_the_first_running(tmp_path: Path) -> None:
    second, third = (DEVICE.replace("press", name) for name in ("saw", "mill"))
    configuration = loaded(tmp_path, agent=AGENT, a=DEVICE, b=second, c=third.replace("url", "slot: 2\n    url"))
    assert list(configuration.devices) == ["press", "mill"]
    assert lines(configuration) == ["b.yaml:2:3: error: devices.saw: press and saw are in one slot"]


def test_number_where_text_is_meant_is_taken_as_it_is_written(tmp_path: Path) -> None:
    text = _device("label: 0012").replace("press", "4711")
    configuration = loaded(tmp_path, agent=AGENT, d=text)
    assert configuration.faults == ()
    assert configuration.devices["4711"].settings.label == "0012"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "broken",
    [
        f"password: {SECRET}\n    slto: 1",
        f"password: [{SECRET}]",
        f"password: {{{SECRET}: x}}",
        f"password: {{literal: {SECRET}}}",
        f"password: {{file: x, {SECRET}: y}}",
        f"pasword: {SECRET}",
        f"password {SECRET}",
        f"password: !{SECRET}",
        f"password: *{SECRET}",
        f'password: "{SECRET}',
        f"password: {{env: {SECRET}}}",
        f"label: [password, {SECRET}]",
        f"line: password={SECRET}",
        f"password: {SECRET}\n    line: {SECRET}",
        f"poll: bench://user:{SECRET}@host",
    ],
)
def test_secret_is_in_no_fault_and_not_in_the_document(tmp_path: Path, broken: str) -> None:
    configuration = loaded(tmp_path, agent=AGENT, d=_device(broken))
    assert configuration.faults
    assert SECRET not in "\n".join(lines(configuration))
    if "label" not in broken and "line" not in broken and "env" not in broken:
        assert SECRET not in configuration.document


def test_secret_of_the_broker_is_a_warning_and_redacted(tmp_path: Path) -> None:
    text = AGENT.replace("localhost}", f"localhost, username: bob, password: {SECRET}}}")
    configuration = loaded(tmp_path, agent=text)
    (line,) = lines(configuration)
    assert line.startswith("agent.yaml:2:56: warning: mqtt.password: the secret stands in this file; better {file: …}")
    assert configuration.mqtt is not None
    assert configuration.mqtt.password is not None
    assert configuration.mqtt.password.resolve() == SECRET
    assert SECRET not in configuration.document
    assert SECRET not in repr(configuration)
    assert not configuration.errors


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("{credential: mqtt}", "the credential 'mqtt' exists only inside the systemd unit; it must be there when"),
        ("{env: NO_SUCH_VARIABLE_HERE}", "the environment variable NO_SUCH_VARIABLE_HERE is not set"),
        ("{file: /no/such/file}", "the secret in /no/such/file cannot be read"),
        ('{file: "\\0"}', "expected a path"),
    ],
)
def test_secret_that_is_not_here_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, words: str
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    configuration = loaded(tmp_path, agent=AGENT.replace("localhost}", f"localhost, password: {reference}}}"))
    (line,) = lines(configuration)
    assert line.startswith("agent.yaml:2:41: warning: mqtt.password: ")
    assert words in line


def test_secret_in_a_file_that_everyone_may_read_is_a_warning(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    text = AGENT.replace("localhost}", f"localhost, password: {{file: {secret}}}}}")
    assert "may be read by everyone" in lines(loaded(tmp_path, agent=text))[0]
    secret.chmod(0o600)
    assert loaded(tmp_path, agent=text).faults == ()


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("hodling", "holding"),
        ("timzone", "timezone"),
        ("Sumarize", "summarize"),
        ("word-order", "word_order"),
        ("xyz", None),
    ],
)
def test_suggestion_is_the_word_that_was_meant_or_none(text: str, near: str | None) -> None:
    assert closest(text, ["holding", "timezone", "summarize", "word_order", "unit"]) == near


SNIPPETS = [
    "", "\t", ":", ": ", "{", "}", "[", "]", ",", "- ", "\n", '"', "'", "#", "&a ", "*a", "!t ", "|", ">", "?", "null",
    "1e999", ".nan", "true", "---\n", "%", "\\", '"\\ud800"', '"\\UFFFFFFFF"', "\0", "\ufeff", "é", "😀", "0" * 5000,
]  # fmt: skip
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.integers(0, 12),
        st.one_of(
            st.sampled_from(SNIPPETS),
            st.text(max_size=6),
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutations=MUTATIONS)
def test_any_mutation_of_good_files_gives_faults_and_never_raises(
    tmp_path: Path, mutations: list[tuple[int, int, str]]
) -> None:
    text = AGENT + DEVICE + MACHINE
    for at, cut, insert in mutations:
        at %= len(text) + 1
        text = text[:at] + insert + text[at + cut :]
    (tmp_path / "all.yaml").write_bytes(text.encode("utf-8", "replace"))
    configuration = load(tmp_path, REGISTRY)
    for fault in configuration.faults:
        assert "\n" not in str(fault)
        assert fault.place.line <= text.count("\n") + 1
    assert configuration.fatal or configuration.agent is not None
    assert set(configuration.disabled).isdisjoint(f"devices.{name}" for name in configuration.devices)
    assert set(configuration.disabled).isdisjoint(f"machines.{name}" for name in configuration.machines)


def test_store_without_room_to_work_in_is_a_fault(tmp_path: Path) -> None:
    assert not loaded(tmp_path, agent=AGENT + "buffer: {max_size: 10 MB}\n").fatal
    (fault,) = lines(loaded(tmp_path, agent=AGENT + "buffer: {max_size: 9 MB}\n"))
    assert "buffer.max_size: must be at least 10 MB" in fault
    assert "found '9 MB'" in fault
