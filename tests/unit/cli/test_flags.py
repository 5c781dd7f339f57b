from __future__ import annotations

import pytest

from deltadatabase.cli.flags import WIDTH, help_text
from deltadatabase.settings import (
    AdminKeySettings,
    DoctorSettings,
    MainSettings,
    ScrubSettings,
    ServeSettings,
    WorkerSettings,
    flags_of,
)


@pytest.mark.parametrize(
    "program", [MainSettings, ServeSettings, WorkerSettings, AdminKeySettings, ScrubSettings, DoctorSettings]
)
def test_help_lists_every_flag_with_default_and_environment(program):
    text = help_text("prog", "Does something.", program, ("prog -x=1",))
    flat = " ".join(text.split())
    assert text.startswith("usage: prog [flags]\n")
    assert "prog -x=1" in text
    for _, flag in flags_of(program):
        assert f"-{flag.name}" in flat
        if flag.hidden:
            continue
        assert flag.help in flat
        assert (flag.default_note or flag.default) in flat
        assert f"[{', '.join(flag.env_names)}]" in flat
        if flag.is_secret:
            assert f"-{flag.name}-file PATH" in flat
            assert f"[{flag.env}_FILE]" in flat
    assert "-h, -help" in flat
    assert "-version" in flat
    assert max(len(line) for line in text.splitlines()) <= WIDTH
