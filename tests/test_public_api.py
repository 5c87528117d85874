"""Public names, signatures and command-line options are those recorded in ``tests/data/public_api.json``.

After an intended change, record them again with ``python tests/test_public_api.py``.
"""

import inspect
import json
from pathlib import Path

import typer

import xinc_captum
from xinc_captum.cli.main import app

RECORDED = Path(__file__).with_name("data") / "public_api.json"


def signature(function):
    """Names, kinds and defaults of all parameters, without types: their modules may move."""
    parameters = inspect.signature(function).parameters.values()
    plain = [
        p.replace(annotation=p.empty, default=Shown(p.default) if p.default is not p.empty else p.empty)
        for p in parameters
    ]
    return str(inspect.Signature(plain))


class Shown:
    """A default value whose text holds no address."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        plain = inspect.isclass(self.value) or inspect.isfunction(self.value)
        return self.value.__qualname__ if plain else repr(self.value)


def members(cls):
    """Public methods and properties that the class or a base class of this package defines."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("xinc_captum"):
            for name, value in vars(base).items():
                if name.startswith("_"):
                    continue
                plain = getattr(value, "__func__", value)
                found[name] = signature(plain) if inspect.isfunction(plain) else type(value).__name__
    return found


def public_api():
    """Everything that is recorded, as JSON keeps it."""
    public = {}
    for name in xinc_captum.__all__:
        value = getattr(xinc_captum, name)
        if inspect.isclass(value):
            call = None if issubclass(value, BaseException) else signature(value)
            public[name] = {"call": call, "members": members(value)}
        elif callable(value):
            public[name] = {"call": signature(value)}
    commands = {
        name: [" ".join([type(p).__name__, *p.opts, *p.secondary_opts]) for p in command.params]
        for name, command in typer.main.get_command(app).commands.items()
    }
    return json.loads(json.dumps({"all": sorted(xinc_captum.__all__), "public": public, "commands": commands}))


def test_every_public_name_is_still_there():
    recorded = json.loads(RECORDED.read_text())
    assert public_api()["all"] == recorded["all"]


def test_every_public_signature_is_the_same():
    recorded, now = json.loads(RECORDED.read_text())["public"], public_api()["public"]
    assert now.keys() == recorded.keys()
    for name in recorded:
        assert now[name] == recorded[name], name


def test_every_command_takes_the_same_options():
    recorded, now = json.loads(RECORDED.read_text())["commands"], public_api()["commands"]
    assert now.keys() == recorded.keys()
    for name in recorded:
        assert now[name] == recorded[name], name


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(public_api(), indent=1) + "\n")
