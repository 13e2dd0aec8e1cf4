"""The verb `completion`: a script by which a shell completes verbs, their options and choices."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from edgevision.cli.exits import OK
from edgevision.cli.terminal import put_json
from edgevision.cli.verbs import Verbs, verb

SHELLS = ("bash", "zsh", "fish")
# zsh takes bash's script by its own loader; what is not an option or choice is completed as a file.
_BASH = """\
{first}_edgevision() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  case "${{COMP_WORDS[1]}} $before" in
{choices}
  esac
  if [ -z "$words" ]; then
    if [ "$COMP_CWORD" -eq 1 ]; then words="{verbs}"; else
      case "${{COMP_WORDS[1]}}" in
{options}
      esac
      case "$word" in -*) ;; *) words="" ;; esac
    fi
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _edgevision edgevision
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def add_to(verbs: Verbs) -> None:
    """Add the verb."""
    completion = verb(verbs, "completion", _completion, example="completion bash")
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(verbs=verbs)


def script(shell: str, verbs: Verbs) -> str:
    """Return what a shell reads at its start to complete edgevision's command line."""
    table = {name: dict(_options(sub)) for name, sub in verbs._name_parser_map.items()}
    names = [name for name in table if " " not in name]
    if shell == "fish":
        lines = [f"complete -c edgevision -n __fish_use_subcommand -a '{' '.join(names)}'"]
        for name in names:
            seen = f"complete -c edgevision -n '__fish_seen_subcommand_from {name}' -l"
            for option, choices in table[name].items():
                more = f" -x -a '{' '.join(choices)}'" if choices else ""
                lines.append(f"{seen} {option.removeprefix('--')}{more}")
        return "\n".join(lines) + "\n"
    choices = [
        f'    "{name} {option}") words="{" ".join(values)}" ;;'
        for name in names
        for option, values in table[name].items()
        if values
    ]
    options = [f'        {name}) words="{" ".join(table[name])}" ;;' for name in names]
    return _BASH.format(
        first=_ZSH if shell == "zsh" else "",
        verbs=" ".join(names),
        choices="\n".join(choices),
        options="\n".join(options),
    )


def _options(sub: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """Yield each option that is not hidden, with what it may be."""
    for action in sub._actions:
        for option in action.option_strings:
            if option.startswith("--") and action.help != argparse.SUPPRESS:
                yield option, [str(choice) for choice in action.choices or ()]


def _completion(options: argparse.Namespace) -> int:
    """Print a script by which bash, zsh or fish completes edgevision's verbs and options."""
    text = script(options.shell, options.verbs)
    if not put_json(options, {"shell": options.shell, "script": text}):
        print(text, end="")
    return OK
