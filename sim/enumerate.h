// Every crash of a small script: `mendfs-sim --enumerate`; see enumerate.c.
#pragma once

int enumerate_main(int argc, char **argv); // its exit status: 0 all verified, 1 a promise broke, 2 wrong use
