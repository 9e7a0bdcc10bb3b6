"use strict";
// An OPC UA server for the tests. `node server.js --port 40001 --pki /tmp/pki` prints `endpoint opc.tcp://…` when it
// listens and ends with its stdin. Commands on stdin, one a line, each answered by `done`:
//   write Double 21.5 | status Double BadSensorFailure | delete Double | record 10 | stop
// Each namespace of --namespaces (in this order) has a String `Value` that names its own namespace; the first has one
// variable of each type, by the type's name; `Level` with a range and a unit; `Recorded`, an Int32 with history, of
// which `record N` writes the values 1 to N.
const { parseArgs } = require("node:util");
const readline = require("node:readline");
const opcua = require("node-opcua");

const { values: given } = parseArgs({
  options: {
    port: { type: "string" },
    pki: { type: "string" },
    namespaces: { type: "string", default: "urn:test:first,urn:test:second" },
    policies: { type: "string", default: "None" },
    modes: { type: "string", default: "None" },
    anonymous: { type: "boolean", default: true },
    "no-anonymous": { type: "boolean", default: false },
    user: { type: "string", default: "agent:secret" },
    "max-per-call": { type: "string", default: "0" },
    "accept-unknown": { type: "boolean", default: false },
  },
});
const limit = Number(given["max-per-call"]);
const [userName, password] = given.user.split(":");

let recordedAt = 0;  // a millisecond between one recorded value and the next
const SCALARS = {
  Boolean: true, SByte: -8, Byte: 8, Int16: -16, UInt16: 16, Int32: -32, UInt32: 32, Int64: [0xffffffff, 0xffffffc0],
  UInt64: [0, 64], Float: 1.5, Double: 2.25, String: "text", DateTime: new Date("2026-11-23T07:00:00.500Z"),
  Guid: "72962B91-FA75-4AE6-8D28-B404DC7DAF63", ByteString: Buffer.from([1, 2, 3]),
};

function variable(namespace, parent, name, dataType, value, more = {}) {
  return namespace.addVariable({
    componentOf: parent, browseName: name, nodeId: `s=${name}`, dataType,
    value: { dataType, arrayType: opcua.VariantArrayType.Scalar, value }, minimumSamplingInterval: 50, ...more,
  });
}

function build(addressSpace, uris) {
  const objects = addressSpace.rootFolder.objects;
  const nodes = {};
  for (const uri of uris) {
    const namespace = addressSpace.registerNamespace(uri);
    const plant = namespace.addObject({ organizedBy: objects, browseName: "Plant", nodeId: "s=Plant" });
    nodes[`${uri} Value`] = variable(namespace, plant, "Value", "String", uri);
    if (uri !== uris.find((one) => one.endsWith("first"))) continue;
    for (const [name, value] of Object.entries(SCALARS)) nodes[name] = variable(namespace, plant, name, name, value);
    nodes.LocalizedText = variable(namespace, plant, "LocalizedText", "LocalizedText",
      new opcua.LocalizedText({ locale: "en", text: "open" }));
    nodes.Numbers = namespace.addVariable({
      componentOf: plant, browseName: "Numbers", nodeId: "s=Numbers", dataType: "Double", valueRank: 1,
      arrayDimensions: [3],
      value: { dataType: "Double", arrayType: opcua.VariantArrayType.Array, value: new Float64Array([1, 2.5, -3]) },
    });
    const mode = namespace.addEnumerationType({ browseName: "Mode", enumeration: ["Off", "Manual", "Automatic"] });
    nodes.Mode = namespace.addVariable({
      componentOf: plant, browseName: "Mode", nodeId: "s=Mode", dataType: mode.nodeId,
      value: { dataType: "Int32", value: 2 },
    });
    nodes.Level = namespace.addAnalogDataItem({
      componentOf: plant, browseName: "Level", nodeId: "s=Level", dataType: "Double",
      engineeringUnitsRange: { low: 0, high: 200 }, engineeringUnits: opcua.standardUnits.degree_celsius,
      value: { dataType: "Double", value: 20 },
    });
    nodes.Recorded = variable(namespace, plant, "Recorded", "Int32", 0);
    recordedAt = Date.now();
    addressSpace.installHistoricalDataNode(nodes.Recorded, { maxOnlineValues: 100000 });
  }
  return nodes;
}

function obey(nodes, line) {
  const [verb, name, value] = line.trim().split(/\s+/);
  const node = nodes[name];
  if (verb === "write") {
    const { dataType } = node.readValue().value;
    const typed = dataType === opcua.DataType.String ? value : Number(value);
    node.setValueFromSource({ dataType, value: typed });
  } else if (verb === "status") {
    node.setValueFromSource(node.readValue().value, opcua.StatusCodes[value]);
  } else if (verb === "delete") {
    node.addressSpace.deleteNode(node.nodeId);
  } else if (verb === "record") {
    for (let n = 1; n <= Number(name); n++) {
      recordedAt += 1;
      nodes.Recorded.setValueFromSource({ dataType: "Int32", value: n }, opcua.StatusCodes.Good, new Date(recordedAt));
    }
  }
}

async function main() {
  const manager = new opcua.OPCUACertificateManager({
    rootFolder: given.pki, automaticallyAcceptUnknownCertificate: given["accept-unknown"],
  });
  await manager.initialize();
  const server = new opcua.OPCUAServer({
    port: Number(given.port), hostname: "127.0.0.1", alternateHostname: ["127.0.0.1", "localhost"],
    serverCertificateManager: manager, userCertificateManager: manager,
    allowAnonymous: !given["no-anonymous"],
    securityPolicies: given.policies.split(",").map((name) => opcua.SecurityPolicy[name]),
    securityModes: given.modes.split(",").map((name) => opcua.MessageSecurityMode[name]),
    userManager: { isValidUser: (user, secret) => user === userName && secret === password },
    serverCapabilities: limit ? { operationLimits: {
      maxNodesPerRead: limit, maxNodesPerBrowse: limit, maxMonitoredItemsPerCall: limit,
      maxNodesPerHistoryReadData: limit,
    } } : undefined,
  });
  await server.initialize();
  const nodes = build(server.engine.addressSpace, given.namespaces.split(","));
  await server.start();
  console.log(`endpoint opc.tcp://127.0.0.1:${given.port}`);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    if (line.trim() === "stop") break;
    obey(nodes, line);
    console.log("done");
  }
  await server.shutdown(100);
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
