"""``--uid``, ``--gid`` and ``--umask``: what a node that root starts gives up, for good; and what is dangerous."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from typing import Any

from celeriac.exceptions import ImproperlyConfigured
from celeriac.utils import platforms

__all__ = ["dangers", "drop_privileges"]

#: Serializers whose bytes can run code, and one that is a frequent way to run it, by name or content type.
_UNSAFE = {
    "pickle": "pickle",
    "application/x-python-serialize": "pickle",
    "yaml": "yaml",
    "application/x-yaml": "yaml",
}


def drop_privileges(uid: str | None, gid: str | None, umask: str | None = None) -> None:
    """Become a user and group, by name or number, for good; ``umask`` is octal.

    The group defaults to the user's; supplementary groups become the user's, or with ``gid`` alone that group. Raises
    ``ImproperlyConfigured`` for unknown names, without rights, and when the old rights could be had again.
    """
    if umask is not None:
        try:
            os.umask(int(umask, 8))
        except ValueError:
            raise ImproperlyConfigured(f"--umask {umask!r} is no octal number: write --umask 022") from None
    if uid is None and gid is None:
        return
    user = _user(uid) if uid is not None else None
    group = _group(gid) if gid is not None else None
    target = group if group is not None else user.pw_gid if user is not None else os.getgid()
    try:
        if os.geteuid() == 0:
            if user is not None:
                os.initgroups(user.pw_name, target)
            else:
                os.setgroups([target])
        os.setresgid(target, target, target)
        if user is not None:
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    except PermissionError:
        raise ImproperlyConfigured("--uid and --gid need root: start as root, or leave them out") from None
    if user is not None and user.pw_uid != 0:
        _verify(user, target)


def _verify(user: pwd.struct_passwd, group: int) -> None:
    """CVE-2011-4356: Celery changed some ids and kept others."""
    allowed = {group, *os.getgrouplist(user.pw_name, group)}
    kept = (
        set(os.getresuid()) != {user.pw_uid} or set(os.getresgid()) != {group} or not allowed.issuperset(os.getgroups())
    )
    if kept or _possible(lambda: os.setuid(0)) or (group != 0 and _possible(lambda: os.setgid(0))):
        raise ImproperlyConfigured(
            f"--uid {user.pw_name}: the rights of root were not given up; start as {user.pw_name}"
        )


def _possible(change: Any) -> bool:
    try:
        change()
    except PermissionError:
        return False
    return True


def _user(text: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)
    except KeyError:
        raise ImproperlyConfigured(f"--uid {text!r}: there is no such user") from None


def _group(text: str) -> int:
    try:
        return int(text) if text.isdigit() else grp.getgrnam(text).gr_gid
    except KeyError:
        raise ImproperlyConfigured(f"--gid {text!r}: there is no such group") from None


def dangers(conf: Any) -> Iterator[str]:
    """What a node says at each start about itself, a line each.

    Raises ``ImproperlyConfigured`` as root with pickle, unless Celery's ``C_FORCE_ROOT`` is set, in the environment or
    in ``celery.platforms``.
    """
    root = os.geteuid() == 0
    named = {*(conf.accept_content or ()), *(conf.result_accept_content or ())}
    unsafe = sorted({_UNSAFE[each] for each in (str(name).lower() for name in named) if each in _UNSAFE})
    if root and "pickle" in unsafe and not (os.environ.get("C_FORCE_ROOT") or platforms.C_FORCE_ROOT):
        raise ImproperlyConfigured(
            "as root a worker does not accept pickle: whoever can write to the broker would own this machine; "
            "use --uid, take pickle out of accept_content, or set C_FORCE_ROOT=1"
        )
    if root:
        yield "The worker runs as root, and so do its tasks: use --uid, or start it as another user"
    if unsafe and not conf.signing_key:
        names = " and ".join(unsafe)
        yield f"accept_content has {names}: who can write to the broker can run code here; set signing_key, or use json"
