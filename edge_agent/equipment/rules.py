"""Machine state from rules on tags: a small grammar, parsed here and never evaluated as code.

    rule       = both ("or" both)*
    both       = negated ("and" negated)*
    negated    = "not" negated | "(" rule ")" | comparison
    comparison = operand [("<" | "<=" | ">" | ">=" | "==" | "!=") operand]
    operand    = device.tag | number | "true" | "false"

A tag alone is true when it is not 0. There is no arithmetic: that belongs into the device, or into the tag's scale.
A tag without a usable number is unknown, and unknown spreads by Kleene's logic: false and unknown is false, true or
unknown is true, everything else that needs it is unknown. What reads as a number is one: 1.5 is no tag 5 of a device 1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![A-Za-z0-9_.-])"
    r"|(?P<tag>[A-Za-z0-9][A-Za-z0-9_-]*\.[A-Za-z0-9][A-Za-z0-9_-]*)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_-]*)"
    r"|(?P<sign><=|>=|==|!=|<|>|\(|\)))"
)
_COMPARE: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], Truth]] = {
    "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal, "==": np.equal, "!=": np.not_equal,
}  # fmt: skip
_WORDS = ("and", "or", "not", "true", "false")
_DEEPEST = 32


class Signal(NamedTuple):
    """One tag over some spans: its number, and whether it has one; both of shape (spans,)."""

    number: NDArray[np.float64]
    known: Truth


class Kleene(NamedTuple):
    """What a rule says over some spans: true, and whether that is known; where it is not, `true` is False."""

    true: Truth
    known: Truth


Signals = Mapping[str, Signal]


@dataclass(frozen=True, slots=True)
class Operand:
    """A tag, or a number where `tag` is None."""

    tag: str | None
    number: float = 0.0

    def over(self, signals: Signals, spans: int) -> Signal:
        """The operand's number over the spans."""
        if self.tag is not None:
            return signals[self.tag]
        return Signal(np.full(spans, self.number), np.ones(spans, np.bool_))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two operands and the sign between them."""

    left: Operand
    sign: str
    right: Operand

    def over(self, signals: Signals, spans: int) -> Kleene:
        left, right = self.left.over(signals, spans), self.right.over(signals, spans)
        known = left.known & right.known
        return Kleene(_COMPARE[self.sign](left.number, right.number) & known, known)

    def tags(self) -> Iterator[str]:
        yield from (operand.tag for operand in (self.left, self.right) if operand.tag is not None)


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    part: Node

    def over(self, signals: Signals, spans: int) -> Kleene:
        true, known = self.part.over(signals, spans)
        return Kleene(known & ~true, known)

    def tags(self) -> Iterator[str]:
        yield from self.part.tags()


@dataclass(frozen=True, slots=True)
class All:
    """True when all parts are; false when one is false, whatever the others."""

    parts: tuple[Node, ...]

    def over(self, signals: Signals, spans: int) -> Kleene:
        found = [part.over(signals, spans) for part in self.parts]
        false = np.logical_or.reduce([part.known & ~part.true for part in found])
        true = np.logical_and.reduce([part.true for part in found])
        return Kleene(true, true | false)

    def tags(self) -> Iterator[str]:
        for part in self.parts:
            yield from part.tags()


@dataclass(frozen=True, slots=True)
class Any:
    """True when one part is, whatever the others; false when all are."""

    parts: tuple[Node, ...]

    def over(self, signals: Signals, spans: int) -> Kleene:
        found = [part.over(signals, spans) for part in self.parts]
        true = np.logical_or.reduce([part.true for part in found])
        false = np.logical_and.reduce([part.known & ~part.true for part in found])
        return Kleene(true, true | false)

    def tags(self) -> Iterator[str]:
        for part in self.parts:
            yield from part.tags()


Node = Comparison | Not | All | Any


@dataclass(frozen=True, slots=True)
class Rule:
    """A parsed rule. Equal texts give equal rules."""

    node: Node

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags that it needs, each once, in the order of the text."""
        return tuple(dict.fromkeys(self.node.tags()))

    def over(self, signals: Signals, spans: int) -> Kleene:
        """What the rule says over the spans; `signals` has every one of its tags."""
        return self.node.over(signals, spans)


def parse(text: str) -> Rule:
    """The rule that a text says.

    Raises:
        ValueError: it is no rule; the message has the place, what stands there, and what was expected.
    """
    return _Parser(text).rule()


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


def _tokens(text: str) -> list[_Token]:
    found, place = [], 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            start = place + len(text[place:]) - len(text[place:].lstrip())
            raise ValueError(f"at character {start + 1}: {text[start]!r} has no place in a rule; {_GRAMMAR}")
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        place = match.end()
    return found


_GRAMMAR = "allowed: device.tag, numbers, < <= > >= == !=, and, or, not, parentheses"


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._end = _Token("end", "the end", len(text))
        self._at = 0
        self._depth = 0

    def rule(self) -> Rule:
        if not self._tokens:
            raise ValueError(f"an empty rule; {_GRAMMAR}")
        node = self._either()
        if self._next.kind != "end":
            raise self._unexpected("and, or, or the end")
        return Rule(node)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else self._end

    def _take(self, *texts: str) -> str | None:
        token = self._next
        if token.kind in ("word", "sign") and token.text in texts:
            self._at += 1
            return token.text
        return None

    def _unexpected(self, expected: str) -> ValueError:
        token = self._next
        shown = token.text if token.kind == "end" else repr(token.text)
        return ValueError(f"at character {token.place + 1}: expected {expected}, found {shown}; {_GRAMMAR}")

    def _either(self) -> Node:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _both(self) -> Node:
        parts = [self._negated()]
        while self._take("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _negated(self) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"a rule is at most {_DEEPEST} levels deep")
        try:
            if self._take("not"):
                return Not(self._negated())
            if self._take("("):
                node = self._either()
                if not self._take(")"):
                    raise self._unexpected("a closing parenthesis")
                return node
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Node:
        left = self._operand()
        sign = self._take(*_COMPARE)
        if sign is None:
            return Comparison(left, "!=", Operand(None, 0.0))
        return Comparison(left, sign, self._operand())

    def _operand(self) -> Operand:
        token = self._next
        if token.kind == "tag":
            self._at += 1
            return Operand(token.text)
        if token.kind == "number":
            self._at += 1
            return Operand(None, float(token.text))
        if token.kind == "word" and token.text in ("true", "false"):
            self._at += 1
            return Operand(None, float(token.text == "true"))
        if token.kind == "word" and token.text not in _WORDS:
            raise ValueError(f"at character {token.place + 1}: {token.text!r} is no tag: write device.tag")
        raise self._unexpected("a tag or a number")


def tags_of(rules: Sequence[Rule]) -> tuple[str, ...]:
    """The tags that several rules need, each once."""
    return tuple(dict.fromkeys(tag for rule in rules for tag in rule.tags))
