// What a power cut of the whole array can leave of one version of a row in which several data members have a part, in
// the manner of seed_cases.c: the state of each journal and disk is built exactly, and recovery is cut at its I/Os
// again.
//
//   D1, D2, D3   E: UPDATE is in its journal     P     E: UPDATE is in P's journal, and names all participants
//                B: its block is on disk               B: the new parity, of all their deltas, is on disk
//
// P's B with at most one participant without: forward, and the one without gets its block (step (b) of resolve.c): new
// parity xor old parity xor the other participants' deltas. Two or more without cannot be told apart: P keeps
// parity_old and gives its new place back. Then each that has E and B enters the parity by itself (c), and who has not
// stays old: a version is P's way to write once, not a transaction of its members.
#include "tests/unit/case_bed.h"

#define MEMBERS 3 // the first is the bed's D

static const struct scene SEVERAL = {"overwrite of several", PROT_PARITY, true, true, .ioms = 5},
                          SEVERAL_FIRST = {"first write of several", PROT_PARITY, false, false, .ioms = 5};
static const struct fates NOTHING = {LOST, LOST}, BLOCK_ALONE = {LOST, WHOLE}, TORN_ENTRY = {TORN, WHOLE},
                          ENTRY_ALONE = {WHOLE, LOST}, TORN_BLOCK = {WHOLE, TORN}, BOTH = {WHOLE, WHOLE};
static struct bed bed, *const b = &bed;
static uint8_t member[MEMBERS]; // k of each
static unsigned members;        // that write

// The starter is not one of them: its disk has the names to keep.
static void begin(const struct scene *s, unsigned n) {
    bed_begin(b, s);
    members = 1;
    member[0] = b->k;
    for (uint8_t k = 0; k < geo_data(&b->attr.map) && members < n; k++)
        if (k != b->k && bed_iom_of(b, k) != b->attr.handle.starter) member[members++] = k;
    assert_int_equal(members, n);
}

static uint8_t new_tag(unsigned i) {
    return i == 0 ? TAG_NEW : (uint8_t)(TAG_ALSO + i);
}

static bool a_disk_moves(void *ctx) {
    bool moves = !b->disk[b->p].stands_still;
    for (unsigned i = 0; i < members; i++) moves |= !b->disk[bed_iom_of(b, member[i])].stands_still;
    return moves;
}

// One version: P forms it of what all of them have frozen.
static void all_write(void) {
    bed_start_from_rest(b);
    memset(b->also, 0, sizeof b->also);
    b->watching = true;
    for (unsigned i = 0; i < members; i++) {
        struct bed_disk *x = &b->disk[bed_iom_of(b, member[i])];
        x->member = x->stop_at_flush = true;
        bed_writes(b, bed_off_of(b, member[i]), new_tag(i));
    }
    b->disk[b->p].stop_at_flush = true;
    bed_until(b, a_disk_moves, b);
}

static void cut(const struct fates m[], struct fates p) {
    for (unsigned i = 1; i < members; i++) b->disk[bed_iom_of(b, member[i])].fates = m[i];
    bed_cut(b, m[0], p);
    for (unsigned i = 0; i < members; i++) bed_check_member_cut(b, bed_iom_of(b, member[i]), m[i]);
    bed_check_member_cut(b, b->p, p);
    if (p.entry == WHOLE) assert_int_equal(b->now.m[b->p].update.parts, members);
}

static void expect(const enum in_force m[]) {
    for (unsigned i = 1; i < members; i++)
        b->also[member[i]] =
            (struct bed_also){.written = true, .tag = m[i] == OLD_PLACE ? 0 : new_tag(i), .place = m[i]};
}

static void comes_to(const struct fates m[], struct fates p, const enum in_force then[], enum in_force then_p,
                     uint64_t every) {
    all_write();
    cut(m, p);
    expect(then);
    bed_recovers(b, (struct outcome){then[0], then_p}, every);
}
#define M(...) ((const struct fates[]){__VA_ARGS__})
#define THEN(...) ((const enum in_force[]){__VA_ARGS__})

