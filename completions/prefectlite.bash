# bash completion for prefectlite. Made by: prefectlite completion show bash

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
