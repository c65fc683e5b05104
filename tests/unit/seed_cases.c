// What a power cut of the whole array can leave of one update, told case by case (the names are those of the storage
// design of 2000 that this project starts from, as is FIG. 16). Every state is built exactly, over the real IOMs: the
// write is driven to the flush of both parts, and the test chooses which of the entries and blocks survive. Then: the
// bytes at every member, which place is in force, that every other place is free, that no entry is left; through the
// client as well; and all of it again with the power cut at every I/O of the recovery.
//
//   D     E means: UPDATE is in D's journal         P     E: UPDATE is in P's journal
//         B        its block is on disk                   B: the new parity (or copy) is on disk
//
// Our rule is shorter than the list: forward if D has E and B, or P has them; else back. The entry alone, without its
// block, brings nothing forward, for nobody has the new bytes. "-> D: new place" means that the place in the entry is
// in force, "fresh" that recovery has taken one.
#include "tests/unit/case_bed.h"

static const struct fates NOTHING = {LOST, LOST}, BLOCK_ALONE = {LOST, WHOLE}, TORN_ENTRY = {TORN, WHOLE},
                          ENTRY_ALONE = {WHOLE, LOST}, TORN_BLOCK = {WHOLE, TORN}, BOTH = {WHOLE, WHOLE};
static const struct outcome BACK = {OLD_PLACE, OLD_PLACE}, FROM_DATA = {NEW_PLACE, FRESH_PLACE},
                            FROM_PARITY = {FRESH_PLACE, NEW_PLACE}, FORWARD = {NEW_PLACE, NEW_PLACE};
static struct bed bed, *const b = &bed;

static uint64_t every = 1; // of the I/Os of a recovery, the power is cut at each

static void comes_to(struct fates d, struct fates p, struct outcome o) {
    bed_write_to(b, d, p);
    bed_recovers(b, o, every);
}

// A state that differs from the one before in what must not matter: the recovery is cut at some of its I/Os.
static void so_does(struct fates d, struct fates p, struct outcome o) {
    bed_write_to(b, d, p);
    bed_recovers(b, o, 7);
}

//   D  old | - -        P  old | - -        -> back: nothing is found, nothing is done
// The blocks may be there: without an entry (or with a torn one) no one refers to them, and their places are free.
static void case_1(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(NOTHING, NOTHING, BACK);
    so_does(BLOCK_ALONE, BLOCK_ALONE, BACK);
    so_does(TORN_ENTRY, TORN_ENTRY, BACK);
    bed_end(b);
}

//   D  old | E B        P  old | - -        -> forward. D: new place, P: fresh
//   D  old | E -        P  old | - -        -> back
//   D  old | E B        P  new | - -        -> forward: P has settled it already, and D follows
static void case_2(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(BOTH, NOTHING, FROM_DATA);
    so_does(BOTH, TORN_ENTRY, FROM_DATA);
    comes_to(ENTRY_ALONE, NOTHING, BACK);
    so_does(TORN_BLOCK, BLOCK_ALONE, BACK);
    bed_write_settled_at(b, b->p);
    bed_recovers(b, FORWARD, 1);
    bed_end(b);
}

// "No new address in either entry": a first write, or a mirrored block.
//   D  hole | E B       P  hole | E -       -> forward. D: new place, P: fresh
//   D  hole | E -       P  hole | E B       -> forward. D: fresh, P: new place
//   D  hole | E B       P  hole | E B       -> forward
//   D  hole | E -       P  hole | E -       -> back, to the hole
// Here we differ: the original writes in place where nothing is old or where it is mirrored, so with neither on disk it
// can but make one of two unknown blocks equal to the other. With us there always is a new place and something old, if
// only the hole; it stays whole, and the write is undone.
static void case_3a(void **state) {
    const struct scene *const scenes[] = {&FIRST, &MIRROR_FIRST, &MIRROR};
    for (unsigned i = 0; i < ARRAY_LEN(scenes); i++) {
        bed_begin(b, scenes[i]);
        every = i ? 5 : 1;
        comes_to(BOTH, ENTRY_ALONE, FROM_DATA);
        comes_to(ENTRY_ALONE, BOTH, FROM_PARITY);
        comes_to(BOTH, BOTH, FORWARD);
        comes_to(ENTRY_ALONE, ENTRY_ALONE, BACK);
        bed_end(b);
    }
    every = 1;
}

