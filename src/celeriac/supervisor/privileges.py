"""``--uid``, ``--gid`` and ``--umask``: what a node that root starts gives up."""

from __future__ import annotations

import grp
import os
import pwd

from celeriac.exceptions import ImproperlyConfigured

__all__ = ["drop_privileges"]


def drop_privileges(uid: str | None, gid: str | None, umask: str | None = None) -> None:
    """Become a user and group, by name or number, for good; ``umask`` is octal.

    The group defaults to the user's. Raises ``ImproperlyConfigured`` for unknown names, and without rights.
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
        if user is not None and os.geteuid() == 0:
            os.initgroups(user.pw_name, target)
        os.setgid(target)
        if user is not None:
            os.setuid(user.pw_uid)
    except PermissionError:
        raise ImproperlyConfigured("--uid and --gid need root: start as root, or leave them out") from None


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
