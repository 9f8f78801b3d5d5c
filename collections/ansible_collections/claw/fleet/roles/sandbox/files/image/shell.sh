# shellcheck shell=sh
# Stands where a shell is looked for. What an agent wants executed comes as `sh -lc LINE`, with an environment of the
# agent's choice: nothing of that reaches a program that would heed it, for this interpreter is static, and what it
# starts has an environment of ours. OpenClaw's own look at files comes as `sh -c SCRIPT`, and gets a real shell.
if [ "$1" != -lc ]; then
  exec /usr/bin/dash "$@"
fi
# By this mark OpenClaw finds what it has to end.
exec /usr/bin/busybox env -i HOME=/workspace LANG=C.UTF-8 CODEX_SANDBOX_EXEC_ID="$CODEX_SANDBOX_EXEC_ID" \
  /usr/bin/python3 -I /usr/lib/coachcli/line.py "$2"
