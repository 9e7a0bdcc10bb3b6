"""OPC UA: values of a server's nodes, by subscription or polled.

Addresses name a node by the URI of its namespace, because the index of a namespace is only valid for one session:

    zone1: {address: "nsu=http://acme.example/oven;s=Zone1.Temp", unit: Cel}
    count: {address: "nsu=http://acme.example/oven;i=2001", sampling: 100 ms}
    clock: {address: "i=2258", mode: read}

`s=` is a text, `i=` a number, `g=` a GUID, `b=` base64; in the URI `%3B` stands for `;` and `%25` for `%`. A node of
namespace 0, which is OPC UA's own, needs no URI. After every connect the URIs are looked up in the server's
NamespaceArray: a namespace or node that is gone is BAD with BadNodeIdUnknown, and never another node's value.

The device's `poll` is the publishing interval (5 s at most; slower tags are sampled slower), a tag's `sampling` is how
often the server looks at it, its `poll` unless given. The server keeps `queue` values, four times those of a publishing
interval unless given; what it has to drop is a BAD reading with the cause `overflow`. With `server_deadband: 0.5`, or
`"2 %"` of the node's EURange, it does not report smaller changes. Where it refuses an item, the tag is BAD with the
status' name, the others go on, and the item is asked for again every minute.

The time of a reading is the source's, else the server's. Values: Boolean, integers, floats, String, ByteString; an
enumeration is its number; Guid, LocalizedText, QualifiedName, XmlElement, NodeId and StatusCode are texts, DateTime one
in RFC 3339; arrays of all these but ByteString. All else, such as structures and matrices, is BAD with
`unsupported_type` and the type's name, a null value BAD with `no_value`.

History: where the server keeps one of a node (its UserAccessLevel says so), the gap that an outage left is read from
it, unless the tag has `history: never`. A value holds between two recorded ones only where the node is Historizing and
the server was started before the outage began.

Commissioning: `edge-agent browse opc.tcp://…` shows what a server has; `--yaml` prints tags to paste.

Security: exactly the policy and mode of `security`, or `none`, said out loud; see docs/opcua.md for certificates.

The server must speak OPC UA binary over TCP and offer the
services Read and, for tags that are not `mode: read`, subscriptions with data changes. Chunks of at most 4 MiB and
messages of at most 32 MiB are accepted.

Tested against the servers of asyncua 2.1 and node-opcua 2.140. Quirks:
- A server that revises the publishing interval makes keep-alives rarer; silence is judged by what it revised.
- A node that appears after the connect is found within a minute; one in a new namespace at the next connect.
- A notification that the server counted and did not deliver is asked for again (Republish, 20 at most); where that
  fails the link is opened anew, and the gap is written down.
- After a lost link the values that the server had queued are gone, unless it has a history; the stream begins again
  with the present ones.
- Servers that cut a history at the number that was asked for, without a continuation point, are asked on from there.
"""

from edge_agent_opcua.driver import OpcuaDriver

__all__ = ["OpcuaDriver"]