//   D  old | E -        P  old | E -        -> back; both new places are free
static void case_3b(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(ENTRY_ALONE, ENTRY_ALONE, BACK);
    so_does(TORN_BLOCK, TORN_BLOCK, BACK);
    bed_end(b);
}

//   D  old | E B        P  old | E -        -> forward. D: new place, P: fresh
// The original sends the update again; so do we, as an ordinary next version of the parity (c), and P's place in the
// first entry is given back (b).
static void case_3c(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(BOTH, ENTRY_ALONE, FROM_DATA);
    so_does(BOTH, TORN_BLOCK, FROM_DATA);
    bed_end(b);
}

//   D  old | E B        P  old | E B        -> forward; both old places are free
static void case_3d(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(BOTH, BOTH, FORWARD);
    bed_end(b);
}

//   D  old | E -        P  old | E B        -> forward. D: fresh, P: new place
// D's new block is old parity xor new parity xor D's old block, as in the original. It goes to a fresh place: that of
// the entry is one whose content nobody knows, and D's UPDATE names it with a checksum until the batch that names the
// other.
static void case_3e(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(ENTRY_ALONE, BOTH, FROM_PARITY);
    so_does(TORN_BLOCK, BOTH, FROM_PARITY);
    bed_end(b);
}

// "No new address in the entry": a first write, or a mirrored block.
//   D  hole | - -       P  hole | E B       -> forward. D: fresh, P: new place
//   D  hole | - -       P  hole | E -       -> back, to the hole
// Here we differ: the original takes the data's side and undoes what the parity has. Our parity lies at a new place
// beside the old, so it can be told what the new block was, and we roll forward (B8).
static void case_4a(void **state) {
    const struct scene *const scenes[] = {&FIRST, &MIRROR_FIRST, &MIRROR};
    for (unsigned i = 0; i < ARRAY_LEN(scenes); i++) {
        bed_begin(b, scenes[i]);
        every = i ? 5 : 1;
        comes_to(NOTHING, BOTH, FROM_PARITY);
        comes_to(BLOCK_ALONE, ENTRY_ALONE, BACK);
        bed_end(b);
    }
    every = 1;
}

//   D  old | - -        P  old | E -        -> back; P's new place is free
static void case_4b(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(NOTHING, ENTRY_ALONE, BACK);
    so_does(BLOCK_ALONE, TORN_BLOCK, BACK);
    bed_end(b);
    bed_begin(b, &BESIDE);
    comes_to(NOTHING, ENTRY_ALONE, BACK);
    bed_end(b);
}

//   D  old | - -        P  old | E B        -> forward. D: fresh, P: new place
//   D  new | - -        P  old | E B        -> forward: D has settled it already, and P follows
static void case_4c(void **state) {
    bed_begin(b, &OVERWRITE);
    comes_to(NOTHING, BOTH, FROM_PARITY);
    so_does(TORN_ENTRY, BOTH, FROM_PARITY);
    bed_write_settled_at(b, b->d);
    bed_recovers(b, FORWARD, 1);
    bed_end(b);
    bed_begin(b, &BESIDE);
    comes_to(NOTHING, BOTH, FROM_PARITY);
    bed_end(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(case_1),  cmocka_unit_test(case_2),  cmocka_unit_test(case_3a), cmocka_unit_test(case_3b),
        cmocka_unit_test(case_3c), cmocka_unit_test(case_3d), cmocka_unit_test(case_3e), cmocka_unit_test(case_4a),
        cmocka_unit_test(case_4b), cmocka_unit_test(case_4c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
