#!/usr/bin/python3
"""The API over its real socket: docs/openapi.json is exactly what the daemon does, and HTTP's own corners.

    tests/api_test.py [NAME ...]      tests whose name contains one of these
"""
import concurrent.futures
import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time

import harness
import nvme_wire as wire
from harness import GIB, MIB, Gone, Refused, expect, new_id

OPENAPI = os.path.join(harness.ROOT, "docs", "openapi.json")


def openapi():
    with open(OPENAPI, encoding="utf-8") as file:
        return json.load(file)


def pool_option(directory):
    return ["--init-pool", f"{directory}/pool,{GIB}", "--nvme", "tcp:127.0.0.1:0"]


# ---- the file against the table of routes ------------------------------------------------------------------------------

METHODS = ("get", "post", "put", "patch", "delete")
TYPE_SCHEMAS = {
    "name": lambda s: s["type"] == "string" and "pattern" in s,
    "reference": lambda s: s["type"] == "string" and s["minLength"] == 1,
    "path": lambda s: s["type"] == "string" and s["maxLength"] == 255,
    "uuid": lambda s: s["type"] == "string" and s["format"] == "uuid",
    "bytes": lambda s: s["type"] == "integer" and s["minimum"] == 0 and "maximum" not in s,
    "block_size": lambda s: s["type"] == "integer" and s["enum"] == [512, 4096],
    "count": lambda s: s["type"] == "integer" and (s["minimum"], s["maximum"]) == (1, 10000),
    "wait": lambda s: s["type"] == "integer" and (s["minimum"], s["maximum"]) == (0, 300),
    "bool": lambda s: s["type"] == "boolean",
}


def server_routes():
    done = subprocess.run([harness.OXBOWD, "--routes"], capture_output=True, text=True, check=True)
    return {(r["method"].lower(), r["path"]): r for r in json.loads(done.stdout)}


def file_operations(document):
    return {(m, path): operation for path, item in document["paths"].items() for m, operation in item.items() if m in METHODS}


def body_schema(operation):
    if "requestBody" not in operation:
        return {"properties": {}, "required": []}
    return operation["requestBody"]["content"]["application/json"]["schema"]


def fields_differ(where, fields, described):
    """`described` is name -> (schema, required)."""
    expect({f["name"] for f in fields} == set(described), f"{where}: {sorted(described)} in the file")
    for field in fields:
        schema, required = described[field["name"]]
        expect(field["required"] == required, f"{where}: required of {field['name']}")
        expect(TYPE_SCHEMAS[field["type"]](schema), f"{where}: {field['name']} is {field['type']}, not {schema}")


def every_route_is_in_the_file_as_the_server_enforces_it_and_no_other():
    routes, operations = server_routes(), file_operations(openapi())
    expect(set(routes) == set(operations), f"routes differ: {set(routes) ^ set(operations)}")
    for key, route in routes.items():
        operation, where = operations[key], " ".join(key)
        parameters = operation.get("parameters", [])
        in_path = [p["name"] for p in parameters if p["in"] == "path"]
        expect(in_path == re.findall(r"{(\w+)}", key[1]), f"{where}: path parameters {in_path}")
        fields_differ(where, route["query"], {p["name"]: (p["schema"], p["required"]) for p in parameters if p["in"] == "query"})
        body = body_schema(operation)
        required = set(body.get("required", []))
        fields_differ(where, route["body"], {name: (s, name in required) for name, s in body["properties"].items()})
        if route["body"]:
            expect(body["additionalProperties"] is False, f"{where}: unknown fields are refused")
            expect(operation["requestBody"]["required"] == bool(required), f"{where}: requestBody.required")
        statuses = set(operation["responses"]) - {"default"}
        expect(statuses == set(route["statuses"].split()), f"{where}: statuses {sorted(statuses)}")


def every_reference_in_the_file_resolves_and_every_schema_is_used():
    document = openapi()
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        at = document
        for part in reference.split("/"):
            expect(part in at, f"#/{reference} is not there")
            at = at[part]
    for name in document["components"]["schemas"]:
        expect(f'#/components/schemas/{name}"' in text, f"nothing uses the schema {name}")
    ids = [o["operationId"] for o in file_operations(document).values()]
    expect(len(ids) == len(set(ids)), "an operationId twice")


# ---- answers against their schemas ---------------------------------------------------------------------------------------

