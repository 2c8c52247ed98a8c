"""Downloads: whole, checked and gone on with, from a server that misbehaves."""

import contextlib
import errno
import hashlib
import shutil
import threading
import types
import urllib.request

import numpy as np
import pytest

from keras_kssl.zoo import cache, download
from tests.web_server import File, serving

pytestmark = pytest.mark.any_backend

CONTENT = np.random.default_rng(0).bytes(5000)
OTHER = np.random.default_rng(1).bytes(5000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
DATE = "Wed, 21 Oct 2026 07:28:00 GMT"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The cache, in a folder of the test's own; no waiting between attempts."""
    for name in ("KSSL_OFFLINE", "KSSL_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)
    return tmp_path / "cache"


@pytest.fixture
def site():
    """A server with one file, at `site.address`."""
    with serving() as (site, root):
        site.root, site.address = root, f"{root}/v1/encoder.keras"
        site.file = site.files["/v1/encoder.keras"] = File(CONTENT)
        yield site


def fetch(address, sha256=None):
    said = []
    path = download.fetch(address, sha256, said.append)
    return path, said


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_file_is_fetched_once_and_lies_in_the_cache_alone(site, folder, tmp_path):
    path, said = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT
    assert path.name == "encoder.keras"
    assert folder in path.parents
    assert said == [f"Downloading {site.address}"]
    assert fetch(site.address, DIGEST) == (path, [])
    assert len(site.requests) == 1
    assert files_in(tmp_path) == [".lock", "encoder.keras"]


def test_addresses_that_end_alike_are_kept_apart(site):
    site.files["/v2/encoder.keras"] = File(OTHER)
    first, _ = fetch(site.address)
    second, _ = fetch(f"{site.root}/v2/encoder.keras")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, OTHER)


def test_an_unknown_digest_is_told_with_the_one_that_was_found(site):
    _, said = fetch(site.address)
    assert "not known" in said[-1]
    assert DIGEST in said[-1]


def test_a_broken_connection_is_taken_up_where_it_ended(site):
    site.file.cuts = [1000, 500]
    path, said = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT
    assert site.ranges() == [
        (None, None),
        ("bytes=1000-", '"1"'),
        ("bytes=1500-", '"1"'),
    ]
    assert "1,000 of 5,000 bytes" in said[1]


def test_a_download_that_was_given_up_goes_on_the_next_time(site, folder):
    site.file.cuts = [1000, 1000, 1000]
    with pytest.raises(ConnectionError, match="goes on after 3,000 bytes"):
        fetch(site.address, DIGEST)
    assert files_in(folder) == [
        ".lock",
        "encoder.keras.part",
        "encoder.keras.part.json",
    ]
    path, _ = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT
    assert site.ranges()[-1] == ("bytes=3000-", '"1"')


def test_a_server_without_ranges_sends_the_file_again(site):
    site.file.cuts, site.file.takes_ranges = [1000], False
    path, _ = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT
    assert len(site.requests) == 2


@pytest.mark.parametrize("heeds_if_range", [True, False])
@pytest.mark.parametrize("other", [OTHER, OTHER[:4000]], ids=["same", "shorter"])
def test_a_changed_file_is_not_glued_to_the_half_of_the_old_one(
    site, heeds_if_range, other
):
    site.file.cuts = [1000] * 3
    with pytest.raises(ConnectionError):
        fetch(site.address)
    site.files["/v1/encoder.keras"] = File(
        other, etag='"2"', heeds_if_range=heeds_if_range
    )
    path, _ = fetch(site.address)
    assert path.read_bytes() == other


@pytest.mark.parametrize(
    ("etag", "modified", "asked"),
    [
        (None, None, (None, None)),
        ('W/"1"', None, (None, None)),
        ('W/"1"', DATE, ("bytes=1000-", DATE)),
        (None, DATE, ("bytes=1000-", DATE)),
    ],
)
def test_only_what_the_server_vouches_for_is_gone_on_with(site, etag, modified, asked):
    site.file.etag, site.file.modified, site.file.cuts = etag, modified, [1000]
    path, _ = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT
    assert site.ranges()[1] == asked


def test_half_a_file_that_is_longer_than_the_whole_is_dropped(site, folder):
    site.file.cuts = [1000] * 3
    with pytest.raises(ConnectionError):
        fetch(site.address, DIGEST)
    (part,) = folder.rglob("*.part")
    part.write_bytes(b"x" * 6000)
    path, _ = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("content", ["{", "[]", "3", "{}", '{"etag": 3}', "\0"])
def test_notes_that_cannot_be_read_begin_the_file_anew(site, folder, content):
    site.file.cuts = [1000] * 3
    with pytest.raises(ConnectionError):
        fetch(site.address, DIGEST)
    (notes,) = folder.rglob("*.part.json")
    notes.write_text(content)
    path, _ = fetch(site.address, DIGEST)
    assert path.read_bytes() == CONTENT


def test_a_part_that_was_not_asked_for_is_not_taken_for_the_whole(site, folder):
    site.file.sends_parts = True
    with pytest.raises(ConnectionError, match="answers 206"):
        fetch(site.address)
    assert files_in(folder) == [".lock"]


@pytest.mark.parametrize("name", ["encoder.keras.part", "encoder.keras.wrong"])
@pytest.mark.parametrize("other", [CONTENT, OTHER])
def test_links_in_the_cache_do_not_lead_a_download_out_of_it(
    site, folder, tmp_path, name, other
):
    site.file.cuts = [1000] * 3
    with pytest.raises(ConnectionError):
        fetch(site.address, DIGEST)
    (part,) = folder.rglob("*.part")
    victim = tmp_path / "victim"
    victim.write_bytes(part.read_bytes())
    before = victim.read_bytes()
    link = part.with_name(name)
    link.unlink(missing_ok=True)
    link.symlink_to(victim)
    site.file.content = other
    if other is CONTENT:
        assert fetch(site.address, DIGEST)[0].read_bytes() == CONTENT
    else:
        with pytest.raises(ValueError, match="put aside"):
            fetch(site.address, DIGEST)
    assert victim.read_bytes() == before


@pytest.mark.parametrize("length", ["\xb2", "-1", "1e3", "5000, 5000", "9" * 30])
def test_lengths_that_are_no_lengths_end_in_a_sentence_or_the_file(site, length):
    site.file.length = length
    with contextlib.suppress(OSError):
        assert fetch(site.address, DIGEST)[0].read_bytes() == CONTENT


def test_a_file_of_unknown_length_is_taken_as_it_ends(site):
    site.file.tells_length = False
    assert fetch(site.address, DIGEST)[0].read_bytes() == CONTENT


def test_a_wrong_file_never_gets_the_name_and_is_put_aside(site, folder):
    site.file.content = OTHER
    with pytest.raises(ValueError, match=rf"SHA-256 {DIGEST}. Received: .*aside"):
        fetch(site.address, DIGEST)
    assert files_in(folder) == [".lock", "encoder.keras.wrong"]
    site.file.content = CONTENT
    assert fetch(site.address, DIGEST.upper())[0].read_bytes() == CONTENT


def test_a_file_that_was_damaged_in_the_cache_is_not_used(site):
    path, _ = fetch(site.address, DIGEST)
    path.write_bytes(OTHER)
    with pytest.raises(ValueError, match="put aside"):
        fetch(site.address, DIGEST)
    assert fetch(site.address, DIGEST)[0].read_bytes() == CONTENT


def test_a_file_that_was_put_there_by_hand_is_used(site):
    site.files.clear()
    with pytest.raises(FileNotFoundError, match=r"put it at (\S+)") as caught:
        fetch(site.address, DIGEST)
    place = str(caught.value).rpartition("put it at ")[2]
    with open(place, "wb") as file:
        file.write(CONTENT)
    asked = len(site.requests)
    assert str(fetch(site.address, DIGEST)[0]) == place
    assert len(site.requests) == asked


def test_redirects_are_followed(site):
    site.files["/latest/encoder.keras"] = File(location=site.address)
    path, _ = fetch(f"{site.root}/latest/encoder.keras", DIGEST)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    "location",
    ["http://192.0.2.1/encoder.keras", "ftp://127.0.0.1/a", "file:///etc/passwd"],
)
def test_redirects_out_of_encryption_or_into_files_are_refused(site, location):
    site.file.location = location
    with pytest.raises((ValueError, ConnectionError), match=r"https://|302"):
        fetch(site.address)


