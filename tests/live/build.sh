#!/usr/bin/env bash
# Compiling a tree of C files with make: many small files, times that make depends on, running what was built there.
. "$(dirname "$0")/lib.sh"
live_begin
command -v make >/dev/null && command -v gcc >/dev/null || live_skip "make or gcc is missing"
live_up
mkdir "$MNT/p"
cd "$MNT/p"

modules=25
for n in $(seq 1 $modules); do
    printf 'int f%d(int x);\n' "$n" >"m$n.h"
    printf '#include "m%d.h"\nint f%d(int x) { return x + %d; }\n' "$n" "$n" "$n" >"m$n.c"
done
{
    for n in $(seq 1 $modules); do echo "#include \"m$n.h\""; done
    printf '#include <stdio.h>\nint main(void) {\n    int x = 0;\n'
    for n in $(seq 1 $modules); do echo "    x = f$n(x);"; done
    printf '    printf("%%d\\n", x);\n    return 0;\n}\n'
} >main.c
cat >Makefile <<'MAKE'
objects := $(patsubst %.c,%.o,$(sort $(wildcard *.c)))
prog: libm.a main.o
	$(CC) -o $@ main.o -L. -lm
libm.a: $(filter-out main.o,$(objects))
	ar rcs $@ $^
main.o: $(wildcard *.h)
m%.o: m%.c m%.h
	$(CC) -O1 -c $< -o $@
MAKE
sed -i 's/libm\.a/libown.a/g; s/-lm$/-lown/' Makefile
make -s -j2
expect_eq "$(./prog)" $((modules * (modules + 1) / 2)) "what the program computes"
expect_eq "$(make -q && echo nothing)" nothing "to be done after make"

sleep 0.01
printf '#include "m7.h"\nint f7(int x) { return x + 1007; }\n' >m7.c
expect_eq "$(make -j2 | grep -c -- '-c m')" 1 "files compiled again after one change"
expect_eq "$(./prog)" $((modules * (modules + 1) / 2 + 1000)) "what the program computes after the change"
make -s clean 2>/dev/null || rm -f ./*.o ./*.a
make -s -j2
./prog >/dev/null
cd /
live_down
live_up
expect_eq "$("$MNT/p/prog")" $((modules * (modules + 1) / 2 + 1000)) "the program after a restart"
expect_eq "$(make -C "$MNT/p" -q && echo nothing)" nothing "to be done after a restart"
live_down
