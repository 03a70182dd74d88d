"""The scripts by which bash, zsh and fish ask ``completion``, and where a person keeps them.

``prefectlite completion`` shows and installs them, and ``completions/`` has them for packages. Each does
what only its shell can: it says where the cursor is, hands on the answer as words, and offers files.
What is offered is never evaluated. They ask the program that stands on the line, if it is there, so
that ``.venv/bin/prefectlite`` speaks for itself. This module must never read the environment.
"""

from __future__ import annotations

from enum import StrEnum


class Shell(StrEnum):
    """The shells that there is a script for."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


#: What the file of each is called, where the shell looks for it by the name of the command.
FILE_NAMES = {
    Shell.BASH: "prefectlite",
    Shell.ZSH: "_prefectlite",
    Shell.FISH: "prefectlite.fish",
}

# For bash 3.2 too, which macOS has: it knows no compopt, so there file names are offered wherever
# nothing else is. Words come quoted, and with the space after them.
_BASH = r"""# bash completion for prefectlite. Made by: prefectlite completion show bash

_prefectlite() {
    local line answer=() program=$1
    COMPREPLY=()
    case $program in "~/"*) program=$HOME/${program#"~/"} ;; esac
    type -P -- "$program" >/dev/null || program=prefectlite
    while IFS= read -r line; do
        answer+=("$line")
    done < <(
        "$program" __complete bash -- "${COMP_TYPE:-9}" "${COLUMNS:-80}" "$COMP_WORDBREAKS" \
            "${COMP_LINE:0:COMP_POINT}" 2>/dev/null </dev/null
    )
    if [[ ${answer[0]-} == files ]]; then
        compopt -o default +o nospace 2>/dev/null
    else
        compopt -o nosort 2>/dev/null
        COMPREPLY=("${answer[@]:1}")
    fi
} &&
    if type compopt >/dev/null 2>&1; then
        complete -o nospace -F _prefectlite prefectlite
    else
        complete -o nospace -o default -F _prefectlite prefectlite
    fi
"""

_ZSH = r"""#compdef prefectlite
# zsh completion for prefectlite. Made by: prefectlite completion show zsh

_prefectlite() {
    local program=${(Q)words[1]} line word
    local -a before answer expl whole whole_shown begun begun_shown
    [[ $program == '~/'* ]] && program=$HOME/${program#'~/'}
    whence -p -- $program >/dev/null || program=prefectlite
    (( CURRENT > 2 )) && before=("${(@Q)words[2,CURRENT-1]}")
    line=$PREFIX
    [[ -n $compstate[quote] ]] || line=${(Q)line}
    answer=("${(@f)$($program __complete zsh -- "${before[@]}" "$line" 2>/dev/null </dev/null)}")
    if [[ $answer[1] == files ]]; then
        compset -P '--*='
        _files
        return
    fi
    for line in "${(@)answer[2,-1]}"; do
        word=${line%%$'\t'*} line=${${line#*$'\t'}[1,COLUMNS-1]}
        if [[ $word == *[=/:@] ]]; then
            begun+=("$word") begun_shown+=("$line")
        else
            whole+=("$word") whole_shown+=("$line")
        fi
    done
    # Not _describe, which would bring together what is described alike, and so change the order.
    _description -V prefectlite expl 'prefectlite'
    [[ $answer[1] == described ]] && expl+=(-l)
    compadd "${expl[@]}" -d whole_shown -a whole
    compadd "${expl[@]}" -S '' -d begun_shown -a begun
    (( compstate[nmatches] ))
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _prefectlite "$@"
elif (( $+functions[compdef] )); then
    compdef _prefectlite prefectlite
fi
"""

_FISH = r"""# fish completion for prefectlite. Made by: prefectlite completion show fish

function __prefectlite_complete
    set -l words (commandline -opc)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -e words[1]
    command -sq -- $program; or set program prefectlite
    set -l token (commandline -ct | string collect)
    # What is not closed yet cannot be unescaped.
    set -l word (string unescape -- "$token" | string collect)
    test -n "$word"; or set word (string trim -l -c '\'"' -- "$token" | string collect)
    set -l answer (command $program __complete fish -- $words "$word" 2>/dev/null </dev/null)
    if test "$answer[1]" = files
        # Of a command that nobody knows, fish takes every argument for a file.
        complete -C "__prefectlite_no_such_command $token"
    else
        set -e answer[1]
        string join -- \n $answer
    end
end

complete -c prefectlite -f -k -a '(__prefectlite_complete)'
"""

_SCRIPTS = {Shell.BASH: _BASH, Shell.ZSH: _ZSH, Shell.FISH: _FISH}


def script(shell: Shell) -> str:
    """Return the script of a shell, with a line end after its last line."""
    return _SCRIPTS[shell]
