"""What a node gives up, and what it warns of. Ids are changed in forks of this process."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.exceptions import ImproperlyConfigured
from celeriac.supervisor import privileges
from celeriac.supervisor.privileges import dangers, drop_privileges

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
NOBODY = 65534


def in_fork(work: Callable[[], Any]) -> Any:
    """What ``work`` returns in a process of its own, or the text of what it raises."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            answer = work()
        except ImproperlyConfigured as error:
            answer = f"refused: {error}"
        except BaseException:  # noqa: BLE001 - told to the test
            answer = traceback.format_exc()
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def ids() -> dict[str, Any]:
    return {"uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups()}


@as_root
@pytest.mark.parametrize("name", ["nobody", str(NOBODY)])
def test_all_ids_go_and_cannot_be_had_again(name: str) -> None:
    def work() -> Any:
        os.setgroups([0, 4, 27])
        drop_privileges(name, None)
        again = []
        for change in (os.setuid, os.seteuid, os.setgid, os.setegid):
            try:
                change(0)
            except PermissionError:
                continue
            again.append(change.__name__)
        try:
            os.setgroups([0])
        except PermissionError:
            return {**ids(), "again": again}
        return "groups could be set"

    found = in_fork(work)
    assert found["uid"] == [NOBODY] * 3
    assert found["gid"] == [NOBODY] * 3
    assert set(found["groups"]) <= {NOBODY}
    assert found["again"] == []


@as_root
def test_a_group_alone_leaves_no_other_groups() -> None:
    def work() -> Any:
        os.setgroups([0, 4, 27])
        drop_privileges(None, str(NOBODY))
        return ids()

    assert in_fork(work) == {"uid": [0, 0, 0], "gid": [NOBODY] * 3, "groups": [NOBODY]}


@as_root
def test_a_drop_that_did_not_work_is_an_error() -> None:
    def work() -> Any:
        os.setresuid = lambda *ids: os.seteuid(ids[1])  # type: ignore[assignment] # the saved id stays root's
        drop_privileges("nobody", None)
        return "nobody noticed"

    assert "were not given up" in in_fork(work)


@as_root
def test_without_rights() -> None:
    def work() -> Any:
        drop_privileges("nobody", None)
        drop_privileges("root", None)

    assert "need root" in in_fork(work)


@pytest.mark.parametrize(
    ("uid", "gid", "umask"), [("no such user", None, None), (None, "no such group", None), (None, None, "9")]
)
def test_what_cannot_be(uid: str | None, gid: str | None, umask: str | None) -> None:
    with pytest.raises(ImproperlyConfigured):
        drop_privileges(uid, gid, umask)


def test_umask() -> None:
    assert in_fork(lambda: (drop_privileges(None, None, "027"), os.umask(0))[1]) == 0o027


# ---------------------------------------------------------------- what is said at each start


def said(monkeypatch: pytest.MonkeyPatch, *, root: bool = False, **conf: Any) -> list[str]:
    monkeypatch.setattr(privileges.os, "geteuid", lambda: 0 if root else 1000)
    monkeypatch.delenv("C_FORCE_ROOT", raising=False)
    settings = {"accept_content": ["json"], "result_accept_content": None, "signing_key": None, **conf}
    return list(dangers(SimpleNamespace(**settings)))


def test_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch) == []
    assert said(monkeypatch, accept_content=["json", "msgpack", "application/json"]) == []


@pytest.mark.parametrize("name", ["pickle", "yaml", "application/x-python-serialize", "PICKLE"])
def test_unsafe_content_is_told_unless_messages_are_signed(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (line,) = said(monkeypatch, accept_content=["json", name])
    assert "signing_key" in line
    assert len(said(monkeypatch, result_accept_content=[name])) == 1
    assert said(monkeypatch, accept_content=[name], signing_key="a key of sixteen bytes") == []


def test_root(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = said(monkeypatch, root=True)
    assert "runs as root" in line


def test_root_does_not_take_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    for conf in ({"accept_content": ["pickle"]}, {"result_accept_content": ["pickle"]}):
        with pytest.raises(ImproperlyConfigured, match="as root"):
            said(monkeypatch, root=True, **conf)
    monkeypatch.setattr(privileges.os, "geteuid", lambda: 0)
    monkeypatch.setenv("C_FORCE_ROOT", "1")
    conf = SimpleNamespace(accept_content=["pickle"], result_accept_content=None, signing_key=None)
    assert len(list(dangers(conf))) == 2
