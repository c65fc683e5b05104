#!/usr/bin/env bash
# long/one_dies.sh with hangs alone: SIGSTOP of one IOM after the other, ROUNDS times (50), for longer than it takes to be found failed, then SIGCONT: it comes back by
# itself, the same process. In every second round it hangs again while it rebuilds.
WAYS="hung hung_again" . "$(dirname "$0")/one_dies.sh"
