"""The help text of a program, written from the declarations of its flags."""

from __future__ import annotations

import textwrap

from deltadatabase.settings import Flag, flags_of

WIDTH = 100
_INDENT = " " * 6


def help_text(usage: str, purpose: str, program: type, examples: tuple[str, ...]) -> str:
    """Return everything that ``-h`` prints: each flag with its default and environment variable.

    Args:
        usage: the program's name as it is typed, such as ``deltadb serve``.
        purpose: what it does, in a sentence or two.
        program: its settings class.
        examples: command lines that work.
    """
    plain = " ".join(getattr(program, "ARGUMENTS", ()))
    lines = [f"usage: {usage} [flags] {plain}".rstrip(), "", *textwrap.wrap(purpose, WIDTH), "", "examples:"]
    lines += [f"  {example}" for example in examples]
    lines += [
        "",
        "flags: -name=value, -name value or --name; the command line outranks the environment",
    ]
    shown = sorted((flag for _, flag in flags_of(program) if not flag.hidden), key=lambda flag: flag.name)
    for flag in shown:
        lines += _flag_lines(flag)
    lines += _lines_of("-h, -help", "print this text")
    lines += _lines_of("-version", "print the version")
    without_effect = [f"-{flag.name}" for _, flag in flags_of(program) if flag.hidden]
    if without_effect:
        lines += ["", f"accepted without effect: {', '.join(without_effect)}"]
    lines += ["", "durations: 500ms 1h30m 24h 7d; sizes: 256MiB 1GiB; :8080 is all IPv4 interfaces"]
    return "\n".join(lines) + "\n"


def _flag_lines(flag: Flag) -> list[str]:
    """Return the lines of a flag, and of the ``-…-file`` flag beside a secret."""
    names = ", ".join(f"-{name}" for name in (flag.name, *flag.aliases))
    default = flag.default_note or flag.default
    text = flag.help + (f" (default {default})" if default else "")
    lines = _lines_of(f"{names} {flag.kind.placeholder}".rstrip(), f"{text} [{', '.join(flag.env_names)}]")
    if flag.is_secret:
        lines += _lines_of(f"-{flag.name}-file PATH", f"file that holds it [{flag.env}_FILE]")
    return lines


def _lines_of(head: str, text: str) -> list[str]:
    return [f"  {head}", *textwrap.wrap(text, WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)]
