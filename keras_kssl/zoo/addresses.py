"""Addresses of files: which are taken, and what their files are called here."""

import re
import urllib.parse

from keras_kssl._checks import check_that

SCHEMES = ("https", "http", "hf", "kaggle")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Of names that files may have on all systems, and no name that hides.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,150}")


def scheme_of(text):
    """What stands before ://, in small letters; "" for what is no address."""
    scheme, mark, _ = text.partition("://")
    is_scheme = mark and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme)
    return scheme.lower() if is_scheme else ""


def checked(address, argument="name"):
    """The name of the file of a web address that is fit to be fetched.

    Raises:
        ValueError: for an address without encryption other than this machine's, with a
            password in it, or with a path that is not plain.
    """
    path = urllib.parse.urlsplit(check_host(address, argument)).path
    *folders, name = [urllib.parse.unquote(part) for part in path.split("/")]
    is_plain = not any(part in (".", "..") for part in folders)
    is_plain &= not any(mark in part for part in folders for mark in "/\\\0")
    _check_plain(address, argument, is_plain and _NAME.fullmatch(name))
    return name


def check_host(address, argument="name"):
    """Returns an address whose scheme, host and port are fit; see `checked`."""
    is_printable = address.isascii() and address.isprintable() and " " not in address
    rule = "an address in printable ASCII without spaces"
    check_that(is_printable, "zoo.load", argument, rule, address)
    try:
        parts = urllib.parse.urlsplit(address)
        host, is_port = parts.hostname, parts.port != 0
    except ValueError:
        host, is_port = None, False
    check_that(
        host and is_port, "zoo.load", argument, "an address with a host", address
    )
    check_that(
        parts.username is None and parts.password is None,
        "zoo.load",
        argument,
        "an address without a user and a password in it",
        f"{parts.scheme}://...@{host}",
        "It would end up in messages and files.",
    )
    is_safe = parts.scheme == "https"
    is_safe |= parts.scheme == "http" and host in _LOOPBACK
    check_that(
        is_safe,
        "zoo.load",
        argument,
        "an https:// address",
        address,
        "http:// is for servers on this machine alone, hf:// and kaggle:// for hubs.",
    )
    return address


def mirrored(address, mirror):
    """The address at a mirror, which takes the place of scheme and host."""
    if not mirror:
        return address
    parts = urllib.parse.urlsplit(address)
    query = f"?{parts.query}" if parts.query else ""
    return check_host(mirror, "KSSL_MIRROR") + parts.path + query


def hub_parts(address, least):
    """The plain parts of a hub's address: hf://USER/REPO/FILE -> USER, REPO, FILE.

    Args:
        address: the address.
        least: smallest number of parts, and how it is written.
    """
    parts = address.partition("://")[2].split("/")
    number, form = least
    check_that(len(parts) >= number, "zoo.load", "name", f"like {form}", address)
    _check_plain(address, "name", all(map(_NAME.fullmatch, parts)))
    return parts


def _check_plain(address, argument, is_plain):
    check_that(
        is_plain,
        "zoo.load",
        argument,
        "an address with a path of plain names (letters, digits, dots, dashes)",
        address,
        "Download the file yourself and give its path.",
    )