//   D1  old | E B     D2  old | E B     P  old | E B        -> forward
static void two_and_all_is_there(void **state) {
    begin(&SEVERAL, 2);
    comes_to(M(BOTH, BOTH), BOTH, THEN(NEW_PLACE, NEW_PLACE), NEW_PLACE, 11);
    bed_end(b);
}

//   D1  old | E B     D2  old | E -     P  old | E B        -> forward. D2: fresh
//   D1  old | - -     D2  old | E B     P  old | E B        -> forward. D1: fresh
// D2's block is new parity xor old parity xor D1's delta xor D2's old block.
static void two_and_one_is_without(void **state) {
    begin(&SEVERAL, 2);
    comes_to(M(BOTH, ENTRY_ALONE), BOTH, THEN(NEW_PLACE, FRESH_PLACE), NEW_PLACE, 1);
    comes_to(M(NOTHING, BOTH), BOTH, THEN(FRESH_PLACE, NEW_PLACE), NEW_PLACE, 5);
    comes_to(M(TORN_BLOCK, BOTH), BOTH, THEN(FRESH_PLACE, NEW_PLACE), NEW_PLACE, 23);
    comes_to(M(BOTH, TORN_ENTRY), BOTH, THEN(NEW_PLACE, FRESH_PLACE), NEW_PLACE, 23);
    bed_end(b);
    begin(&SEVERAL_FIRST, 2);
    comes_to(M(BOTH, ENTRY_ALONE), BOTH, THEN(NEW_PLACE, FRESH_PLACE), NEW_PLACE, 23);
    comes_to(M(NOTHING, BOTH), BOTH, THEN(FRESH_PLACE, NEW_PLACE), NEW_PLACE, 23);
    bed_end(b);
}

//   D1  old | E -     D2  old | E -     P  old | E B        -> back: P keeps parity_old, all new places are free
//   D1  old | - -     D2  old | - -     P  old | E B        -> back
// P's new parity says the sum of two deltas, of which nobody has either.
static void two_and_both_are_without(void **state) {
    begin(&SEVERAL, 2);
    comes_to(M(ENTRY_ALONE, ENTRY_ALONE), BOTH, THEN(OLD_PLACE, OLD_PLACE), OLD_PLACE, 5);
    comes_to(M(NOTHING, NOTHING), BOTH, THEN(OLD_PLACE, OLD_PLACE), OLD_PLACE, 5);
    comes_to(M(NOTHING, TORN_BLOCK), BOTH, THEN(OLD_PLACE, OLD_PLACE), OLD_PLACE, 23);
    comes_to(M(BLOCK_ALONE, TORN_ENTRY), BOTH, THEN(OLD_PLACE, OLD_PLACE), OLD_PLACE, 23);
    bed_end(b);
    begin(&SEVERAL_FIRST, 2);
    comes_to(M(ENTRY_ALONE, NOTHING), BOTH, THEN(OLD_PLACE, OLD_PLACE), OLD_PLACE, 23);
    bed_end(b);
}

//   D1  old | E B     D2  old | E B     P  old | E -        -> forward. P: fresh, both enter it together (c)
//   D1  old | E B     D2  old | E -     P  old | E -        -> D1 forward, D2 back. P: fresh
//   D1  old | - -     D2  old | E B     P  old | - -        -> D1 back, D2 forward. P: fresh
//   D1  old | E -     D2  old | - -     P  old | E -        -> back
static void two_without_the_parity(void **state) {
    begin(&SEVERAL, 2);
    comes_to(M(BOTH, BOTH), ENTRY_ALONE, THEN(NEW_PLACE, NEW_PLACE), FRESH_PLACE, 5);
    comes_to(M(BOTH, ENTRY_ALONE), ENTRY_ALONE, THEN(NEW_PLACE, OLD_PLACE), FRESH_PLACE, 5);
    comes_to(M(NOTHING, BOTH), NOTHING, THEN(OLD_PLACE, NEW_PLACE), FRESH_PLACE, 23);
    comes_to(M(BOTH, TORN_BLOCK), TORN_BLOCK, THEN(NEW_PLACE, OLD_PLACE), FRESH_PLACE, 23);
    comes_to(M(ENTRY_ALONE, NOTHING), ENTRY_ALONE, THEN(OLD_PLACE, OLD_PLACE), OLD_PLACE, 23);
    bed_end(b);
}

