"""The address of a node as people write it: by the URI of its namespace, never by the index of one session."""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from dataclasses import dataclass

OWN_NAMESPACE = "http://opcfoundation.org/UA/"
MAX_UINT32 = 2**32 - 1
_EXAMPLES = "such as nsu=http://acme.example/oven;s=Zone1.Temp, nsu=…;i=2001, or i=2258 of namespace 0"
_INDEX = re.compile(r"ns=(\d+);")
_ESCAPED = re.compile(r"%(25|3[Bb])")

Identifier = int | str | uuid.UUID | bytes


@dataclass(frozen=True, slots=True)
class Address:
    """A node by the URI of its namespace and its identifier; without a URI: namespace 0, OPC UA's own."""

    namespace: str | None
    identifier: Identifier


def parse_address(text: str) -> Address:
    """The node that `nsu=<uri>;s=Name`, `;i=2001`, `;g=<guid>`, `;b=<base64>`, or `i=2258` of namespace 0 names.

    In the URI `%3B` stands for `;` and `%25` for `%`.

    Raises:
        ValueError: not such an address; the message says what to write.
    """
    if text.startswith("nsu="):
        uri, semicolon, rest = text[4:].partition(";")
        if not uri or not semicolon:
            raise ValueError(f"expected nsu=<uri>;<identifier>, {_EXAMPLES}")
        return Address(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), uri), _identifier(rest))
    if index := _INDEX.match(text):
        if int(index[1]) != 0:
            raise ValueError(
                f"ns={index[1]} is an index that is only valid within one session: after a restart of the server it "
                "may name another machine. Write the namespace's URI instead, nsu=<uri>;…: it is entry "
                f"{index[1]}, counted from 0, of the server's NamespaceArray (node i=2255)"
            )
        text = text[index.end() :]
    if text.startswith(("svr=", "svu=")):
        raise ValueError("a node of another server is not reached through this one: make that server a device")
    identifier = _identifier(text)
    if not isinstance(identifier, int):
        raise ValueError(f"the namespace is missing: write nsu=<uri>;{text}")
    return Address(None, identifier)


def address_text(namespace: str, identifier: Identifier) -> str:
    """An address as `parse_address` reads it; of a node of OPC UA's own namespace without the URI."""
    if isinstance(identifier, bytes):
        name = f"b={base64.b64encode(identifier).decode()}"
    else:
        name = f"{'i' if isinstance(identifier, int) else 's' if isinstance(identifier, str) else 'g'}={identifier}"
    if namespace == OWN_NAMESPACE and isinstance(identifier, int):
        return name
    uri = namespace.replace("%", "%25").replace(";", "%3B")
    return f"nsu={uri};{name}"


def _identifier(text: str) -> Identifier:
    kind, value = text[:2], text[2:]
    if kind == "s=" and value:
        return value
    if kind == "i=":
        if not (value.isascii() and value.isdigit()) or int(value) > MAX_UINT32:
            raise ValueError(f"i= takes a whole number from 0 to {MAX_UINT32}")
        return int(value)
    if kind == "g=":
        try:
            return uuid.UUID(value)
        except ValueError as error:
            raise ValueError("g= takes a GUID such as 72962b91-fa75-4ae6-8d28-b404dc7daf63") from error
    if kind == "b=" and value:
        try:
            return base64.b64decode(value, validate=True)
        except binascii.Error as error:
            raise ValueError("b= takes base64, such as M/RbKBsRVkePCePcx24oRA==") from error
    raise ValueError(f"no identifier: expected i=<number>, s=<text>, g=<guid> or b=<base64>, {_EXAMPLES}")
