# fish completion for prefectlite. Made by: prefectlite completion show fish

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
