"""`speciate completion bash | zsh | fish`: a script that completes commands, options, tools and their arguments.

The words are in the script, so that completing starts no Python. It is printed anew after an update.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from speciate.cli.output import say
from speciate.server.mcp.app import offered_tools
from speciate.server.mcp.arguments import input_schema
from speciate.server.tool_api import DECLARED

Words = dict[str, tuple[str, ...]]
"""Words that were typed, without options (`call control_job`) -> what may come next; `name=` wants a value, as does an
option that has some: `token create --role=`."""

_HOW = {
    "bash": "speciate completion bash > ~/.local/share/bash-completion/completions/speciate",
    "zsh": "speciate completion zsh > ~/.speciate.zsh, and in ~/.zshrc: source ~/.speciate.zsh",
    "fish": "speciate completion fish > ~/.config/fish/completions/speciate.fish",
}

_BASH = """\
_speciate() {
  local path="" name="" cur="${COMP_WORDS[COMP_CWORD]}" before="" i word words
  local last="${COMP_WORDS[COMP_CWORD-1]}" known="|@PATHS@|" valued="|@VALUED@|"
  for ((i = 1; i < COMP_CWORD; i++)); do
    word="${COMP_WORDS[i]}"
    [[ "$word" == -* || "$word" == "=" || "${COMP_WORDS[i-1]}" == "=" || "$word" == *=* ]] && continue
    [[ "${COMP_WORDS[i+1]}" == "=" ]] && continue
    [[ "$known" == *"|${path:+$path }$word|"* ]] && path="${path:+$path }$word"
  done
  if [[ "$cur" == "=" ]]; then name="${COMP_WORDS[COMP_CWORD-1]}="; cur=""
  elif [[ "$last" == "=" ]]; then name="${COMP_WORDS[COMP_CWORD-2]}="
  elif [[ "$cur" == *=* ]]; then name="${cur%%=*}="; before="$name"; cur="${cur#*=}"
  elif [[ "$valued" == *"|$path $last|"* ]]; then name="$last="
  fi
  case "$path $name" in
@CASES@
    *) words="" ;;
  esac
  COMPREPLY=($(compgen -P "$before" -W "$words" -- "$cur"))
  [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *= ]] && type compopt >/dev/null 2>&1 && compopt -o nospace
  return 0
}
complete -o default -F _speciate speciate
"""


def completion(arguments: argparse.Namespace) -> int:
    """Print the script of one shell."""
    tools = {tool.name: input_schema(DECLARED[tool.name].arguments)["properties"] for tool in offered_tools()}
    words = words_of(arguments.commands, tools)
    script = {"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](words)
    say(f"# {_HOW[arguments.shell]}\n{script}".rstrip())
    return 0


def words_of(parser: argparse.ArgumentParser, tools: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> Words:
    """The words that complete each command of a parser; `tools`: name -> argument -> schema, which follow `call`."""
    words = dict(_below(parser, ""))
    words["call"] = (*sorted(tools), *words["call"])
    for tool, fields in tools.items():
        words[f"call {tool}"] = (*(f"{name}=" for name in fields), "--wait", "--image", "--help")
        for name, field in fields.items():
            if values := ("true", "false") if field.get("type") == "boolean" else field.get("enum"):
                words[f"call {tool} {name}="] = tuple(map(str, values))
    return words


def _below(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each command below `path`, with its choices and options; of several names only the first, the present one."""
    options, choices = list[str](), list[str]()
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if flag.startswith("--")]
        options += flags[:1]
        if isinstance(action, argparse._SubParsersAction):
            choices += _commands(action)
        elif not action.option_strings:
            choices += map(str, action.choices or ())
        elif flags and action.choices:
            yield f"{path} {flags[0]}=".strip(), tuple(map(str, action.choices))
    yield path, (*choices, *options)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in _commands(action).items():
                yield from _below(inner, f"{path} {name}".strip())


def _commands(action: argparse._SubParsersAction[argparse.ArgumentParser]) -> dict[str, argparse.ArgumentParser]:
    found = dict[str, argparse.ArgumentParser]()
    for name, inner in action.choices.items():
        if inner not in found.values():
            found[name] = inner
    return found


def bash(words: Words) -> str:
    cases = [
        f'    "{path}{"" if path.endswith("=") else " "}") words="{" ".join(some)}" ;;'
        for path, some in words.items()
        if some
    ]
    paths = "|".join(path for path in words if path and not path.endswith("="))
    valued = "|".join(path.removesuffix("=") for path in words if " --" in path)
    return _BASH.replace("@CASES@", "\n".join(cases)).replace("@PATHS@", paths).replace("@VALUED@", valued)


def zsh(words: Words) -> str:
    return f"autoload -U +X compinit bashcompinit\ncompinit\nbashcompinit\n{bash(words)}"


def fish(words: Words) -> str:
    """One condition for each path: the words so far, without options and arguments of tools."""
    lines = [
        "function __speciate_at",
        "    set -l typed (commandline -opc)[2..-1]",
        "    set -l path",
        "    for word in $typed",
        "        string match -qr '^-|=' -- $word; or set -a path $word",
        "    end",
        '    test "$path" = "$argv"',
        "end",
        "complete -c speciate -f",
    ]
    for path, some in words.items():
        if path.endswith("="):
            continue
        given = [f"{each}{value}" for each in some for value in words.get(f"{path} {each}", ("",))]
        plain = " ".join(each for each in given if not each.startswith("-"))
        if plain:
            lines.append(f"complete -c speciate -n '__speciate_at {path}' -a '{plain}'")
        lines += [
            f"complete -c speciate -n '__speciate_at {path}' -l {each.removeprefix('--')}{_values(words, path, each)}"
            for each in some
            if each.startswith("--")
        ]
    return "\n".join(lines)


def _values(words: Words, path: str, option: str) -> str:
    values = words.get(f"{path} {option}=".strip())
    return f" -x -a '{' '.join(values)}'" if values else ""