class Checker:
    """Calls the API and holds each answer against the file. Remembers what was seen."""

    def __init__(self, api):
        self.api, self.document, self.seen = api, openapi(), set()
        self.patterns = [(m, path, re.compile("^" + re.sub(r"{\w+}", "[^/]+", path) + "$"))
                         for m, path in file_operations(self.document)]

    def resolve(self, schema):
        while "$ref" in schema:
            at = self.document
            for part in schema["$ref"][2:].split("/"):
                at = at[part]
            schema = at
        return schema

    def operation(self, method, target):
        path = target.partition("?")[0]
        matches = [p for m, p, pattern in self.patterns if m == method.lower() and pattern.match(path)]
        expect(matches, f"{method} {path} is not in the file")
        return min(matches, key=lambda p: p.count("{"))

    def call(self, method, target, body=None, status=200):
        """Returns the answer; the status must be the one given and in the file."""
        path = self.operation(method, target)
        try:
            found, answer = None, self.api.call(method, target, body)
        except Refused as no:
            found, answer = no.status, no.body
        responses = self.document["paths"][path][method.lower()]["responses"]
        expect((found or status) == status, f"{method} {target}: {found}, wanted {status}: {answer}")
        expect(str(status) in responses or status >= 400, f"{method} {path}: {status} is not in the file")
        self.seen.add((method.lower(), path, str(status)))
        response = self.resolve(responses.get(str(status), responses["default"]))
        for kind, content in response.get("content", {}).items():
            if kind == "application/json":
                self.match(answer, content["schema"], f"{method} {target}")
        return answer

    def match(self, value, schema, where):
        schema = self.resolve(schema)
        if value is None:
            expect(schema.get("nullable"), f"{where} is null")
            return
        kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
        expect(type(value) is kinds[schema["type"]], f"{where}: {value!r} is no {schema['type']}")
        if "enum" in schema:
            expect(value in schema["enum"], f"{where}: {value!r} is not one of {schema['enum']}")
        if schema.get("format") == "uuid":
            expect(re.match(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", value), f"{where}: {value!r} is no uuid")
        if schema.get("format") == "date-time":
            expect(re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", value), f"{where}: {value!r} is no time")
        for item in value if isinstance(value, list) else ():
            self.match(item, schema["items"], where + "[]")
        if isinstance(value, dict):
            self.match_object(value, schema, where)

    def match_object(self, value, schema, where):
        missing = set(schema.get("required", ())) - set(value)
        expect(not missing, f"{where}: {missing} missing")
        for key, member in value.items():
            if key in schema["properties"]:
                self.match(member, schema["properties"][key], f"{where}.{key}")
            else:
                expect(schema.get("additionalProperties"), f"{where}: {key} is not in the file")


def walk_daemon(check):
    for target in ("/v1/version", "/v1/health", "/v1/ready?wait=5", "/v1/stats", "/v1/events?limit=5", "/v1/pools",
                   "/v1/volumes", "/v1/snapshots", "/v1/jobs"):
        check.call("GET", target)
    expect("oxbow_ready 1" in check.call("GET", "/metrics")["text"], "no oxbow_ready in /metrics")


def walk_pools(check, directory):
    path, disk = os.path.join(directory, "second"), {"path": os.path.join(directory, "second")}
    body = {"name": "second", "path": path, "size_bytes": 64 * MIB, "id": new_id()}
    check.call("POST", "/v1/pools", {"name": "second", "path": path}, status=404)
    check.call("POST", "/v1/pools", body, status=201)
    check.call("POST", "/v1/pools", body)
    check.call("POST", "/v1/pools", {**body, "id": new_id()}, status=409)
    check.call("GET", "/v1/pools/second")
    check.call("GET", "/v1/pools/third", status=404)
    check.call("POST", "/v1/pools/second/grow", {"size_bytes": 128 * MIB})
    check.call("POST", "/v1/pools/third/grow", status=404)
    check.call("POST", "/v1/pools/second/check")
    check.call("POST", "/v1/pools/third/check", status=404)
    check.call("POST", "/v1/volumes", {"name": "nowhere", "size_bytes": MIB}, status=400)  # which pool?
    check.call("POST", "/v1/pools/second/export", status=204)
    check.call("POST", "/v1/pools/second/export", status=404)
    check.call("POST", "/v1/pools/import", {"path": path + ".not"}, status=404)
    check.call("POST", "/v1/pools/import", disk, status=201)
    check.call("POST", "/v1/pools/import", disk)
    check.call("POST", "/v1/pools/second/export", status=204)


def walk_volumes(check):
    volume = {"name": "v", "size_bytes": 16 * MIB, "id": new_id(), "block_size_bytes": 4096, "pool": "default"}
    check.call("POST", "/v1/volumes", volume, status=201)
    check.call("POST", "/v1/volumes", volume)
    check.call("POST", "/v1/volumes", {**volume, "id": new_id()}, status=409)
    check.call("POST", "/v1/volumes", {**volume, "size_bytes": 4097}, status=400)
    check.call("POST", "/v1/volumes", {**volume, "pool": "third"}, status=404)
    check.call("GET", "/v1/volumes?pool=default")
    check.call("GET", "/v1/volumes?pool=third", status=404)
    check.call("GET", "/v1/volumes/default%2Fv")
    check.call("GET", "/v1/volumes/w", status=404)
    check.call("PATCH", "/v1/volumes/v", {"size_bytes": 32 * MIB})
    check.call("PATCH", "/v1/volumes/w", {"name": "x"}, status=404)
    check.call("POST", "/v1/volumes", {**volume, "name": "u", "id": new_id()}, status=201)
    check.call("PATCH", "/v1/volumes/u", {"name": "v"}, status=409)
    check.call("DELETE", "/v1/volumes/u", status=204)
    check.call("DELETE", "/v1/volumes/u", status=404)
    check.call("GET", "/v1/volumes/v/extents")
    check.call("GET", "/v1/volumes/w/extents", status=404)


SECRET = "DHHC-1:00:ICcuNTxDSlFYX2ZtdHuCiZCXnqWss7rByM/W3eTr8vmMpzdS:"
TLS_KEY = "NVMeTLSkey-1:01:tc254mmiOSdpohCoyDb3KHAV2c49F/F1Z/dVI9KvFED7tTag:"
HOST = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000001"


def walk_mirrored(check, directory):
    pools = [os.path.join(directory, name) for name in ("mirror-a", "mirror-b")]
    for path in pools:
        check.call("POST", "/v1/pools", {"name": os.path.basename(path), "path": path, "size_bytes": 64 * MIB}, status=201)
    spec = {"name": "mirrored", "size_bytes": 4 * MIB, "id": new_id(), "copies": "mirror-a"}
    check.call("POST", "/v1/volumes", dict(spec, pool="default"), status=400)
    check.call("POST", "/v1/volumes", dict(spec, copies="mirror-a,nothing"), status=404)
    check.call("POST", "/v1/volumes", dict(spec, copies="mirror-a,,"), status=400)
    check.call("POST", "/v1/volumes", spec, status=201)
    check.call("POST", "/v1/volumes", spec)
    check.call("POST", "/v1/volumes", dict(spec, id=new_id()), status=409)
    check.call("POST", "/v1/volumes", {"name": "mirrored", "size_bytes": 4 * MIB, "pool": "mirror-b"}, status=409)
    check.call("DELETE", "/v1/volumes/mirrored/copies/mirror-a", status=409)
    check.call("PUT", "/v1/volumes/mirrored/copies/mirror-b")
    check.call("PUT", "/v1/volumes/mirrored/copies/nothing", status=404)
    check.call("PUT", "/v1/volumes/nothing/copies/mirror-b", status=404)
    harness.wait_until(lambda: all(c["role"] == "member" for c in check.call("GET", "/v1/volumes/mirrored")["mirror"]["copies"]),
                       "a second member")
    check.call("POST", "/v1/volumes/mirrored/salvage", {"pool": "mirror-a", "accept_loss": True}, status=409)
    check.call("POST", "/v1/volumes/mirrored/scrub", {"bytes_per_s": 0})
    check.call("POST", "/v1/volumes/nothing/scrub", status=404)
    harness.wait_until(lambda: check.call("GET", "/v1/volumes/mirrored")["mirror"]["scrub"]["runs_done"] == 1, "the end of a scrub")
    check.call("DELETE", "/v1/volumes/mirrored/scrub")
    check.call("DELETE", "/v1/volumes/nothing/scrub", status=404)
    check.call("POST", "/v1/pools/mirror-a/export", status=409)
    check.call("DELETE", "/v1/volumes/mirrored/copies/mirror-a")
    check.call("DELETE", "/v1/volumes/nothing/copies/mirror-a", status=404)
    node, = check.call("GET", "/v1/nodes")["nodes"]
    check.call("POST", "/v1/volumes/mirrored/move", {"node": node["name"]})
    check.call("POST", "/v1/volumes/mirrored/move", {"node": "nothing"}, status=404)
    check.call("POST", "/v1/volumes/mirrored/salvage", {"pool": "mirror-b"})  # the only copy is all there is already
    check.call("POST", "/v1/volumes/mirrored/salvage", {"pool": "mirror-a"}, status=404)
    check.call("POST", "/v1/volumes/nothing/salvage", {"pool": "mirror-a"}, status=404)
    check.call("POST", "/v1/volumes/mirrored/snapshots", {"name": "s1"}, status=201)
    check.call("GET", "/v1/snapshots/mirrored@s1")
    check.call("GET", "/v1/volumes/mirrored/snapshots")
    check.call("GET", "/v1/snapshots/mirrored@s1/usage", status=409)
    check.call("POST", "/v1/snapshots/mirrored@s1/clone", {"name": "from"}, status=409)
    check.call("PATCH", "/v1/snapshots/mirrored@s1", {"name": "s2"})
    check.call("GET", "/v1/volumes/mirrored/extents")
    check.call("POST", "/v1/volumes/mirrored/revert", {"snapshot": "s2"})
    check.call("DELETE", "/v1/snapshots/mirrored@s2", status=204)
    check.call("PATCH", "/v1/volumes/mirrored", {"name": "other", "size_bytes": 8 * MIB})
    check.call("PUT", "/v1/volumes/other/hosts/nqn.2014-08.org.example:h", {}, status=201)
    check.call("GET", "/v1/volumes/other/hosts")
    check.call("GET", "/v1/volumes/other/reservation")
    check.call("GET", "/v1/volumes")
    check.call("DELETE", "/v1/volumes/other", status=204)
    check.call("DELETE", "/v1/volumes/other", status=404)
    check.call("DELETE", f"/v1/volumes/{spec['id']}", status=204)
    for path in pools:
        check.call("POST", f"/v1/pools/{os.path.basename(path)}/export", status=204)


def walk_hosts(check):
    hosts = "/v1/volumes/v/hosts"
    expect(check.call("GET", hosts)["hosts"] == [], "anybody may connect at first")
    host = check.call("PUT", f"{hosts}/{HOST}", status=201)
    expect(host == {"nqn": HOST, "has_secret": False, "has_controller_secret": False, "has_tls_key": False}, f"{host}")
    host = check.call("PUT", f"{hosts}/{HOST}", {"secret": SECRET, "controller_secret": SECRET})
    expect(host["has_secret"] and host["has_controller_secret"], f"{host}")
    listed = check.call("GET", hosts)
    expect(listed["hosts"] == [host] and SECRET not in json.dumps(listed), f"{listed}")
    host = check.call("PUT", f"{hosts}/{HOST}", {"tls_key": TLS_KEY})
    expect(host == {"nqn": HOST, "has_secret": False, "has_controller_secret": False, "has_tls_key": True}, f"{host}")
    for bad, body in ((HOST, {"secret": SECRET[:-2] + ":"}), (HOST, {"tls_key": SECRET}), (HOST, {"controller_secret": SECRET}), ("iqn.x", {})):
        check.call("PUT", f"{hosts}/{bad}", body, status=400)
    check.call("PUT", f"/v1/volumes/w/hosts/{HOST}", status=404)
    check.call("GET", "/v1/volumes/w/hosts", status=404)
    check.call("DELETE", f"{hosts}/nqn.x:other", status=204)  # it is off the list already
    check.call("DELETE", "/v1/volumes/w/hosts/nqn.x:other", status=404)
    check.call("DELETE", f"{hosts}/{HOST}", status=409)
    check.call("DELETE", hosts, status=409)
    check.call("DELETE", "/v1/volumes/w/hosts?to_anyone=true", status=404)
    for i in range(31):
        check.call("PUT", f"{hosts}/{HOST[:-2]}{i + 10}", status=201)
    check.call("PUT", f"{hosts}/{HOST[:-2]}99", status=400)
    for i in range(31):
        check.call("DELETE", f"{hosts}/{HOST[:-2]}{i + 10}", status=204)
    for _ in range(2):
        check.call("DELETE", f"{hosts}/{HOST}?to_anyone=true", status=204)
        check.call("DELETE", f"{hosts}?to_anyone=true", status=204)
    check.call("DELETE", f"{hosts}/{HOST}?to_anyone=yes", status=400)


def reserve(daemon, volume):
    """A host that is connected, registered with key a1, and the only one that may write: (its admin queue, its I/O queue)."""
    nqn, where = daemon.api.volume(volume)["nqn"], nvme_address(daemon)
    admin, queue = wire.Queue(where), wire.Queue(where)
    cntlid = admin.connect(nqn).result & 0xFFFF
    admin.enable()
    queue.connect(nqn, qid=1, cntlid=cntlid)
    for opcode, cdw10, keys in ((0x0D, 3 << 30, (0, 0xA1)), (0x11, 1 << 8, (0xA1, 0))):
        expect(queue.command(opcode, nsid=1, cdw=(cdw10,), write=struct.pack("<QQ", *keys)).status == 0, "reservation")
    return admin, queue


def nvme_address(daemon):
    uris = " ".join(daemon.api.volumes()[0]["uris"])
    return "127.0.0.1", int(re.search(r"nvme\+tcp://127.0.0.1:(\d+)/", uris)[1])


def walk_nvme(check, daemon):
    expect(check.call("GET", "/v1/nvme")["associations"] == [], "nobody is connected")
    check.call("GET", "/v1/nvme?volume=nobody", status=404)
    check.call("GET", "/v1/volumes/nobody/reservation", status=404)
    check.call("DELETE", "/v1/volumes/nobody/reservation", status=404)
    expect(check.call("GET", "/v1/volumes/v/reservation")["type"] == "none", "nobody has reserved")
    admin, queue = reserve(daemon, "v")
    with wire.Queue(nvme_address(daemon)) as seeker:
        seeker.connect(wire.DISCOVERY)
        harness.wait_until(lambda: len(check.call("GET", "/v1/nvme")["associations"]) == 2, "host and seeker")
        (host,) = check.call("GET", "/v1/nvme?volume=v")["associations"]
    expect((host["host"], host["host_id"], host["volume"]) == (wire.host_nqn(wire.HOST_ID), str(wire.HOST_ID), "default/v"), host)
    expect(host["is_holder"] and host["is_registrant"] and host["io_queues"] == 1, host)
    expect(not host["is_authenticated"] and not host["is_tls"], host)
    held = check.call("GET", "/v1/volumes/v/reservation")
    expect(held["type"] == "write exclusive" and held["persists"], f"{held}")
    expect(held["registrants"] == [{"host_id": str(wire.HOST_ID), "key": "0xa1", "is_holder": True}], f"{held}")
    for _ in range(2):
        check.call("DELETE", "/v1/volumes/v/reservation", status=204)
        expect(check.call("GET", "/v1/volumes/v/reservation")["registrants"] == [], "nobody is registered")
    queue.socket.close()
    admin.socket.close()
    daemon.api.close_wait("volume", "v")
    stats = check.call("GET", "/v1/nvme")["stats"]
    expect(stats["connections_accepted"] >= 3 and stats["commands"] > 5, f"{stats}")


def walk_snapshots(check):
    snapshot = {"name": "s", "id": new_id()}
    clone = {"name": "c", "id": new_id(), "size_bytes": 64 * MIB}
    check.call("POST", "/v1/volumes/v/snapshots", snapshot, status=201)
    check.call("POST", "/v1/volumes/v/snapshots", snapshot)
    check.call("POST", "/v1/volumes/v/snapshots", {"name": "s"}, status=409)
    check.call("POST", "/v1/volumes/w/snapshots", {"name": "s"}, status=404)
    check.call("GET", "/v1/volumes/v/snapshots")
    check.call("GET", "/v1/volumes/w/snapshots", status=404)
    check.call("GET", "/v1/snapshots")
    check.call("GET", "/v1/snapshots/v@s")
    check.call("GET", "/v1/snapshots/v@t", status=404)
    check.call("GET", "/v1/snapshots/v@s/usage")
    check.call("GET", "/v1/snapshots/v@t/usage", status=404)
    check.call("GET", "/v1/volumes/v/extents?since=s&limit=1")
    check.call("POST", "/v1/snapshots/v@s/clone", clone, status=201)
    check.call("POST", "/v1/snapshots/v@s/clone", clone)
    check.call("POST", "/v1/snapshots/v@s/clone", {"name": "v"}, status=409)
    check.call("POST", "/v1/snapshots/v@t/clone", {"name": "d"}, status=404)
    check.call("POST", "/v1/volumes/c/flatten")
    check.call("DELETE", "/v1/volumes/c/flatten")
    check.call("POST", "/v1/volumes/w/flatten", status=404)
    check.call("DELETE", "/v1/volumes/w/flatten", status=404)
    check.call("POST", "/v1/volumes/v/revert", {"snapshot": "s", "head_id": new_id()})
    check.call("POST", "/v1/volumes/v/revert", {"snapshot": "t"}, status=404)
    check.call("PATCH", "/v1/snapshots/v@s", {"name": "r"})
    check.call("PATCH", "/v1/snapshots/v@s", {"name": "r"}, status=404)
    check.call("DELETE", "/v1/snapshots/v@r", status=204)
    check.call("DELETE", "/v1/snapshots/v@r", status=404)


def walk_jobs(check):
    check.call("PUT", "/v1/jobs/rate", {"bytes_per_s": 0})
    check.call("GET", f"/v1/jobs/{new_id()}", status=404)
    check.call("GET", "/v1/jobs/none", status=400)
    check.call("DELETE", f"/v1/jobs/{new_id()}", status=404)


def walk_ublk(check):
    """As far as it goes without making a device: the rest is tests/ublk_kernel_test.py's."""
    check.call("POST", "/v1/volumes", {"name": "u", "size_bytes": 4 * MIB}, status=201)
    expect(check.call("GET", "/v1/ublk")["devices"] == [], "something is attached")
    check.call("GET", "/v1/ublk/u", status=404)
    check.call("POST", "/v1/ublk", {"volume": "nobody"}, status=404)
    if not os.path.exists("/dev/ublk-control"):
        no = check.call("POST", "/v1/ublk", {"volume": "u"}, status=409)
        expect(no["error"] == "UNSUPPORTED" and "no ublk driver" in no["message"] and no["hint"], f"it says {no}")
    check.call("POST", "/v1/ublk/u/detach", status=204)
    check.call("POST", "/v1/ublk/nobody/detach", {"force": True}, status=404)
    check.call("DELETE", "/v1/volumes/u", status=204)


def write(daemon, export, size_bytes, byte=b"x"):
    """Connects, writes from the beginning, and returns the client: still connected."""
    import nbd  # python3-libnbd
    client = nbd.NBD()
    client.connect_uri(daemon.uri(export))
    for offset in range(0, size_bytes, MIB):
        client.pwrite(byte * min(MIB, size_bytes - offset), offset)
    return client


def leave(daemon, client, *volumes):
    client.shutdown()
    for volume in volumes:
        daemon.api.close_wait("volume", volume)


def flattening(daemon):
    """A clone "copy" of a volume "of" that is being flattened so slowly (a byte a second) that it stays so. Returns the job."""
    daemon.api.volume_create("of", 4 * MIB)
    leave(daemon, write(daemon, "of", MIB), "of")
    daemon.api.snapshot_create("of", "s")
    daemon.api.call("PUT", "/v1/jobs/rate", {"bytes_per_s": 1})
    daemon.api.clone("of@s", "copy", full_copy=True)
    jobs = harness.wait_until(lambda: [j for j in daemon.api.jobs() if j["kind"] == "flatten"], "the job")
    harness.wait_until(lambda: daemon.api.volume("copy")["own_bytes"], "the first cluster of the copy")
    return jobs[0]


def walk_running_jobs(check, daemon):
    job = flattening(daemon)
    merged = daemon.api.snapshot_create("of", "t")["id"]
    check.call("DELETE", f"/v1/snapshots/{merged}", status=204)
    check.call("GET", "/v1/jobs")
    shown = check.call("GET", f"/v1/jobs/{job['id']}")
    expect(shown["state"] == "running" and shown["is_cancellable"], f"{shown}")
    refused = check.call("DELETE", f"/v1/jobs/{merged}", status=409)
    expect(refused["error"] == "UNSUPPORTED" and "throttle" in refused["hint"], f"{refused}")
    check.call("DELETE", f"/v1/jobs/{job['id']}", status=204)
    check.call("GET", f"/v1/jobs/{job['id']}", status=404)
    check.call("DELETE", f"/v1/jobs/{job['id']}", status=404)
    expect(not check.call("GET", "/v1/volumes/copy")["is_flattening"], "it says it is being flattened")
    check.call("PUT", "/v1/jobs/rate", {"bytes_per_s": 0})
    daemon.api.jobs_wait()
    for volume in ("of", "copy"):
        check.call("DELETE", f"/v1/volumes/{volume}", status=204)


def walk_connected(check, daemon):
    """What is refused while a client is connected."""
    daemon.api.volume_create("busy", MIB)
    for name in ("old", "new"):
        daemon.api.snapshot_create("busy", name)
    writer, reader = write(daemon, "busy", 4096), write(daemon, "busy@old", 0)
    check.call("DELETE", "/v1/volumes/busy", status=409)
    check.call("POST", "/v1/volumes/busy/revert", {"snapshot": "new"}, status=409)
    check.call("DELETE", "/v1/snapshots/busy@old", status=409)
    check.call("PATCH", "/v1/snapshots/busy@old", {"name": "new"}, status=409)
    check.call("POST", "/v1/pools/default/export", status=409)
    reader.shutdown()
    leave(daemon, writer, "busy")
    harness.wait_until(lambda: daemon.api.snapshot("busy@old")["open_count"] == 0, "closing of the snapshot")
    check.call("DELETE", "/v1/volumes/busy", status=204)


def walk_strange_disks(check, directory):
    text = os.path.join(directory, "text")
    with open(text, "wb") as file:
        file.write(b"no pool" * 4096)
    check.call("POST", "/v1/pools/import", {"path": text}, status=409)
    check.call("POST", "/v1/pools", {"name": "text", "path": text}, status=409)
    os.chmod(text, 0)  # the daemon runs without the right to read it all the same
    check.call("POST", "/v1/pools/import", {"path": text}, status=403)
    check.call("POST", "/v1/pools", {"name": "text", "path": text}, status=403)


def walk_not_ready(check, daemon, directory):
    daemon.kill()
    os.rename(f"{directory}/pool", f"{directory}/away")
    daemon.process = daemon.spawn()
    harness.wait_until(lambda: is_answering(daemon) and condition_of(daemon, "default") == "PoolAbsent", "the condition")
    check.call("GET", "/v1/ready", status=503)
    check.call("GET", "/v1/pools/default")
    os.rename(f"{directory}/away", f"{directory}/pool")
    check.call("POST", "/v1/pools/import", {"path": f"{directory}/pool"})
    daemon.wait_ready()


def make_until_refused(check, target, bodies):
    """With several calls at a time. The last one that is refused is held against the file."""
    def make(body):
        try:
            check.api.call("POST", target, body)
            return True
        except Refused as no:
            expect(no.status == 507, f"{target}: {no}")
            return False
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        while all(threads.map(make, [next(bodies) for _ in range(100)])):
            pass
    check.call("POST", target, next(bodies), status=507)


def walk_full_pool(check):
    """A pool whose reserve is used up too, by thousands of volumes: what makes more is refused, all else goes on (S8)."""
    with harness.scratch_dir() as directory, \
            harness.running_daemon(directory, "--init-pool", f"{directory}/pool,{16 * MIB}") as daemon:
        import nbd  # python3-libnbd
        check.api = daemon.api
        daemon.api.volume_create("v", 64 * MIB)
        for name in ("s", "t"):
            daemon.api.snapshot_create("v", name)
        daemon.api.clone("v@s", "clone")
        try:
            write(daemon, "v", 64 * MIB)
            expect(False, "64 MiB fit into a pool of 16")
        except nbd.Error as no:
            expect(no.errnum == 28, f"a full pool: {no}")
        make_until_refused(check, "/v1/volumes", ({"name": f"n{i}", "size_bytes": MIB} for i in range(10**6)))
        check.call("POST", "/v1/snapshots/v@s/clone", {"name": "one-more"}, status=507)
        check.call("POST", "/v1/volumes/n0/snapshots", {"name": "s"}, status=507)
        check.call("PUT", f"/v1/volumes/n0/hosts/{HOST}", status=507)
        daemon.api.close_wait("volume", "v")
        check.call("PATCH", "/v1/volumes/v", {"name": "w", "size_bytes": 128 * MIB})
        check.call("PATCH", "/v1/snapshots/w@t", {"name": "u"})
        check.call("POST", "/v1/volumes/clone/flatten")
        check.call("POST", "/v1/volumes/w/revert", {"snapshot": "s"})
        check.call("DELETE", "/v1/snapshots/w@u", status=204)
        check.call("DELETE", "/v1/volumes/w", status=204)
        daemon.api.jobs_wait()
        check.call("POST", "/v1/volumes", {"name": "again", "size_bytes": MIB}, status=201)
        daemon.kill()
        daemon.start()
        daemon.pool_check()


def walk_full_file_system(check, directory):
    """The list of known pools, and a pool file that is made, on a file system without space."""
    with harness.scratch_dir() as other, small_file_system(directory, "8M") as small:
        daemon = harness.Daemon(small)
        three = {"name": "three", "path": f"{small}/three", "size_bytes": 64 * MIB, "id": new_id()}
        try:
            daemon.start()
            check.api = daemon.api
            for name in ("one", "two"):
                make_pool(daemon, f"{other}/{name}", name)
            check.call("POST", "/v1/pools/two/export", status=204)
            fill(small)
            check.call("PUT", "/v1/jobs/rate", {"bytes_per_s": 1000}, status=507)
            check.call("POST", "/v1/pools/import", {"path": f"{other}/two"}, status=507)
            check.call("POST", "/v1/pools", three, status=507)
            no = check.call("POST", "/v1/pools/one/export", status=507)
            expect("file system" in no["message"] and "oxbow" not in no["hint"], f"it is no pool that is full: {no}")
            daemon.wait_ready()
            expect([p["name"] for p in daemon.api.pools()] == ["one"], "what was not exported is gone")
            os.unlink(f"{small}/ballast")
            check.call("PUT", "/v1/jobs/rate", {"bytes_per_s": 0})
            check.call("POST", "/v1/pools", three, status=201)
            check.call("POST", "/v1/pools/one/export", status=204)
        finally:
            if daemon.process:
                daemon.kill()


# (method, path, status) in the file that no test can bring about here, and why not.
NEVER_HERE = {
    ("post", "/v1/pools/{pool}/grow", "507"): "needs a file system that allocates when a file is made longer",
    **{key: "makes a block device, which tests/ublk_kernel_test.py does in a guest" for key in (
        ("post", "/v1/ublk", "200"), ("post", "/v1/ublk", "201"), ("post", "/v1/ublk", "507"), ("get", "/v1/ublk/{volume}", "200"),
        ("post", "/v1/ublk/{volume}/detach", "409"), ("post", "/v1/ublk/{volume}/detach", "507"))},
    ("post", "/v1/volumes/{volume}/move", "409"): "needs a creation or deletion to be under way",
    ("put", "/v1/volumes/{volume}/copies/{pool}", "409"): "needs a copy that was given up to be just being removed",
    ("post", "/v1/ublk", "403"): "needs a driver, and no right to use it",
}
NEEDS_NO_UBLK = {("post", "/v1/ublk", "409")}
NEEDS_ROOT = {key for key in (
    ("put", "/v1/jobs/rate", "507"), ("post", "/v1/pools/import", "507"), ("post", "/v1/pools", "507"),
    ("post", "/v1/pools/{pool}/export", "507"))}


def without_root(directory):
    """A program that runs the daemon without root's right to read what it may not."""
    if os.geteuid() != 0:
        return harness.OXBOWD
    path = os.path.join(directory, "oxbowd")
    with open(path, "w", encoding="utf-8") as script:
        script.write("#!/bin/sh\nexec setpriv --bounding-set=-dac_override,-dac_read_search "
                     f"--inh-caps=-dac_override,-dac_read_search {harness.OXBOWD} \"$@\"\n")
    os.chmod(path, 0o755)
    return path


def every_answer_has_the_form_the_file_gives_it_and_every_status_of_every_route_is_seen():
    with harness.scratch_dir() as directory:
        daemon = harness.Daemon(directory, *pool_option(directory), program=without_root(directory))
        with harness.running(daemon):
            check = Checker(daemon.api)
            walk_daemon(check)
            walk_pools(check, directory)
            walk_strange_disks(check, directory)
            walk_volumes(check)
            walk_mirrored(check, directory)
            walk_hosts(check)
            walk_nvme(check, daemon)
            walk_snapshots(check)
            walk_jobs(check)
            walk_running_jobs(check, daemon)
            walk_connected(check, daemon)
            walk_ublk(check)
            walk_not_ready(check, daemon, directory)
            walk_daemon(check)
        walk_full_pool(check)
        if os.geteuid() == 0:
            walk_full_file_system(check, directory)
        missing = never_seen(check.document, check.seen) - (set() if os.geteuid() == 0 else NEEDS_ROOT)
        if os.path.exists("/dev/ublk-control"):
            missing -= NEEDS_NO_UBLK
        expect(not missing, f"never seen: {sorted(missing)}")
        expect(not check.seen & set(NEVER_HERE), f"seen, and said to be impossible: {check.seen & set(NEVER_HERE)}")


def never_seen(document, seen):
    wanted = {(m, path, status) for (m, path), o in file_operations(document).items()
              for status in o["responses"] if status != "default"}
    return wanted - seen - set(NEVER_HERE)


def a_status_that_no_test_sees_is_named():
    document = openapi()
    document["paths"]["/v1/health"]["get"]["responses"]["418"] = {"description": "planted"}
    all_of_it = {(m, path, s) for (m, path), o in file_operations(openapi()).items() for s in o["responses"]}
    expect(never_seen(document, all_of_it) == {("get", "/v1/health", "418")}, "the planted one is not named")


def a_job_survives_the_daemon_and_goes_on_under_its_id_and_its_rate():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        job = flattening(daemon)
        for _ in range(3):
            daemon.kill()
            daemon.start()
            answer = daemon.api.call("GET", "/v1/jobs")
            expect(answer["rate_bytes_per_s"] == 1, f"the limit is {answer['rate_bytes_per_s']}")
            expect([(j["id"], j["kind"]) for j in answer["jobs"]] == [(job["id"], "flatten")], f"{answer['jobs']}")
            expect(daemon.api.volume("copy")["is_flattening"], "the volume knows nothing of it")
        daemon.api.call("PUT", "/v1/jobs/rate", {"bytes_per_s": 100 * MIB})
        daemon.api.jobs_wait()
        copy = daemon.api.volume("copy")
        expect(not copy["is_flattening"] and copy["origin_id"] is None, f"{copy}")
        expect(copy["own_bytes"] == MIB, f"{copy['own_bytes']} bytes are its own")
        daemon.pool_check()


# ---- HTTP's own corners ----------------------------------------------------------------------------------------------------

def talk(daemon, data, limit_s=10):
    """Send bytes as they are, and read until the server closes, or for so long."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(limit_s)
        s.connect(daemon.socket)
        answer = b""
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            while chunk := s.recv(65536):
                answer += chunk
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            pass
        return answer


def refused_status(daemon, method, target, body):
    try:
        daemon.api.call(method, target, body)
    except Refused as no:
        return no.status
    return None


def answer_to(daemon, request, *headers, body=b""):
    """(status, headers, body) of one request, sent as it is: nothing between us and the server corrects it."""
    lines = [request + " HTTP/1.1", "Host: x", "Connection: close", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    text = talk(daemon, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    head, _, rest = text.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return int(status.split()[1]), {k.lower(): v for k, v in (f.split(": ", 1) for f in fields)}, rest


def the_path_says_404_the_method_405_with_what_there_is_and_nothing_else_happens():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", MIB)
        for target in ("/", "/v1", "/v1/", "/v2/volumes", "/v1/volumes/", "/v1/volumes/v/", "/v1/volumes/v/none", "//v1/volumes",
                       "/v1/volumes/../pools", "/V1/volumes", "/metrics/", "*"):
            status, fields, body = answer_to(daemon, f"GET {target}")
            expect(status in (400, 404), f"GET {target}: {status}")  # 400: a parameter that is empty
            expect(json.loads(body)["message"] and fields["content-type"] == "application/json", f"GET {target}: {body}")
        patterns = Checker(daemon.api).patterns
        for path in openapi()["paths"]:
            target = path.replace("{volume}", "v").replace("{pool}", "default").replace("{snapshot}", "v@s").replace("{job}", new_id())
            there = [m.upper() for m, _, pattern in patterns if pattern.match(target)]  # "import" may also be a pool's name
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
                if method not in there:
                    status, fields, _ = answer_to(daemon, f"{method} {target}")
                    expect(status == 405, f"{method} {target}: {status}")
                    expect(set(fields["allow"].split(", ")) == set(there), f"{target} has {there}, Allow: {fields['allow']}")
        expect([v["name"] for v in daemon.api.volumes()] == ["v"], "a wrong method did something")


def head_is_get_without_the_body():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        for target, wanted in (("/v1/health", 200), ("/metrics", 200), ("/v1/volumes/none", 404)):
            status, fields, body = answer_to(daemon, f"HEAD {target}")
            expect(status == wanted and not body and int(fields["content-length"]) > 0, f"HEAD {target}: {status} {fields} {body}")


def a_body_is_read_as_json_whatever_its_type_says_so_that_curl_needs_no_header():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        kinds = ("application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", None)
        for number, kind in enumerate(kinds):
            body = json.dumps({"name": f"v{number}", "size_bytes": MIB}).encode()
            status, _, _ = answer_to(daemon, "POST /v1/volumes", *([f"Content-Type: {kind}"] if kind else []), body=body)
            expect(status == 201, f"{kind}: {status}")
        for body in (b"name=v&size_bytes=4096", b"[]", b"null", b'"text"', b"{", b"{} {}", b'{"name": "\xff", "size_bytes": 4096}',
                     b'{"name": "v9", "name": "v8", "size_bytes": 4096}', b'{"name": "a\\u0000b", "size_bytes": 4096}'):
            status, _, answer = answer_to(daemon, "POST /v1/volumes", body=body)
            expect(status == 400 and json.loads(answer)["error"] == "INVAL", f"{body}: {status} {answer}")
        expect(len(daemon.api.volumes()) == len(kinds), "something else was made")


def a_target_that_is_too_long_or_badly_written_is_refused_by_name():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        expect(answer_to(daemon, "GET /v1/volumes/" + "a" * 5000)[0] == 414, "5,000 bytes of target")
        for target in ("/v1/volumes/" + "a" * 400, "/v1/volumes/%", "/v1/volumes/%zz", "/v1/volumes/%00", "/v1/volumes/%ff",
                       "/v1/events?after=", "/v1/events?after=-1", "/v1/events?after=1&after=2", "/v1/events?after=1e3",
                       "/v1/events?after=9223372036854775808", "/v1/events?limit=0", "/v1/events?limit=10001", "/v1/events?wait=301",
                       "/v1/events?before=1", "/v1/events?%66oo=1", "/v1/health?x"):
            status, _, body = answer_to(daemon, f"GET {target}")
            expect(status == 400 and json.loads(body)["error"] == "INVAL", f"GET {target[:40]}: {status} {body}")
        expect(answer_to(daemon, "GET /v1/events?after=9223372036854775807&%6cimit=1&")[0] == 200, "the largest, and escapes")


def a_body_larger_than_the_limit_is_refused_with_413_and_the_daemon_goes_on():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        big = {"name": "x" * (2 * MIB)}
        expect(refused_status(daemon, "POST", "/v1/volumes", big) == 413, "announced by its length")
        pieces = b"".join(b"%x\r\n%s\r\n" % (65536, b"x" * 65536) for _ in range(32)) + b"0\r\n\r\n"
        head = b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
        expect(b" 413 " in talk(daemon, head + pieces).partition(b"\r\n")[0], "in chunks")
        deep = b"[" * 100000
        head = b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(deep)
        expect(b" 400 " in talk(daemon, head + deep).partition(b"\r\n")[0], "deeply nested")
        daemon.api.call("GET", "/v1/health")


def what_is_not_http_harms_nothing():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        for data in (b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\0" * 100, b"GET / HTTP/9.9\r\n\r\n", b"x" * 200000,
                     b"GET /v1/health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                     b"GET /" + b"a" * 10000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
                     b"POST /v1/volumes HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):
            talk(daemon, data, limit_s=0.5)  # half a request is waited for: half a minute
        daemon.api.call("GET", "/v1/health")


def clients_that_leave_while_they_wait_are_forgotten():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        before = open_files(daemon)
        for _ in range(20):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
                s.connect(daemon.socket)
                s.sendall(b"GET /v1/events?after=9000000000000000&wait=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        harness.wait_until(lambda: open_files(daemon) <= before + 1, "release of the connections", limit_s=10, every_s=0.1)


def many_clients_at_once_are_all_answered():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        def make(i):
            daemon.api.volume_create(f"v{i}", MIB)
            daemon.api.snapshot_create(f"v{i}", "s")
            daemon.api.volume_delete(f"v{i}")
        with concurrent.futures.ThreadPoolExecutor(40) as threads:
            list(threads.map(make, range(200)))
        expect(not daemon.api.volumes(), "volumes are left")
        daemon.pool_check()


def events_arrive_while_somebody_waits_for_them():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        last = daemon.api.call("GET", "/v1/events")["next"]
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(daemon.api.call, "GET", f"/v1/events?after={last}&wait=30")
            began = time.monotonic()
            daemon.api.volume_create("v", MIB)
            events = waiting.result()["events"]
        expect(time.monotonic() - began < 5, "the waiting call was not woken")
        expect(events[0]["event"] == "volume.created" and events[0]["id"] > last, f"{events[0]}")
        daemon.kill()
        daemon.start()
        expect(daemon.api.call("GET", f"/v1/events?after={last}")["events"], "after a restart ids go on growing")


def metrics_are_what_prometheus_reads():
    line = re.compile(r'^[a-z_]+({[a-z]+="[^"]*"(,[a-z]+="[^"]*")*})? [0-9.e+-]+$')
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", MIB)
        subprocess.run(["qemu-io", "-f", "raw", "-c", "write 0 64k", "-c", "flush", daemon.uri("v")], check=True,
                       capture_output=True)
        queues = reserve(daemon, "v")
        daemon.api.call("POST", "/v1/volumes", {"name": "m", "size_bytes": MIB, "copies": "default"})
        text = daemon.api.call("GET", "/metrics")["text"]
        expect(re.search(r'^oxbow_mirror_serves{volume="m"} 1$', text, re.M), f"oxbow_mirror_serves in {text}")
        expect(re.search(r'^oxbow_copy_member{volume="m",pool="default",node="[^"]+"} 1$', text, re.M), f"oxbow_copy_member in {text}")
        for queue in queues:
            queue.socket.close()
        labels = rf'{{host="{wire.host_nqn(wire.HOST_ID)}",export="default/v",controller="\d+"}}'
        for metric in ("host_is_holder", "host_is_registrant", "host_io_queues"):
            expect(re.search(rf"^oxbow_nvme_{metric}{labels} 1$", text, re.M), f"oxbow_nvme_{metric} in {text}")
        names = [l.split()[2] for l in text.splitlines() if l.startswith("# TYPE")]
        expect(len(names) == len(set(names)), "a metric is declared twice")
        for one in text.splitlines():
            expect(one.startswith("# ") or line.match(one), f"no metric line: {one}")
        counts = [int(n) for n in re.findall(r'_bucket{export="default/v",op="write",le="[^"]+"} (\d+)', text)]
        expect(counts and counts == sorted(counts) and counts[-1] >= 1, f"write latency buckets: {counts}")


def the_sockets_come_back_within_seconds_when_somebody_removes_them():
    with harness.scratch_dir() as directory, harness.running_daemon(directory, *pool_option(directory)) as daemon:
        daemon.api.volume_create("v", MIB)
        before = open_files(daemon)
        for _ in range(2):
            os.unlink(daemon.socket)
            os.unlink(daemon.nbd)
            harness.wait_until(lambda: os.path.exists(daemon.socket) and os.path.exists(daemon.nbd), "new socket files")
            daemon.api.volume("v")
            subprocess.run(["nbdinfo", "--size", daemon.uri("v")], check=True, capture_output=True)
        harness.wait_until(lambda: open_files(daemon) <= before, "release of the sockets whose files are gone", limit_s=10, every_s=0.1)


def open_files(daemon):
    return daemon.api.call("GET", "/v1/stats")["process"]["open_files"]


# ---- pools that move ---------------------------------------------------------------------------------------------------------

def make_pool(daemon, path, name):
    return daemon.api.call("POST", "/v1/pools", {"path": path, "name": name, "size_bytes": 64 * MIB, "id": new_id()})


def condition_of(daemon, pool):
    try:
        conditions = daemon.api.call("GET", f"/v1/pools/{pool}")["conditions"]
    except Refused as no:
        expect(no.status == 503, f"{no}")  # the list of pools has not been read yet
        return None
    return conditions[0]["reason"] if conditions else None


def a_moved_disk_is_found_where_scan_allows_and_its_new_place_is_remembered():
    with harness.scratch_dir() as directory:
        os.mkdir(f"{directory}/disks")
        with harness.running_daemon(directory, "--scan", f"{directory}/disks") as daemon:
            make_pool(daemon, f"{directory}/old", "p")
            daemon.kill()
            os.rename(f"{directory}/old", f"{directory}/disks/new")
            daemon.start()
            expect(daemon.api.call("GET", "/v1/pools/p")["path"] == f"{directory}/disks/new", "not found")
            daemon.kill()
            daemon.arguments = []
            daemon.start()


def two_disks_of_one_uuid_are_refused_and_one_may_be_chosen():
    with harness.scratch_dir() as directory:
        os.mkdir(f"{directory}/disks")
        with harness.running_daemon(directory, "--scan", f"{directory}/disks") as daemon:
            make_pool(daemon, f"{directory}/old", "p")
            subprocess.run(["cp", "--sparse=always", f"{directory}/old", f"{directory}/disks/a"], check=True)
            error = refusal_error(daemon, f"{directory}/disks/a")
            expect(error == "EXISTS", f"the copy of an open pool: {error}")
            daemon.kill()
            os.rename(f"{directory}/old", f"{directory}/disks/b")
            daemon.process = daemon.spawn()
            harness.wait_until(lambda: is_answering(daemon) and condition_of(daemon, "p") == "DuplicateUuid", "the condition")
            daemon.api.call("POST", "/v1/pools/import", {"path": f"{directory}/disks/b"})
            daemon.wait_ready()


def refusal_error(daemon, path):
    try:
        daemon.api.call("POST", "/v1/pools/import", {"path": path})
    except Refused as no:
        return no.error
    return None


def is_answering(daemon):
    try:
        return daemon.api.call("GET", "/v1/health")
    except Gone:
        return False


def a_disk_that_holds_another_pool_now_is_not_opened_for_the_first():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        make_pool(daemon, f"{directory}/one", "one")
        make_pool(daemon, f"{directory}/two", "two")
        daemon.api.call("POST", "/v1/pools/two/export")
        daemon.kill()
        os.rename(f"{directory}/two", f"{directory}/one")
        daemon.process = daemon.spawn()
        harness.wait_until(lambda: is_answering(daemon) and condition_of(daemon, "one") == "WrongDisk", "the condition")
        expect(refused_status(daemon, "GET", "/v1/volumes/v", None) == 503, "its volumes are not ready, rather than unknown")
        daemon.api.call("POST", "/v1/pools/one/export")
        daemon.api.call("POST", "/v1/pools/import", {"path": f"{directory}/one"})
        expect([p["name"] for p in daemon.api.pools()] == ["two"], "the disk is pool two")


def a_list_of_pools_that_cannot_be_read_is_kept_and_said():
    with harness.scratch_dir() as directory, harness.running_daemon(directory) as daemon:
        make_pool(daemon, f"{directory}/one", "one")
        daemon.kill()
        listing = f"{daemon.data_dir}/pools.json"
        with open(listing, "w", encoding="utf-8") as file:
            file.write("{ nonsense")
        daemon.process = daemon.spawn()
        harness.wait_until(lambda: is_answering(daemon), "answers")
        reasons = not_ready(daemon)
        harness.wait_until(lambda: "KnownPoolsUnreadable" in not_ready(daemon), f"the reason, instead of {reasons}")
        expect(refused_status(daemon, "POST", "/v1/pools/import", {"path": f"{directory}/one"}) == 503, "import")
        with open(listing, encoding="utf-8") as file:
            expect(file.read() == "{ nonsense", "it was written over")
        daemon.kill()
        os.unlink(listing)
        daemon.start()
        daemon.api.call("POST", "/v1/pools/import", {"path": f"{directory}/one"})


def not_ready(daemon):
    try:
        daemon.api.call("GET", "/v1/ready")
    except Refused as no:
        return [reason["reason"] for reason in no.body["reasons"]]
    return []


# ---- a disk that fails -------------------------------------------------------------------------------------------------------

def failing_call(daemon):
    """A change on a pool whose file cannot grow: true once the pool has failed."""
    try:
        daemon.api.volume_create(new_id(), MIB)
    except Refused as no:
        return no.status == 503
    return False


def fill(directory):
    space = os.statvfs(directory)
    with open(f"{directory}/ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, space.f_bavail * space.f_frsize)


@contextlib.contextmanager
def small_file_system(directory, size):
    """Its path. Needs root."""
    small = os.path.join(directory, "small")
    os.mkdir(small)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", small], check=True)
    try:
        yield small
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def a_pool_that_failed_is_closed_and_comes_back_by_itself_though_a_client_was_connected():
    if os.geteuid() != 0:
        return "needs root, to mount a small file system"
    import nbd
    with harness.scratch_dir() as directory, small_file_system(directory, "96M") as small, \
            harness.running_daemon(directory, "--init-pool", f"{small}/pool,{GIB}") as daemon:
        daemon.api.volume_create("v", 64 * MIB)
        client = nbd.NBD()
        client.connect_uri(daemon.uri("v"))
        client.pwrite(b"x" * 4096, 0)
        fill(small)
        harness.wait_until(lambda: failing_call(daemon), "failure of the pool")
        harness.wait_until(lambda: condition_of(daemon, "default") == "DeviceFailed", "the condition")
        first = daemon.api.call("GET", "/v1/pools/default")["attempts"]
        time.sleep(2.5)  # what is looked at is how little happens in a while
        attempts = daemon.api.call("GET", "/v1/pools/default")["attempts"] - first
        expect(attempts <= 3, f"{attempts} attempts in 2.5 s: a hot loop")
        os.unlink(f"{small}/ballast")
        daemon.wait_ready(limit_s=20)
        again = nbd.NBD()
        again.connect_uri(daemon.uri("v"))
        expect(again.pread(4096, 0) == b"x" * 4096, "what was acknowledged before is there")
        again.shutdown()
        daemon.pool_check()
    return None


TESTS = [
    every_route_is_in_the_file_as_the_server_enforces_it_and_no_other,
    every_reference_in_the_file_resolves_and_every_schema_is_used,
    every_answer_has_the_form_the_file_gives_it_and_every_status_of_every_route_is_seen,
    a_status_that_no_test_sees_is_named,
    a_job_survives_the_daemon_and_goes_on_under_its_id_and_its_rate,
    the_path_says_404_the_method_405_with_what_there_is_and_nothing_else_happens,
    head_is_get_without_the_body,
    a_body_is_read_as_json_whatever_its_type_says_so_that_curl_needs_no_header,
    a_target_that_is_too_long_or_badly_written_is_refused_by_name,
    a_body_larger_than_the_limit_is_refused_with_413_and_the_daemon_goes_on,
    what_is_not_http_harms_nothing,
    clients_that_leave_while_they_wait_are_forgotten,
    many_clients_at_once_are_all_answered,
    events_arrive_while_somebody_waits_for_them,
    metrics_are_what_prometheus_reads,
    the_sockets_come_back_within_seconds_when_somebody_removes_them,
    a_moved_disk_is_found_where_scan_allows_and_its_new_place_is_remembered,
    two_disks_of_one_uuid_are_refused_and_one_may_be_chosen,
    a_disk_that_holds_another_pool_now_is_not_opened_for_the_first,
    a_list_of_pools_that_cannot_be_read_is_kept_and_said,
    a_pool_that_failed_is_closed_and_comes_back_by_itself_though_a_client_was_connected,
]

if __name__ == "__main__":
    sys.exit(harness.run_tests(TESTS, sys.argv[1:]))
