"""Files from the web: fetched once, whole, checked, and gone on with after a break."""

import contextlib
import errno
import http.client
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request

import keras_kssl
from keras_kssl._checks import check_that
from keras_kssl._files import sha256 as sha256_of
from keras_kssl._files import write_whole
from keras_kssl.progress import bytes_bar
from keras_kssl.zoo import addresses, cache

# Seconds without an answer, or at less than the slowest rate, after which a server is
# given up.
TIMEOUT = 30.0
_SLOWEST = 100  # bytes per second
_ATTEMPTS = 3
PAUSE = 1.0  # seconds before the second attempt, twice as many before the third
_BLOCK = 1 << 18
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Answers after which another attempt may help.
_PASSING = (408, 416, 425, 429, 500, 502, 503, 504)


class _Broken(Exception):
    """An attempt that has ended before the file was whole; another may succeed."""


def fetch(address, sha256=None, say=print):
    """The local file of a web address; downloads it where it is not there.

    A file that was fetched, or put in its place by hand, is used without a look at the
    network. An interrupted download goes on where it ended if the server says that its
    file is the same; nothing but a whole file with the right digest gets the name.

    Args:
        address: https:// address.
        sha256: hexadecimal SHA-256 that the file must have; `None` where it is not
            known, which a notice says.
        say: function that prints a line.

    Returns:
        `pathlib.Path` of the file.

    Raises:
        ValueError: for an unfit address and for a file with another digest, which is
            put aside.
        FileNotFoundError, PermissionError, ConnectionError, OSError: where the file
            cannot be fetched or written; the message says what to do by hand.
    """
    place = cache.place_of(address, addresses.checked(address))
    if place.is_file():
        return _checked(place, address, sha256)
    if cache.is_offline():
        raise FileNotFoundError(
            f"zoo.load: {address} is not on this machine and KSSL_OFFLINE is set. "
            f"{_by_hand(address, place)}"
        )
    real = addresses.mirrored(address, cache.mirror())
    try:
        with cache.held(place, say):
            # Another process may have fetched it meanwhile.
            if not place.is_file():
                _fetch(address, real, place, sha256, say)
                return place
    except OSError as error:
        if error.errno in _FULL:
            raise OSError(
                error.errno,
                f"zoo.load: the disk of {cache.folder()} is full. Free some space and "
                "try again, which goes on where it ended; or set KSSL_CACHE to a "
                "folder on another disk.",
            ) from None
        if error.filename is not None:
            raise OSError(
                f"zoo.load: the cache {cache.folder()} cannot be written "
                f"({error.strerror}). Set KSSL_CACHE to a folder that can."
            ) from None
        raise
    return _checked(place, address, sha256)


def _checked(place, address, sha256):
    if sha256 is not None:
        _check_digest(place, place, address, sha256)
    return place


def _fetch(address, real, place, sha256, say):
    part = place.with_name(f"{place.name}.part")
    say(f"Downloading {real}")
    reason = None
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
            say(f"Trying again: {reason}")
        try:
            _transfer(real, part, address, place)
        except _Broken as error:
            reason = str(error)
            continue
        digest = _check_digest(part, place, address, sha256)
        os.replace(part, place)
        _notes_of(part).unlink(missing_ok=True)
        if sha256 is None:
            say(
                f"The SHA-256 that {place.name} should have is not known. It has "
                f"{digest}"
            )
        return
    kept = part.stat().st_size if part.is_file() else 0
    raise ConnectionError(
        f"zoo.load: {real} cannot be fetched ({reason}). "
        + (f"Trying again goes on after {kept:,} bytes. " if kept else "")
        + _by_hand(address, place)
    )


