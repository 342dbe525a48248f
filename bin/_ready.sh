# Sourced by the commands of this folder, after $root (the checkout: an absolute, physical path) is set. POSIX sh.
#
# ready all|dev   returns when $root/.venv holds this checkout with that extra; exits with a message when it cannot.
#
# .venv/outbox-<extra>.stamp says what was installed: the checkout's path (a venv does not survive being moved), then
# pyproject.toml itself. While that still holds, this comparison is all that happens; the rest is _setup.py's work.

find_python() {
    # One that can make a venv if there is one, else any that is new enough: _setup.py then says what it lacks. Every
    # candidate is run, not just looked up, because pyenv and others leave names in PATH that refuse to run.
    for needs in 'import ensurepip, sys, venv' 'import sys'; do
        for python in "$root/.venv/bin/python" python3 python3.14 python3.13 python3.12 python3.11 python; do
            "$python" -I -c "$needs; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1 && return 0
        done
    done
    return 1
}

ready() {
    stamp=$root/.venv/outbox-$1.stamp
    if [ -x "$root/.venv/bin/python" ] && [ -f "$stamp" ]; then
        [ "$(cat "$stamp")" = "$root
$(cat "$root/pyproject.toml")" ] && return 0
    fi
    if ! find_python; then
        found=$(python3 --version 2>&1) || found="no python3 that runs"
        echo "outbox: Python 3.11 or newer is needed; PATH has $found." >&2
        echo "outbox: tried python3, python3.14, python3.13, python3.12, python3.11 and python. Install one of them." >&2
        exit 1
    fi
    "$python" -I "$root/bin/_setup.py" "$1" || exit
}
