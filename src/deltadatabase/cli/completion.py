"""``deltadb completion``: what shells need to complete commands and flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from deltadatabase.cli.commanding import EXIT_DONE, write
from deltadatabase.cli.commands import COMMANDS
from deltadatabase.cli.operators import OPERATORS
from deltadatabase.errors import StartupError
from deltadatabase.settings import CompletionSettings, flags_of

_BASH: Final = """\
# deltadb completion bash
_deltadb() {
    local word="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}" choices=""
    case "$command" in GROUPS) command="$command ${COMP_WORDS[2]}";; esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        choices="COMMANDS"
    elif [ "$COMP_CWORD" -eq 2 ]; then
        case "${COMP_WORDS[1]}" in
SUBCOMMANDS
        esac
    fi
    if [ -z "$choices" ]; then
        case "$word" in
            -*) case "$command" in
FLAGS
                esac;;
            *) return;;
        esac
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$word"))
}
complete -o default -F _deltadb deltadb
"""


def run(settings: CompletionSettings) -> int:
    """Print a script."""
    shell = settings.arguments[0]
    makers = {"bash": bash, "zsh": zsh, "fish": fish}
    if shell not in makers:
        raise StartupError("the shell is none of bash, zsh, fish", code="bad_flag")
    write(makers[shell](known()).encode())
    return EXIT_DONE


def known() -> dict[str, list[str]]:
    """Each command, and the flags that it has."""
    programs: dict[str, type] = {command.name: command.settings for command in COMMANDS}
    programs |= {name.removeprefix("deltadb "): settings for name, settings in OPERATORS.items()}
    return {name: _flags(settings) for name, settings in programs.items()}


def bash(flags: Mapping[str, list[str]]) -> str:
    """A script for bash."""
    groups = _groups(flags)
    subcommands = "\n".join(
        f'            {group}) choices="{" ".join(words)}";;' for group, words in groups.items()
    )
    cases = "\n".join(
        f'                "{name}") choices="{" ".join(known)}";;' for name, known in flags.items()
    )
    return (
        _BASH.replace("SUBCOMMANDS", subcommands)
        .replace("GROUPS", "|".join(groups))
        .replace("COMMANDS", " ".join(_first_words(flags)))
        .replace("FLAGS", cases)
    )


def zsh(flags: Mapping[str, list[str]]) -> str:
    """A script for zsh, which can use those for bash: ``_deltadb`` in a folder of ``fpath``, or sourced."""
    script = bash(flags)
    return f"#compdef deltadb\nautoload -U +X bashcompinit && bashcompinit\n{script}"


def fish(flags: Mapping[str, list[str]]) -> str:
    """A script for fish."""
    lines = ["# deltadb completion fish", "complete -c deltadb -n __fish_use_subcommand -f"]
    lines += [f"complete -c deltadb -n __fish_use_subcommand -a {word}" for word in _first_words(flags)]
    groups = _groups(flags)
    for group, words in groups.items():
        seen = f"__fish_seen_subcommand_from {group}"
        lines.append(f"complete -c deltadb -f -n '{seen}' -a '{' '.join(words)}'")
    for name, known in flags.items():
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        lines += [f"complete -c deltadb -n '{condition}' -o {flag.removeprefix('-')}" for flag in known]
    return "\n".join(lines) + "\n"


def _flags(settings: type) -> list[str]:
    names = []
    for _, flag in flags_of(settings):
        if not flag.hidden:
            names += [f"-{name}" for name in (flag.name, *flag.aliases)]
            names += [f"-{flag.name}-file"] if flag.is_secret else []
    return sorted([*names, "-h"])


def _first_words(flags: Mapping[str, list[str]]) -> list[str]:
    return sorted({name.split()[0] for name in flags})


def _groups(flags: Mapping[str, list[str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in flags:
        group, _, word = name.partition(" ")
        if word:
            groups.setdefault(group, []).append(word)
    return groups
