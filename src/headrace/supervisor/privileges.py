"""``--user``, ``--group`` and ``--umask``: whom the server is when its listeners are bound."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headrace.errors import ConfigError, WorkerError

if sys.platform != "win32":
    import grp
    import pwd


@dataclass(frozen=True, slots=True)
class Account:
    """Whom to become.

    Attributes:
        uid, gid: the numbers.
        groups: all groups of the process; the kernel asks them when a file is opened.
        words: the operator's, for messages: "user 'www-data'".
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    words: str


def resolve(user: str | None, group: str | None) -> Account | None:
    """Look up whom to become, and see that this process may; before anything is started.

    Args:
        user: a name or a number; None keeps the user.
        group: a name or a number; None takes the user's own. A user by number that the system does not know
            needs one.

    Returns:
        The account, or None where the process stays who it is.

    Raises:
        ConfigError: unknown, or not permitted: one sentence.
    """
    if user is None and group is None:
        return None
    if sys.platform == "win32":
        raise ConfigError("--user and --group do not exist on Windows.")
    uid, own_gid, name = (os.geteuid(), os.getegid(), _name_of(os.geteuid())) if user is None else _user(user)
    gid = own_gid if group is None else _group(group)
    if gid is None:
        raise ConfigError(f"--user {user}: this system knows no such user's group, so --group must name it.")
    words = " and ".join(
        f"{what} {value!r}" for what, value in (("user", user), ("group", group)) if value is not None
    )
    account = Account(uid, gid, _groups_of(name, gid), words)
    if os.geteuid() != 0 and not _is_already(account):
        raise ConfigError(
            f"Only root can become {words}, and this process runs as user {_name_of(os.geteuid())!r}; "
            "start it as root, or leave --user and --group out."
        )
    return account


def drop(account: Account | None) -> None:
    """Become the account, for good; None stays who it is.

    The order must not change: groups are root's to set, so the user comes last. The kernel forgets the signal
    that the parent's death was to send (prctl(2), PR_SET_PDEATHSIG), so that is asked for afterwards.

    Raises:
        ConfigError: the kernel does not permit it.
        WorkerError: it could be undone.
    """
    if account is None or sys.platform == "win32" or _is_already(account):
        return
    try:
        os.setgroups(account.groups)
        # Of root these set the real, the effective and the saved number alike, on all systems.
        os.setgid(account.gid)
        os.setuid(account.uid)
    except OSError as error:
        raise ConfigError(f"This process cannot become {account.words}: {error.strerror}.") from error
    if not _is_for_good(account):
        raise WorkerError(f"This process became {account.words}, but not for good; it goes no further.")


def hand_over(paths: Iterable[str], account: Account | None) -> None:
    """Give files that were made before the drop, Unix sockets above all, to the account; None keeps them.

    Call it before ``drop``. A pid file is better kept: who may write it chooses whom root's scripts kill.

    Raises:
        ConfigError: one of them cannot be given away.
    """
    if account is None or sys.platform == "win32" or _is_already(account):
        return
    for path in paths:
        try:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        except OSError as error:
            raise ConfigError(f"{path!r} cannot be given to {account.words}: {error.strerror}.") from error


def parse_umask(text: str) -> int:
    """The mask that ``--umask`` means; the rules have seen that it is octal.

    Raises:
        ConfigError: it is no octal number from 0 to 0777.
    """
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise ConfigError(f"--umask is {text[:80]!r}, but it must be octal digits up to 0777, such as '027'.")
    return mask


def _user(text: str) -> tuple[int, int | None, str]:
    """Number, group and name; without a group for a number that stands in no book."""
    try:
        entry = pwd.getpwuid(_number(text)) if text.isdecimal() else pwd.getpwnam(text)
    except KeyError:
        if text.isdecimal():
            return _number(text), None, text
        raise ConfigError(f"--user {text[:80]}: this system knows no such user.") from None
    return entry.pw_uid, entry.pw_gid, entry.pw_name


def _group(text: str) -> int:
    if text.isdecimal():
        return _number(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise ConfigError(f"--group {text[:80]}: this system knows no such group.") from None


def _number(text: str) -> int:
    # The highest one means "none" to the kernel.
    if len(text) > 10 or int(text) >= 2**32 - 1:
        raise ConfigError(f"{text[:80]} is no number of a user or a group.")
    return int(text)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _groups_of(name: str, gid: int) -> tuple[int, ...]:
    """All groups of a user, as many as a process may have; the one alone of an unknown user."""
    groups = dict.fromkeys((gid, *os.getgrouplist(name, gid)))
    return tuple(groups)[: os.sysconf("SC_NGROUPS_MAX")]


def _is_already(account: Account) -> bool:
    """Whether this process's user and group, real, effective and saved, are the account's."""
    users, groups = {os.getuid(), os.geteuid()}, {os.getgid(), os.getegid()}
    if hasattr(os, "getresuid"):
        users.update(os.getresuid())
        groups.update(os.getresgid())
    return users == {account.uid} and groups == {account.gid}


def _is_for_good(account: Account) -> bool:
    """Whether all is the account's, and root cannot be had back."""
    if not _is_already(account) or not set(os.getgroups()) <= set(account.groups):
        return False
    if account.uid == 0:
        # Root may take any group, and be whom it likes.
        return True
    return not (_succeeds(os.setuid) or _succeeds(os.seteuid) or (account.gid != 0 and _succeeds(os.setgid)))


def _succeeds(become: Callable[[int], None]) -> bool:
    try:
        become(0)
    except OSError:
        return False
    return True
