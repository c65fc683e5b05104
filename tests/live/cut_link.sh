#!/usr/bin/env bash
# The cable of an IOM is pulled, another loses what it sends, then the link between two IOMs fails: over TCP, in network namespaces. The array goes on without one of them,
# clients see no error and the right bytes, and when the link is mended that IOM comes back by itself, the same process. How long a client stood still is printed. More of
# it: long/cut_links.sh.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/one_away.bash"
. "$(dirname "$0")/cut_link.bash"
live_begin
net_begin
net_up
ticker_begin
load_begin
goes_and_returns both 2
goes_and_returns mute 0
goes_and_returns pair 1 3
ticker_end
load_end
check_is_clean "after the links were mended"
live_down
check_is_clean "of the stores"
