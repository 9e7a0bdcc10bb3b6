"""The address space of a server as people see it: names, types, units, values, and addresses ready to paste."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.contract import Browsed, ConfigError, Quality, Tag
from edge_agent_opcua.address import Identifier, address_text, parse_address
from edge_agent_opcua.session import NodeId, Session, ua
from edge_agent_opcua.settings import OpcuaTagSettings
from edge_agent_opcua.units import ucum
from edge_agent_opcua.values import readings_of, status_name
from edge_agent_opcua.wire import TYPE_NAMES, DataValue, NodeName

_OBJECTS, _SERVER = 85, 2253
_HIERARCHICAL, _HAS_PROPERTY = 33, 46
_READ_HISTORY = 0x04
_REFERENCES_PER_CALL = 1_000
_MAX_PAGES = 1_000
_ENUMERATION = 29
_OWN_TYPES = {26: "Number", 27: "Integer", 28: "UInteger", _ENUMERATION: "Enumeration", 290: "Duration", 294: "UtcTime"}


@dataclass(frozen=True)
class _Child:
    """A reference to a node: what the browse itself tells of it."""

    node: NodeId
    name: str
    is_variable: bool
    is_property: bool


async def browse(session: Session, start: str | None, depth: int, limit: int) -> AsyncGenerator[Browsed, None]:
    """What lies below an address, or below Objects; the server's own object aside."""
    browser = _Browser(session)
    root = ua.NodeId(_OBJECTS, 0) if start is None else _start(session, start)
    seen = {root, ua.NodeId(_SERVER, 0)}
    stack: list[tuple[int, _Child, Browsed]] = []
    children = await browser.children(root)
    if start is not None and root in browser.causes:
        raise ConfigError(f"{start}: {browser.causes[root]}")
    stack += reversed([(0, child, shown) for child, shown in await browser.shown(children, 0)])
    count = 0
    while stack:
        level, child, shown = stack.pop()
        if child.node in seen:
            continue
        seen.add(child.node)
        if count >= limit:
            yield Browsed(level, "…", None, cause=f"more than {limit} things: see --limit, or begin further down")
            return
        count += 1
        below = await browser.children(child.node) if level + 1 < depth or child.is_variable else None
        if child.is_variable and below:
            shown = shown._replace(unit=await browser.unit(below))
        visible = [each for each in below or () if not each.is_property and each.node not in seen]
        if below is None or (level + 1 >= depth and visible):
            shown = shown._replace(cause=shown.cause or f"not looked into: --depth {depth}")
            visible = []
        yield shown._replace(cause=shown.cause or browser.causes.get(child.node))
        stack += reversed([(level + 1, each, its) for each, its in await browser.shown(visible, level + 1)])


def _start(session: Session, start: str) -> NodeId:
    try:
        node = session.node_id(parse_address(start))
    except ValueError as error:
        raise ConfigError(f"{start}: {error}") from error
    if node is None:
        raise ConfigError(f"{start}: the server has no such namespace; it has: {', '.join(session.namespaces)}")
    return node


