"""Where keys come from, and their file."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from outbox import keys
from outbox.errors import Refused, VaultError
from outbox.keys import Origin

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o600)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_is_one_that_fernet_takes_and_its_id_is_the_start_of_its_sha256() -> None:
    key = keys.new()
    Fernet(key.text)
    assert key.id == hashlib.sha256(base64.urlsafe_b64decode(key.text)).hexdigest()[:8]
    assert key.text not in repr(key)
    assert keys.new().text != key.text


@posix
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_created_key_file_is_for_its_owner_only_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        key = keys.create(tmp_path / "new" / "outbox.key")
    finally:
        os.umask(before)
    assert mode(tmp_path / "new" / "outbox.key") == 0o600
    assert keys.load(tmp_path / "new" / "outbox.key", {}).ids == (key.id,)


def test_an_existing_file_is_never_overwritten_by_create(tmp_path: Path) -> None:
    path = tmp_path / "outbox.key"
    keys.create(path)
    before = path.read_bytes()
    with pytest.raises(Refused, match="exists already"):
        keys.create(path)
    assert path.read_bytes() == before


def test_the_first_key_of_a_file_encrypts_and_comments_blank_lines_and_repeats_are_ignored(tmp_path: Path) -> None:
    first, second = keys.new(), keys.new()
    path = written(tmp_path / "k", "# ours", "", f"  {first.text}  # 2026", second.text, first.text)
    loaded = keys.load(path, {})
    assert loaded.ids == (first.id, second.id)
    assert loaded.source == f"file {path}"


def test_a_file_that_an_editor_began_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    key = keys.new()
    path = tmp_path / "k"
    path.write_bytes(b"\xef\xbb\xbf" + key.text.encode() + b"\r\n")
    path.chmod(0o600)
    assert keys.load(path, {}).ids == (key.id,)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-2],
        lambda text: text[:20] + " " + text[20:],
        lambda text: text[:20] + "+" + text[21:],
        lambda text: text + text,
        lambda text: "\x00" + text,
        lambda text: "hunter2",
    ],
)
def test_a_malformed_key_is_named_by_its_line_and_never_shown(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    broken = damage(keys.new().text)
    path = written(tmp_path / "k", "# comment", keys.new().text, broken)
    with pytest.raises(VaultError, match="line 3: not a key") as caught:
        keys.load(path, {})
    assert broken.strip() not in f"{caught.value} {caught.value.hint}"


@posix
@pytest.mark.parametrize("open_to", [0o640, 0o604, 0o620, 0o666])
def test_a_key_file_open_to_others_is_refused_with_the_command_that_closes_it(tmp_path: Path, open_to: int) -> None:
    path = tmp_path / "outbox.key"
    keys.create(path)
    path.chmod(open_to)
    with pytest.raises(VaultError, match=f"mode 0{open_to:o}") as caught:
        keys.load(path, {})
    assert caught.value.hint == f"chmod 600 {path}"


def test_a_named_file_that_is_missing_is_an_error_even_where_another_source_has_a_key(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="does not exist"):
        keys.load(tmp_path / "none", {"OUTBOX_KEYS": keys.new().text})


def test_a_directory_an_empty_file_and_a_huge_file_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="cannot read"):
        keys.load(tmp_path, {})
    with pytest.raises(VaultError, match="holds no key"):
        keys.load(written(tmp_path / "empty", "# nothing"), {})
    with pytest.raises(VaultError, match="larger than"):
        keys.load(written(tmp_path / "huge", "#" * 70_000), {})


def test_the_systemd_credential_comes_before_the_environment_and_keeps_its_own_permissions(tmp_path: Path) -> None:
    key = keys.new()
    credential = written(tmp_path / "outbox-key", key.text)
    credential.chmod(0o440)
    loaded = keys.load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path), "OUTBOX_KEYS": keys.new().text})
    assert (loaded.ids, loaded.origin) == ((key.id,), Origin.CREDENTIAL)
    assert loaded.source == "systemd credential outbox-key"


def test_keys_from_the_environment_are_taken_out_of_it() -> None:
    first, second = keys.new(), keys.new()
    environ = {"OUTBOX_KEYS": f"{first.text}, {second.text}", "PATH": "/bin"}
    loaded = keys.load(None, environ)
    assert (loaded.ids, loaded.source) == ((first.id, second.id), "OUTBOX_KEYS")
    assert environ == {"PATH": "/bin"}


def test_without_any_source_the_error_says_where_a_key_may_come_from() -> None:
    with pytest.raises(VaultError, match="there is no key") as caught:
        keys.load(None, {"OUTBOX_KEYS": "  "})
    assert "OUTBOX_KEY_FILE" in caught.value.hint


def test_a_malformed_key_in_the_environment_is_named_by_its_place() -> None:
    with pytest.raises(VaultError, match="OUTBOX_KEYS, key 2: not a key"):
        keys.load(None, {"OUTBOX_KEYS": f"{keys.new().text},oops"})


def test_an_added_key_comes_first_and_comments_stay(tmp_path: Path) -> None:
    path = written(tmp_path / "k", "# kept", keys.new().text)
    (old,) = keys.load(path, {}).ids
    added = keys.add(path)
    assert keys.load(path, {}).ids == (added.id, old)
    assert path.read_text(encoding="utf-8").startswith("# kept\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["k"]


@posix
def test_a_changed_key_file_keeps_its_mode_and_a_link_to_it_stays_a_link(tmp_path: Path) -> None:
    real = written(tmp_path / "real", keys.new().text)
    link = tmp_path / "link"
    link.symlink_to(real)
    keys.add(link)
    assert link.is_symlink()
    assert mode(real) == 0o600
    assert len(keys.load(link, {}).ids) == 2


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="changing owners needs root")
def test_a_key_file_changed_by_root_still_belongs_to_the_runners_user(tmp_path: Path) -> None:
    path = written(tmp_path / "k", keys.new().text)
    os.chown(path, 12345, 12345)
    keys.add(path)
    assert (path.stat().st_uid, path.stat().st_gid, mode(path)) == (12345, 12345, 0o600)


def test_a_retired_key_is_gone_and_the_others_keep_their_order(tmp_path: Path) -> None:
    trio = [keys.new() for _ in range(3)]
    path = written(tmp_path / "k", *(key.text for key in trio))
    keys.retire(path, trio[1].id)
    assert keys.load(path, {}).ids == (trio[0].id, trio[2].id)


def test_the_only_key_and_an_unknown_key_cannot_be_retired(tmp_path: Path) -> None:
    path = tmp_path / "k"
    key = keys.create(path)
    with pytest.raises(Refused, match="only key"):
        keys.retire(path, key.id)
    with pytest.raises(Refused, match="holds no key ffffffff"):
        keys.retire(path, "ffffffff")
    assert keys.load(path, {}).ids == (key.id,)