def _transfer(real, part, address, place):
    """One attempt at the rest of a file."""
    start, headers = _half_of(part)
    headers["User-Agent"] = f"keras_kssl/{keras_kssl.__version__}"
    headers["Accept-Encoding"] = "identity"
    request = urllib.request.Request(real, headers=headers)
    try:
        with _opener().open(request, timeout=TIMEOUT) as response:
            _receive(response, part, start)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                part.unlink(missing_ok=True)
            if error.code in _PASSING:
                raise _Broken(f"the server answers {error.code}") from None
            raise _refused(error, real, address, place) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ConnectionError(
                f"zoo.load: {real} must prove who it is by a certificate. Received: "
                f"{error.reason.verify_message}. Is there a proxy in between? "
                f"{_by_hand(address, place)}"
            ) from None
        raise _Broken(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        # What has a file's name, and a full disk, is of this machine.
        if isinstance(error, OSError) and (error.filename or error.errno in _FULL):
            raise
        raise _Broken(str(error) or type(error).__name__) from None


def _receive(response, part, start):
    """Writes what a server sends behind what is there, or anew."""
    seen = {
        "etag": response.headers.get("ETag"),
        "modified": response.headers.get("Last-Modified"),
    }
    total = response.headers.get("Content-Length")
    is_number = total and total.isascii() and total.isdigit()
    total = int(total) if is_number else None
    if response.status == 206 and start:
        first, total = _content_range(response.headers.get("Content-Range", ""))
        known = json.loads(_notes_of(part).read_text())
        if first != start or {**seen, "total": total} != known:
            part.unlink(missing_ok=True)
            raise _Broken("the file has changed since a part of it was fetched")
    elif response.status == 200:
        start = 0
        if response.headers.get_content_type() == "text/html":
            raise ValueError(
                f"zoo.load: {response.url} must give a file. Received: a web page. "
                "Does the network or the site ask for a login?"
            )
        part.unlink(missing_ok=True)
        write_whole(_notes_of(part), json.dumps({**seen, "total": total}))
    else:
        raise _Broken(f"the server answers {response.status}")
    if total is not None and shutil.disk_usage(part.parent).free < total - start:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with open(part, "ab") as file, bytes_bar(part.stem, total, start) as show:
        done = start + _copy(response, file, show)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise _Broken(f"the connection ended after {done:,} of {total:,} bytes")


def _copy(response, file, show):
    """Copies until the end; gives up a server that is silent or too slow."""
    done = 0
    began, done_then = time.monotonic(), 0
    # No more than what has come is waited for, or a slow server could not be told.
    while block := response.read1(_BLOCK):
        file.write(block)
        done += len(block)
        show(len(block))
        seconds = time.monotonic() - began
        if seconds > TIMEOUT:
            if done - done_then < _SLOWEST * seconds:
                raise TimeoutError(f"less than {_SLOWEST} bytes a second came in")
            began, done_then = time.monotonic(), done
    return done


def _half_of(part):
    """Bytes that are there of the same file, and the headers that ask for the rest."""
    try:
        known = json.loads(_notes_of(part).read_text())
        start = part.lstat().st_size
        etag, modified, total = (known[key] for key in ("etag", "modified", "total"))
        # A weak tag does not stand for the same bytes.
        is_strong = etag and not etag.startswith("W/")
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return 0, {}
    validator = etag if is_strong else modified
    if part.is_symlink() or not start or not validator or start == total:
        return 0, {}
    return start, {"Range": f"bytes={start}-", "If-Range": validator}


def _content_range(text):
    """First byte and length of the whole, of "bytes 5-99/100"."""
    with contextlib.suppress(ValueError):
        span, _, total = text.removeprefix("bytes ").partition("/")
        return int(span.partition("-")[0]), int(total)
    return None, None


def _notes_of(part):
    return part.with_name(f"{part.name}.json")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that could have been asked for alone."""

    def redirect_request(self, request, file, code, text, headers, new_address):
        addresses.check_host(new_address, "redirected to")
        check_that(
            request.type == "http" or new_address.lower().startswith("https:"),
            "zoo.load",
            "redirected to",
            f"an https:// address, as {request.host}'s own",
            new_address,
        )
        return super().redirect_request(request, file, code, text, headers, new_address)


def _opener():
    return urllib.request.build_opener(_Redirects)


def _check_digest(path, place, address, sha256):
    """The SHA-256 of a file; a wrong file is put aside."""
    digest = sha256_of(path)
    if sha256 is not None and digest != sha256.lower():
        aside = place.with_name(f"{place.name}.wrong")
        os.replace(path, aside)
        _notes_of(path).unlink(missing_ok=True)
        raise ValueError(
            f"zoo.load: the file of {address} must have the SHA-256 {sha256}. "
            f"Received: {digest}. It was put aside as {aside}. Try again; if that does "
            "not help, the file is another one than was meant."
        )
    return digest


def _refused(error, real, address, place):
    kinds = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}
    kinds[410] = FileNotFoundError
    kind = kinds.get(error.code, ConnectionError)
    return kind(
        f"zoo.load: {real} cannot be fetched (the server answers {error.code} "
        f"{error.reason}). {_by_hand(address, place)}"
    )


def _by_hand(address, place):
    return f"By hand: fetch {address} and put it at {place}"
