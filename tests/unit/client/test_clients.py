from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import deltadatabase
from deltadatabase import AsyncClient, Client
from deltadatabase.errors import Invalid

KEY = "dk_hunter2-hunter2-hunter2"


def public(client):
    return {
        name: method
        for name, method in inspect.getmembers(client, callable)
        if not name.startswith("_") and name != "close"
    }


def test_both_clients_do_the_same():
    one, other = public(Client), public(AsyncClient)
    assert one.keys() == other.keys()
    for name, method in one.items():
        ours, theirs = inspect.signature(method), inspect.signature(other[name])
        assert [
            (parameter.name, parameter.kind, parameter.default) for parameter in ours.parameters.values()
        ] == [(parameter.name, parameter.kind, parameter.default) for parameter in theirs.parameters.values()]
        assert method.__doc__ and other[name].__doc__


def test_importing_the_package_imports_no_client():
    code = "import sys, deltadatabase; sys.exit(any(m in sys.modules for m in ('httpx', 'msgspec', 'grpc')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_client_imports_no_server():
    code = (
        "import sys; from deltadatabase import Client\n"
        "server = {'grpc', 'litestar', 'granian', 'cryptography', 'obstore', 'structlog'}\n"
        "print(sorted(server & sys.modules.keys()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "[]"


def test_the_package_has_no_other_names():
    with pytest.raises(AttributeError):
        _ = deltadatabase.nonsense


def test_nobody_shows_the_key(monkeypatch):
    for client in (Client("http://h", KEY), AsyncClient("http://h", KEY)):
        assert "hunter2" not in repr(client)
        assert "hunter2" not in repr(vars(client))


def test_url_and_key_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("DELTADB_URL", "http://db.example:1234/")
    monkeypatch.setenv("DELTADB_KEY", KEY)
    with Client() as client:
        assert repr(client) == "Client(url='http://db.example:1234/')"
        request = client._http.build_request("GET", "/x")
        assert str(request.url) == "http://db.example:1234/x"
        assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"url": "h"}, "bad_url"),
        ({"key": "a\nb"}, "bad_key"),
        ({"tls_ca": "/etc/passwd"}, "bad_tls_ca"),
        ({"tls_ca": "/nowhere"}, "bad_tls_ca"),
    ],
)
def test_what_no_client_can_be_made_of_is_told(arguments, code):
    for kind in (Client, AsyncClient):
        with pytest.raises(Invalid) as caught:
            kind(**arguments)
        assert caught.value.code == code
