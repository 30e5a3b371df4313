"""What root alone can do is done by a process that is started for it."""

import grp
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.supervisor.privileges import Account, drop, hand_over, parse_umask, resolve

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

ME = pwd.getpwuid(os.geteuid())
NOBODY = pwd.getpwnam("nobody")
UNKNOWN = next(number for number in range(54_321, 60_000) if number not in {u.pw_uid for u in pwd.getpwall()})

REPORT = """
import json, os, sys
from headrace.errors import HeadraceError
from headrace.supervisor.privileges import Account, drop, hand_over, resolve
sentence = ""
try:
    {code}
except HeadraceError as error:
    sentence = f"{{type(error).__name__}}: {{error}}"
print(json.dumps([os.getresuid(), os.getresgid(), sorted(os.getgroups()), sentence]))
"""


def in_a_child(code: str, *arguments: str) -> tuple[list[int], list[int], list[int], str]:
    """User numbers, group numbers and groups of a process that has done ``code``, and its error."""
    command = [sys.executable, "-c", REPORT.format(code=code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: Any = json.loads(done.stdout)
    return result


def sentence(user: str | None, group: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(user, group)
    return str(caught.value)


class TestResolve:
    def test_nothing(self) -> None:
        assert resolve(None, None) is None

    @pytest.mark.parametrize("user", [ME.pw_name, str(ME.pw_uid)])
    def test_oneself(self, user: str) -> None:
        account = resolve(user, None)
        assert account is not None
        assert (account.uid, account.gid) == (ME.pw_uid, ME.pw_gid)
        assert account.words == f"user {user!r}"
        drop(account)
        hand_over(["/nonexistent"], account)

    @needs_root
    @pytest.mark.parametrize("user", ["nobody", str(NOBODY.pw_uid)])
    def test_name_and_number(self, user: str) -> None:
        account = resolve(user, None)
        assert account is not None
        assert (account.uid, account.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
        assert NOBODY.pw_gid in account.groups

    @needs_root
    def test_group(self) -> None:
        group = next(entry for entry in grp.getgrall() if entry.gr_gid not in (0, NOBODY.pw_gid))
        account = resolve("nobody", group.gr_name)
        assert account is not None
        assert account.gid == group.gr_gid
        assert account.groups[0] == group.gr_gid
        assert account.words == f"user 'nobody' and group {group.gr_name!r}"
        by_number = resolve(None, str(group.gr_gid))
        assert by_number is not None
        assert (by_number.uid, by_number.gid) == (0, group.gr_gid)

    @needs_root
    def test_a_number_without_an_entry_needs_a_group(self) -> None:
        assert sentence(str(UNKNOWN)) == (
            f"--user {UNKNOWN}: this system knows no such user's group, so --group must name it."
        )
        assert resolve(str(UNKNOWN), "12") == Account(UNKNOWN, 12, (12,), f"user '{UNKNOWN}' and group '12'")

    def test_unknown(self) -> None:
        assert sentence("no-such-user") == "--user no-such-user: this system knows no such user."
        assert sentence(None, "no-such-group") == "--group no-such-group: this system knows no such group."
        assert sentence("4294967295") == "4294967295 is no number of a user or a group."
        assert sentence(None, "9" * 99).endswith(" is no number of a user or a group.")

    @needs_root
    def test_who_is_not_root_is_told(self) -> None:
        users, _, _, error = in_a_child("os.setuid(65534); resolve('root', None)")
        assert error == (
            f"ConfigError: Only root can become user 'root', and this process runs as user "
            f"{pwd.getpwuid(65534).pw_name!r}; start it as root, or leave --user and --group out."
        )
        assert users == [65534] * 3


@needs_root
class TestDrop:
    def test_everything_and_for_good(self) -> None:
        code = "os.setgroups([0, 4, 24]); drop(resolve('nobody', None))"
        users, groups, more, error = in_a_child(code)
        assert (users, groups, error) == ([NOBODY.pw_uid] * 3, [NOBODY.pw_gid] * 3, "")
        assert more == sorted(os.getgrouplist("nobody", NOBODY.pw_gid))

    def test_root_is_gone(self) -> None:
        for call in ("os.setuid(0)", "os.seteuid(0)", "os.setgid(0)", "os.setgroups([0])"):
            code = f"drop(resolve('nobody', None)); exec({call!r})"
            with pytest.raises(subprocess.CalledProcessError):
                in_a_child(code)

    def test_the_group_alone(self) -> None:
        users, groups, more, error = in_a_child("drop(resolve(None, '65534'))")
        assert (users, groups, error) == ([0] * 3, [65534] * 3, "")
        assert more == sorted({65534, *os.getgrouplist("root", 65534)})

    def test_twice(self) -> None:
        users, _, _, error = in_a_child("drop(resolve('nobody', None)); drop(resolve('nobody', None))")
        assert (users, error) == ([NOBODY.pw_uid] * 3, "")

    def test_what_the_kernel_forbids(self) -> None:
        _, _, _, error = in_a_child("os.setuid(65534); drop(Account(0, 0, (0,), \"user 'root'\"))")
        assert error == "ConfigError: This process cannot become user 'root': Operation not permitted."

    def test_what_could_be_undone_goes_no_further(self) -> None:
        # As a broken setuid would leave it: root is in the saved number still.
        code = "os.setuid = lambda uid: os.setresuid(uid, uid, 0); drop(resolve('nobody', None))"
        _, _, _, error = in_a_child(code)
        assert error == (
            "WorkerError: This process became user 'nobody', but not for good; it goes no further."
        )

    def test_hand_over(self, tmp_path: Path) -> None:
        (tmp_path / "made").touch()
        (tmp_path / "link").symlink_to("made")
        account = resolve("nobody", None)
        hand_over([str(tmp_path / "link")], account)
        assert os.lstat(tmp_path / "link").st_uid == NOBODY.pw_uid
        assert os.stat(tmp_path / "made").st_uid == 0
        hand_over([str(tmp_path / "made")], account)
        found = os.stat(tmp_path / "made")
        assert (found.st_uid, found.st_gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
        with pytest.raises(ConfigError, match=r"^'/no/such' cannot be given to user 'nobody': No such file"):
            hand_over(["/no/such"], account)


def test_none_changes_nothing() -> None:
    drop(None)
    hand_over(["/no/such"], None)


@pytest.mark.parametrize(("text", "mask"), [("027", 0o27), ("0", 0), ("0o022", 0o22), ("777", 0o777)])
def test_umask(text: str, mask: int) -> None:
    assert parse_umask(text) == mask


@pytest.mark.parametrize("text", ["", "8", "1000", "-1", "rw"])
def test_bad_umask(text: str) -> None:
    with pytest.raises(ConfigError, match="must be octal digits up to 0777"):
        parse_umask(text)