def test_redirects_do_not_lead_from_encryption_to_this_machine():
    request = urllib.request.Request("https://example.invalid/encoder.keras")
    arguments = (request, None, 302, "Found", {})
    with pytest.raises(ValueError, match=r"https:// address, as example\.invalid's"):
        download._Redirects().redirect_request(*arguments, "http://127.0.0.1/a.keras")
    new = download._Redirects().redirect_request(*arguments, "https://b.invalid/a")
    assert new.full_url == "https://b.invalid/a"


def test_redirects_in_a_circle_end(site):
    site.file.location = site.address
    with pytest.raises(ConnectionError, match="302"):
        fetch(site.address)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, FileNotFoundError),
        (410, FileNotFoundError),
        (401, PermissionError),
        (403, PermissionError),
        (400, ConnectionError),
    ],
)
def test_a_refusal_ends_at_once_and_says_what_to_do_by_hand(site, status, kind):
    site.file.statuses = [status] * 3
    with pytest.raises(kind, match=f"{status}.*By hand: fetch {site.address} and put"):
        fetch(site.address)
    assert len(site.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_three_times(site, status):
    site.file.statuses = [status, status]
    assert fetch(site.address, DIGEST)[0].read_bytes() == CONTENT
    site.files["/b.keras"] = File(statuses=[status] * 3)
    with pytest.raises(ConnectionError, match=str(status)):
        fetch(f"{site.root}/b.keras")
    assert len(site.requests) == 6


def test_a_machine_that_does_not_answer_is_no_mystery(site):
    with serving() as (_, root):
        pass
    with pytest.raises(ConnectionError, match=r"refused.*By hand"):
        fetch(f"{root}/encoder.keras")


def test_a_silent_server_is_given_up(site, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    site.file.seconds_per_block = 1.0
    with pytest.raises(ConnectionError, match="timed out"):
        fetch(site.address)
    assert len(site.requests) == 3


def test_a_server_that_trickles_is_given_up(site, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    monkeypatch.setattr(download, "_SLOWEST", 1000)
    site.file.seconds_per_block, site.file.block = 0.05, 1
    with pytest.raises(ConnectionError, match="less than 1000 bytes a second"):
        fetch(site.address)


def test_a_web_page_is_no_file(site, folder):
    site.file.kind = "text/html; charset=utf-8"
    with pytest.raises(ValueError, match=r"web page.*login"):
        fetch(site.address)
    assert files_in(folder) == [".lock"]


def test_a_mirror_takes_the_place_of_scheme_and_host(site, monkeypatch):
    site.files["/mirror/v1/encoder.keras?x=1"] = File(CONTENT)
    monkeypatch.setenv("KSSL_MIRROR", f"{site.root}/mirror/")
    address = "https://example.invalid:8443/v1/encoder.keras?x=1"
    path, _ = fetch(address, DIGEST)
    assert path.read_bytes() == CONTENT
    assert [where for where, _ in site.requests] == ["/mirror/v1/encoder.keras?x=1"]
    # What came from the mirror is the address's own file.
    monkeypatch.delenv("KSSL_MIRROR")
    assert fetch(address, DIGEST)[0] == path


def test_a_mirror_without_encryption_is_refused(site, monkeypatch):
    monkeypatch.setenv("KSSL_MIRROR", "http://192.0.2.1")
    with pytest.raises(ValueError, match="`KSSL_MIRROR` must be an https:// address"):
        fetch(site.address)


def test_offline_takes_what_is_there_and_asks_no_one(site, monkeypatch):
    monkeypatch.setenv("KSSL_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"KSSL_OFFLINE.*By hand: fetch http"):
        fetch(site.address)
    assert site.requests == []
    monkeypatch.setenv("KSSL_OFFLINE", "0")
    path, _ = fetch(site.address, DIGEST)
    monkeypatch.setenv("KSSL_OFFLINE", "1")
    assert fetch(site.address, DIGEST)[0] == path


def test_two_that_fetch_at_once_fetch_once(site):
    site.file.seconds_per_block, site.file.block = 0.05, 1000
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(site.address, DIGEST)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(site.requests) == 1
    assert [path.read_bytes() for path, _ in found] == [CONTENT] * 3
    waiting = [line for _, said in found for line in said if "waiting" in line]
    assert len(waiting) == 2


def test_a_disk_without_room_is_told_before_anything_is_fetched(site, monkeypatch):
    usage = types.SimpleNamespace(free=4999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"disk of .* is full.*KSSL_CACHE") as caught:
        fetch(site.address)
    assert caught.value.errno == errno.ENOSPC
    assert len(site.requests) == 1


def test_a_disk_that_fills_up_on_the_way_keeps_what_came(site, monkeypatch):
    blocks = []

    @contextlib.contextmanager
    def bar(*arguments):
        def show(count):
            blocks.append(count)
            if len(blocks) == 2:
                raise OSError(errno.ENOSPC, "No space left on device")

        yield show

    with monkeypatch.context() as patched:
        patched.setattr(download, "bytes_bar", bar)
        patched.setattr(download, "_BLOCK", 1000)
        with pytest.raises(OSError, match="goes on where it ended"):
            fetch(site.address, DIGEST)
    assert len(site.requests) == 1
    assert fetch(site.address, DIGEST)[0].read_bytes() == CONTENT
    assert site.ranges()[1] == (f"bytes={sum(blocks)}-", '"1"')


def test_a_cache_that_is_no_folder_is_told(site, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KSSL_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match=r"cannot be written.*KSSL_CACHE"):
        fetch(site.address)


@pytest.mark.parametrize(
    "address",
    [
        "https://example.invalid/../../encoder.keras",
        "https://example.invalid/a/%2e%2e/encoder.keras",
        "https://example.invalid/a/..",
        "https://example.invalid/..%2F..%2Fencoder.keras",
        "https://example.invalid/a%2Fb/encoder.keras",
        "https://example.invalid/a%5Cb/encoder.keras",
        "https://example.invalid/a%00b/encoder.keras",
        "https://example.invalid/.keras",
        "https://example.invalid/",
        "https://example.invalid",
        "https://example.invalid/" + 200 * "a" + ".keras",
        "https://user:secret@example.invalid/encoder.keras",
        "https://example.invalid:99999/encoder.keras",
        "https://[::1/encoder.keras",
        "https:///encoder.keras",
        "https://example.invalid/a b.keras",
        "https://example.invalid/a\n.keras",
        "https://exämple.invalid/a.keras",
        "http://example.invalid/encoder.keras",
        "http://127.0.0.1.example.invalid/encoder.keras",
        "ftp://127.0.0.1/encoder.keras",
        "file:///tmp/encoder.keras",
    ],
)
def test_hostile_addresses_are_refused_and_leave_nothing(address, folder):
    with pytest.raises(ValueError, match=r"zoo\.load: `name` must be an? ") as caught:
        fetch(address)
    assert "secret" not in str(caught.value)
    assert not folder.exists()


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("KSSL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / ".cache" / "keras_kssl"
