// FIG. 16: old data or not, old parity or not. What is old stays until new data and new parity, and the entries of
// both, are on disk. Each update goes its whole way, from the write to durable CHUNKs at both, and the power of all is
// cut at every I/O on that way: with all that was at risk lost, with all of it kept, and with every sector left to
// chance. What is on the disks is judged before recovery (is anything old gone too early? what has to come of it?) and
// after.
#include "tests/unit/case_bed.h"

static struct bed bed, *const b = &bed;

static void goes_its_way(const struct scene *s) {
    bed_begin(b, s);
    bed_walk(b);
    bed_end(b);
}

//   D  hole             P  hole             the first write of a row; of a mirrored block
// The original counts mirrored data here, for it overwrites both copies in place. With us a copy has an old place like
// any parity: see fig_16d.
static void fig_16a(void **state) {
    goes_its_way(&FIRST);
    goes_its_way(&MIRROR_FIRST);
}

//   D  hole             P  old              the first write of a block beside others of its row
static void fig_16b(void **state) {
    goes_its_way(&BESIDE);
}

//   D  old              no P                a block without protection
// In a row with parity this cannot be with us: the parity of a row is written with the first block of it, and both go
// together when the row is discarded. What is left of the figure is an object that has no parity at all: its old block
// stays until the new one and its entry are on disk.
static void fig_16c(void **state) {
    goes_its_way(&ALONE);
    bed_begin(b, &BESIDE);
    bed_start_from_rest(b);
    for (uint8_t k = 0; k < geo_data(&b->attr.map); k++) {
        uint8_t iom = geo_locate(&b->attr.map, bed_off_of(b, k)).data.n;
        if (b->now.m[iom].place.at) assert_int_not_equal(b->now.m[b->p].place.at, 0);
    }
    bed_end(b);
}

//   D  old              P  old              an overwrite; of a mirrored block
static void fig_16d(void **state) {
    goes_its_way(&OVERWRITE);
    goes_its_way(&MIRROR);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fig_16a),
        cmocka_unit_test(fig_16b),
        cmocka_unit_test(fig_16c),
        cmocka_unit_test(fig_16d),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
