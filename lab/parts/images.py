"""Images of random layers, made and pushed without a container runtime: a tar a layer, a config, a manifest."""

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import random
import re
import ssl
import tarfile

from . import plan
from .kernel import Trouble

DEFAULT = {"team/app:v1": ["20M"] * 4, "team/small:v1": ["200k"], "team/small:v2": ["100k", "200k"]}
_UNITS = {"": 1, "k": 1000, "M": 1000_000, "G": 1000_000_000}


def size(text):
    """A size as people write it: 20M, 200k, 1234."""
    match = re.fullmatch(r"(\d+)([kMG]?)", text)
    if not match:
        raise Trouble(f"{text!r} is no size: write 20M, 200k or 1234")
    return int(match[1]) * _UNITS[match[2]]


def digest(data):
    """The digest by which a registry knows these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(number, text):
    """A layer with one file of random bytes: the packed layer, and the digest of the tar inside it.

    20M@base is the same layer in every image that has it.
    """
    text, _, name = text.partition("@")
    inside = random.Random(text + name).randbytes(size(text)) if name else os.urandom(size(text))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        member = tarfile.TarInfo(f"layer-{name or number}")
        member.size = len(inside)
        archive.addfile(member, io.BytesIO(inside))
    # Random bytes do not shrink, so the least work packs as well as the most.
    return gzip.compress(tar.getvalue(), compresslevel=0, mtime=0), digest(tar.getvalue())


class Registry:
    """The lab's registry, spoken to as its user."""

    def __init__(self, state):
        with open(os.path.join(state, "password"), encoding="utf-8") as file:
            login = base64.b64encode(f"ci:{file.read()}".encode()).decode()
        self.headers = {"Authorization": f"Basic {login}"}
        trust = ssl.create_default_context(cafile=os.path.join(state, "ca.crt"))
        host, port = plan.REGISTRY.split(":")
        self.connection = http.client.HTTPSConnection(host, int(port), context=trust, timeout=60)

    def ask(self, method, path, expected, body=None, **headers):
        """One request; anything but the expected status is a Trouble."""
        kinds = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body=body, headers={**self.headers, **kinds})
        answer = self.connection.getresponse()
        said = answer.read()
        if answer.status != expected:
            raise Trouble(f"the registry answered {answer.status} to {method} {path}: {said[:300]!r}")
        return answer

    def put_blob(self, repository, data):
        """Upload one blob in one piece."""
        begun = self.ask("POST", f"/v2/{repository}/blobs/uploads/", 202, body=b"")
        place = begun.getheader("Location").removeprefix(f"https://{plan.REGISTRY}")
        self.ask("PUT", f"{place}&digest={digest(data)}", 201, body=data, Content_Type="application/octet-stream")


def push(state, reference, sizes):
    """Build an image and push it; returns its reference with the digest of its manifest."""
    match = re.fullmatch(re.escape(plan.REGISTRY) + r"/([a-z0-9/_.-]+):([\w.-]+)", reference)
    if not match:
        raise Trouble(f"{reference!r} is no image of this lab: write {plan.REGISTRY}/NAME:TAG")
    repository, tag = match.groups()
    registry = Registry(state)
    layers, inside = [], []
    for number, text in enumerate(sizes, start=1):
        packed, tar_digest = layer(number, text)
        registry.put_blob(repository, packed)
        inside.append(tar_digest)
        layers.append({"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "size": len(packed),
                       "digest": digest(packed)})
    config = json.dumps({"architecture": "amd64" if os.uname().machine == "x86_64" else "arm64", "os": "linux",
                         "config": {"Cmd": ["/layer-1"]}, "rootfs": {"type": "layers", "diff_ids": inside},
                         "history": [{"created_by": f"layer {number}"} for number in range(1, len(sizes) + 1)]}).encode()
    registry.put_blob(repository, config)
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "layers": layers, "config": {
        "mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config), "digest": digest(config)}})
    registry.ask("PUT", f"/v2/{repository}/manifests/{tag}", 201, body=manifest.encode(), Content_Type=kind)
    return f"{reference}@{digest(manifest.encode())}"
