"""A server on this machine that behaves as badly as it is told to."""

import contextlib
import dataclasses
import http.server
import re
import threading
import time


@dataclasses.dataclass
class File:
    """What the server has at a path, and how it hands it out."""

    content: bytes = b""
    etag: str | None = '"1"'
    modified: str | None = None
    takes_ranges: bool = True
    heeds_if_range: bool = True
    # Whether what is asked for as a whole is answered with the end of it.
    sends_parts: bool = False
    tells_length: bool = True
    # What is told instead of the length.
    length: str | None = None
    kind: str = "application/octet-stream"
    location: str | None = None
    # Answers that are used up one by one before the file is handed out as it should be.
    statuses: list = dataclasses.field(default_factory=list)
    # Bytes after which a connection is closed, likewise.
    cuts: list = dataclasses.field(default_factory=list)
    # Seconds before each block of so many bytes.
    seconds_per_block: float = 0.0
    block: int = 1 << 16


class Site:
    """The files of the server, and the requests that it was sent."""

    def __init__(self):
        self.files = {}
        self.requests = []

    def ranges(self):
        """The Range and If-Range headers of all requests."""
        return [(h.get("Range"), h.get("If-Range")) for _, h in self.requests]


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server.site
        site.requests.append((self.path, dict(self.headers)))
        file = site.files.get(self.path)
        if file is None:
            return self._say(404)
        if file.statuses:
            return self._say(file.statuses.pop(0))
        if file.location is not None:
            return self._say(302, {"Location": file.location})
        start = self._start(file)
        if start is not None and start >= len(file.content):
            return self._say(416)
        body = file.content[start or 0 :]
        headers = {"Content-Type": file.kind, "ETag": file.etag}
        headers["Last-Modified"] = file.modified
        if file.tells_length:
            headers["Content-Length"] = file.length or str(len(body))
        if start is not None:
            end, total = len(file.content) - 1, len(file.content)
            headers["Content-Range"] = f"bytes {start}-{end}/{total}"
        self._say(200 if start is None else 206, headers)
        if file.cuts:
            body = body[: file.cuts.pop(0)]
        with contextlib.suppress(ConnectionError):
            for first in range(0, len(body), file.block):
                time.sleep(file.seconds_per_block)
                self.wfile.write(body[first : first + file.block])
        return None

    def _start(self, file):
        """First byte that is asked for; `None` for the whole file."""
        if file.sends_parts:
            return 100
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if not wanted or not file.takes_ranges:
            return None
        seen = self.headers.get("If-Range")
        if file.heeds_if_range and seen not in (None, file.etag, file.modified):
            return None
        return int(wanted[1])

    def _say(self, status, headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments):
        """The requests are kept in the site instead."""


@contextlib.contextmanager
def serving():
    """A `Site` on 127.0.0.1, and the address of its server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.site = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.site, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
