"""A registry with one fault (or one peculiarity, a token service), in front of the real one. Runs on the registry's machine, on its port and with its certificate.

Called with KIND or KIND:COUNT: the fault is shown so many times, or for ever.
"""

import http.client
import http.server
import os
import secrets
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

UPSTREAM = ("127.0.0.1", 5050)
ETC = "/etc/docker/registry/"
# Which requests the fault concerns.
MANIFESTS = ("429", "500")
BLOBS = ("reset", "truncate", "corrupt", "stall")
CERTIFICATES = ("expired", "wrong-ca")
# Logins are taken by a token service alone, as at Docker Hub.
TOKEN = "token"
KINDS = MANIFESTS + BLOBS + CERTIFICATES + (TOKEN,)


class Fault:
    """What is wrong, and how often it is shown."""

    def __init__(self, text):
        self.kind, _, count = text.partition(":")
        self.left = int(count) if count else 10**9
        self.lock = threading.Lock()
        self.tokens = {}

    def strikes(self, path, size):
        """Whether this request is hit. Only big blobs are: layers, not configurations."""
        concerned = (self.kind in MANIFESTS and "/manifests/" in path) or \
            (self.kind in BLOBS and "/blobs/" in path and size > 1_000_000)
        with self.lock:
            if not concerned or self.left <= 0:
                return False
            self.left -= 1
            return True


class Front(http.server.BaseHTTPRequestHandler):
    """Hands requests on, but for the fault."""

    protocol_version = "HTTP/1.1"
    fault = None

    def do_GET(self):
        """GET and HEAD alike."""
        context = ssl._create_unverified_context()  # the real registry, on this machine
        upstream = http.client.HTTPSConnection(*UPSTREAM, context=context, timeout=60)
        if self.fault.kind == TOKEN:
            if self.path.startswith("/token?"):
                return self.give_token(upstream)
            login = self.fault.tokens.get((self.headers["Authorization"] or "").removeprefix("Bearer "))
            if not login:
                return self.challenge()
            self.headers.replace_header("Authorization", login)
        # One by one: a client may say in several Accept headers what it takes.
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "connection":
                upstream.putheader(name, value)
        upstream.endheaders()
        answer = upstream.getresponse()
        size = int(answer.headers.get("Content-Length") or 0)
        # A challenge for the login comes first, as from a real one.
        if answer.status == 200 and self.fault.strikes(self.path, size if self.command == "GET" else 0):
            if self.fault.kind in MANIFESTS:
                return self.refuse()
            return self.spoil(answer, size)
        self.head(answer)
        if self.command == "GET":
            while data := answer.read(1 << 16):
                self.wfile.write(data)

    do_HEAD = do_GET

    def head(self, answer):
        """The status line and headers as they came."""
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()

    def give_token(self, upstream):
        """A token for a login that the real registry takes, or for nobody."""
        time.sleep(1)  # so that a test sees who asks
        token, login = secrets.token_urlsafe(24), self.headers["Authorization"]
        if login:
            upstream.request("GET", "/v2/", headers={"Authorization": login})
            if upstream.getresponse().status != 200:
                return self.say(401, {"Content-Type": "application/json"}, b'{"details":"incorrect username or password"}')
        self.fault.tokens[token] = login
        self.say(200, {"Content-Type": "application/json"}, b'{"token": "%s", "expires_in": 300}\n' % token.encode())

    def challenge(self):
        """Sends the client to the token service; says that nobody's token is not enough."""
        more = ',error="insufficient_scope"' if self.headers["Authorization"] else ""
        self.say(401, {"WWW-Authenticate": f'Bearer realm="https://registry.lab:5000/token",service="lab"{more}',
                       "Content-Type": "application/json"}, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}\n')

    def say(self, status, headers, body):
        """A whole answer."""
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self):
        """An error as registries write it."""
        code = {"429": "TOOMANYREQUESTS", "500": "UNKNOWN"}[self.fault.kind]
        body = b'{"errors":[{"code":"%s","message":"as the lab wants it"}]}\n' % code.encode()
        self.say(int(self.fault.kind), {"Content-Type": "application/json"}, body)

    def spoil(self, answer, size):
        """The first half of a layer, and then the fault."""
        self.head(answer)
        left = size // 2
        while left > 0 and (data := answer.read(min(left, 1 << 16))):
            if self.fault.kind == "corrupt":
                data = bytes(byte ^ 0xFF for byte in data)
            self.wfile.write(data)
            left -= len(data)
        if self.fault.kind == "corrupt":
            while data := answer.read(1 << 16):
                self.wfile.write(data)
            return
        if self.fault.kind == "stall":
            time.sleep(300)
        if self.fault.kind == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_):
        """The real registry has a log."""


def certificate(kind):
    """Another certificate than the registry's: expired, or from an authority that nobody knows."""
    authority, days = ("ca", "-1") if kind == "expired" else ("other", "30")
    if kind == "wrong-ca":
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "30", "-keyout",
                        ETC + "other.key", "-out", ETC + "other.crt"], check=True)
    with open(ETC + "san", "w", encoding="utf-8") as file:
        file.write("subjectAltName=DNS:registry.lab\n")
    subprocess.run(["openssl", "req", "-new", "-key", ETC + "registry.key", "-subj", "/CN=registry.lab", "-out", ETC + "new.csr"], check=True)
    subprocess.run(["openssl", "x509", "-req", "-in", ETC + "new.csr", "-CA", f"{ETC}{authority}.crt", "-CAkey", f"{ETC}{authority}.key",
                    "-CAcreateserial", "-days", days, "-extfile", ETC + "san", "-out", ETC + "new.crt"], check=True)
    return ETC + "new.crt"


def main():
    """Start the real registry out of sight, and stand in front of it."""
    fault = Fault(sys.argv[1])
    if fault.kind not in KINDS:
        sys.exit(f"no such fault: {fault.kind}; there are {', '.join(KINDS)}")
    Front.fault = fault
    shown = certificate(fault.kind) if fault.kind in CERTIFICATES else ETC + "registry.crt"
    real = subprocess.Popen(["docker-registry", "serve", ETC + "config.yml"],
                            env={**os.environ, "REGISTRY_HTTP_ADDR": f"{UPSTREAM[0]}:{UPSTREAM[1]}"})
    try:
        for _ in range(100):
            try:
                socket.create_connection(UPSTREAM, timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(shown, ETC + "registry.key")
        server = http.server.ThreadingHTTPServer(("", 5000), Front)
        server.daemon_threads = True
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        server.serve_forever()
    finally:
        real.terminate()


if __name__ == "__main__":
    import signal
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    main()