//   D1  old | E -     D2  old | - -     D3  old | E B     P  old | E B   -> D3 forward, D1 and D2 back. P: fresh
//   D1  old | E B     D2  old | E -     D3  old | E B     P  old | E B   -> forward. D2: fresh
//   D1  old | E -     D2  old | E -     D3  old | - -     P  old | E B   -> back
// Where two are without, P keeps parity_old; then D3's block enters it as a version of its own, at a place that is not
// the one in P's first entry: that one is given back.
static void three_and_two_are_without(void **state) {
    begin(&SEVERAL, 3);
    comes_to(M(ENTRY_ALONE, NOTHING, BOTH), BOTH, THEN(OLD_PLACE, OLD_PLACE, NEW_PLACE), FRESH_PLACE, 7);
    comes_to(M(BOTH, TORN_BLOCK, NOTHING), BOTH, THEN(NEW_PLACE, OLD_PLACE, OLD_PLACE), FRESH_PLACE, 23);
    comes_to(M(BOTH, ENTRY_ALONE, BOTH), BOTH, THEN(NEW_PLACE, FRESH_PLACE, NEW_PLACE), NEW_PLACE, 23);
    comes_to(M(ENTRY_ALONE, ENTRY_ALONE, NOTHING), BOTH, THEN(OLD_PLACE, OLD_PLACE, OLD_PLACE), OLD_PLACE, 23);
    bed_end(b);
}

// ---- settled at one of them

static bool one_is_unsettled(void *ctx) {
    bool unsettled = !bed_settled_count(b, b->p);
    for (unsigned i = 0; i < members; i++) unsettled |= !bed_settled_count(b, bed_iom_of(b, member[i]));
    return unsettled;
}

//   D1  new | - -     D2  old | E B     P  old | E B        -> forward: D1 has settled it, the others follow
//   D1  old | E B     D2  old | E B     P  new | - -        -> forward: P has
static void two_settled_at(uint8_t iom) {
    bed_start_from_rest(b);
    memset(b->also, 0, sizeof b->also);
    b->watching = true;
    for (unsigned i = 0; i < members; i++) bed_writes(b, bed_off_of(b, member[i]), new_tag(i));
    bed_until(b, one_is_unsettled, b);
    bed_syncs(b, iom);
    world_keep_sectors(b->w, bed_keep_none, NULL);
    bed_off(b);
    world_keep_sectors(b->w, NULL, NULL);
    b->watching = false;
    bed_to_shelf(b, "cut");
    bed_look(b, false);
    for (uint8_t i = 0; i < b->a->ioms; i++) {
        bool has_part = i == b->p || i == bed_iom_of(b, member[0]) || i == bed_iom_of(b, member[1]);
        assert_int_equal(b->now.m[i].entry_whole, has_part && i != iom);
    }
    assert_int_equal(b->now.m[iom].place.at, b->disk[iom].new_place);
    expect(THEN(NEW_PLACE, NEW_PLACE));
    bed_recovers(b, (struct outcome){NEW_PLACE, NEW_PLACE}, 11);
}
static void two_settled_at_one(void **state) {
    begin(&SEVERAL, 2);
    two_settled_at(b->d);
    two_settled_at(bed_iom_of(b, member[1]));
    two_settled_at(b->p);
    bed_end(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_and_all_is_there),      cmocka_unit_test(two_and_one_is_without),
        cmocka_unit_test(two_and_both_are_without),  cmocka_unit_test(two_without_the_parity),
        cmocka_unit_test(three_and_two_are_without), cmocka_unit_test(two_settled_at_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