class _Browser:
    """Reads references and attributes of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._types: dict[NodeId, str] = {}
        self.causes: dict[NodeId, str] = {}
        """Why what is below a node is not shown, or not all of it."""

    async def children(self, node: NodeId) -> list[_Child]:
        """What a node refers to downwards, all of it.

        Raises:
            NotConnected: the link is lost.
        """
        wanted = ua.BrowseDescription()
        wanted.NodeId = node
        wanted.BrowseDirection = ua.BrowseDirection.Forward
        wanted.ReferenceTypeId = ua.NodeId(_HIERARCHICAL, 0)
        wanted.IncludeSubtypes = True
        wanted.NodeClassMask = int(ua.NodeClass.Object | ua.NodeClass.Variable)
        wanted.ResultMask = int(ua.BrowseResultMask.All)
        params = ua.BrowseParameters(RequestedMaxReferencesPerNode=_REFERENCES_PER_CALL, NodesToBrowse=[wanted])
        async with self._session.step("browsing"):
            (result,) = await self._session.services.browse(params)
        found = list(result.References or ())
        pages = 0
        while result.ContinuationPoint:
            pages += 1
            enough = pages == _MAX_PAGES
            again = ua.BrowseNextParameters(
                ReleaseContinuationPoints=enough, ContinuationPoints=[result.ContinuationPoint]
            )
            async with self._session.step("browsing on"):
                results = await self._session.services.browse_next(again)
                if enough:  # a server that only releases what it kept may answer with no results
                    self.causes[node] = f"more than {_MAX_PAGES} pages of things"
                    break
                (result,) = results
            found += result.References or ()
        if not result.StatusCode.is_good():
            self.causes[node] = status_name(result.StatusCode.value)
        return [child for child in map(_child, found) if child is not None]

    async def shown(self, children: Sequence[_Child], level: int) -> list[tuple[_Child, Browsed]]:
        """The children as people see them, variables with type and value."""
        nodes = [child.node for child in children if child.is_variable]
        attributes = (ua.AttributeIds.Value, ua.AttributeIds.DataType, ua.AttributeIds.ValueRank,
                      ua.AttributeIds.ArrayDimensions, ua.AttributeIds.UserAccessLevel)  # fmt: skip
        read = [await self._session.read(nodes, attribute) for attribute in attributes] if nodes else []
        facts = iter(zip(*read, strict=True))
        return [
            (child, await self._variable(child, level, next(facts)))
            if child.is_variable
            else (child, Browsed(level, child.name, None))
            for child in children
            if not child.is_property
        ]

    async def _variable(self, child: _Child, level: int, facts: tuple[DataValue, ...]) -> Browsed:
        value, data_type, rank, dimensions, access = facts
        if child.node.NamespaceIndex >= len(self._session.namespaces):
            cause = f"the server's NamespaceArray has no entry {child.node.NamespaceIndex}"
            return Browsed(level, child.name, None, quality=Quality.BAD, cause=cause)
        address = address_text(self._session.namespaces[child.node.NamespaceIndex], _identifier(child.node))
        (*_, reading) = readings_of(_nobody(address), value)
        return Browsed(
            level,
            child.name,
            address,
            await self._type(data_type.value) + _array(rank.value, dimensions.value),
            None,
            reading.value,
            reading.quality,
            reading.cause if reading.quality is Quality.BAD else None,
            bool(isinstance(access.value, int) and access.value & _READ_HISTORY),
        )

    async def _type(self, data_type: Any) -> str:
        """The name of a data type; read from the server where it is not a built-in one."""
        if not isinstance(data_type, NodeName):
            return "?"
        if data_type.index == 0 and isinstance(data_type.identifier, int):
            if data_type.identifier < len(TYPE_NAMES):
                return TYPE_NAMES[data_type.identifier]
            if data_type.identifier in _OWN_TYPES:
                return _OWN_TYPES[data_type.identifier]
        node = ua.NodeId(data_type.identifier, data_type.index)
        if node not in self._types:
            (name,) = await self._session.read([node], ua.AttributeIds.DisplayName)
            self._types[node] = str(name.value) if isinstance(name.value, str) else "?"
        return self._types[node]

    async def unit(self, properties: Sequence[_Child]) -> str | None:
        """The engineering unit among a variable's properties."""
        for one in properties:
            if one.is_property and one.name == "EngineeringUnits":
                async with self._session.step("reading a unit"):
                    (value,) = await self._session.services.read_attributes([one.node], ua.AttributeIds.Value)
                unit = value.Value.Value if value.Value is not None else None
                if isinstance(unit, ua.EUInformation):
                    return ucum(unit.UnitId, unit.DisplayName.Text if unit.DisplayName else None)
        return None


def _child(reference: Any) -> _Child | None:
    """None for a node of another server."""
    target = reference.NodeId
    if getattr(target, "ServerIndex", 0):
        return None
    name = reference.DisplayName.Text or reference.BrowseName.Name or "?"
    is_property = reference.ReferenceTypeId == ua.NodeId(_HAS_PROPERTY, 0)
    if is_property:
        name = reference.BrowseName.Name
    node = ua.NodeId(target.Identifier, target.NamespaceIndex)
    return _Child(node, str(name), reference.NodeClass == ua.NodeClass.Variable, is_property)


def _array(rank: Any, dimensions: Any) -> str:
    if not isinstance(rank, int) or rank < 1:
        return ""
    known = isinstance(dimensions, tuple) and len(dimensions) == rank and all(dimensions)
    return f"[{', '.join(map(str, dimensions))}]" if known else f"[{',' * (rank - 1)}]"


def _identifier(node: NodeId) -> Identifier:
    identifier: Identifier = node.Identifier
    return identifier


def _nobody(address: str) -> Tag:
    """A tag for what is only looked at."""
    return Tag("browse.value", OpcuaTagSettings.model_construct(address=address), 0)
