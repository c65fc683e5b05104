// A second write to a block whose first is not settled (B7), and what a power cut of all, or a stop, makes of the two.
// The first write's version is never merged with the second's: the second waits in memory, or comes after it with an
// entry of its own; recovery decides the first before the second.
#include "tests/unit/case_bed.h"

static const struct fates NOTHING = {LOST, LOST}, ENTRY_ALONE = {WHOLE, LOST}, BOTH = {WHOLE, WHOLE};
static struct bed bed, *const b = &bed;

static bool first_not_hardened(void *ctx) {
    return !b->hardened_sent || !b->disk[b->p].stands_still;
}

//   D  old | E1 B1, durable      P  old | E1 B1, its flush does not end      the client has its answer for both writes
static void first_hangs_at_p(const struct scene *s) {
    bed_begin(b, s);
    bed_start_from_rest(b);
    b->watching = b->disk[b->p].stop_at_flush = true;
    bed_writes(b, b->off, TAG_NEW);
    bed_until(b, first_not_hardened, NULL);
    bed_writes(b, b->off, TAG_SECOND);
}

static uint64_t blocks_written_by_d(void) {
    return b->disk[b->d].wrote;
}

// I4: nothing of the second leaves D's memory while the first is in flight, though it is long due.
static void the_second_waits(void) {
    bed_idle(b, MSEC(700));
    assert_int_equal(blocks_written_by_d(), 1);
    assert_false(b->settled_sent);
}

static void waits_and_is_cut(const struct scene *s, struct fates p, struct outcome o) {
    first_hangs_at_p(s);
    the_second_waits();
    bed_cut(b, BOTH, p);
    assert_true(b->now.m[b->d].entry_whole);
    assert_int_equal(b->now.m[b->d].updates, 1);
    assert_int_equal(b->now.m[b->p].entry_whole, p.block == WHOLE);
    bed_recovers(b, o, 1); // the first, whole; the second was in memory alone
    bed_end(b);
}

static void second_waits_cut_with_parity(void **state) {
    waits_and_is_cut(&OVERWRITE, BOTH, (struct outcome){NEW_PLACE, NEW_PLACE});
    waits_and_is_cut(&MIRROR, BOTH, (struct outcome){NEW_PLACE, NEW_PLACE});
}

static void second_waits_cut_without_parity(void **state) {
    waits_and_is_cut(&OVERWRITE, NOTHING, (struct outcome){NEW_PLACE, FRESH_PLACE});
    waits_and_is_cut(&MIRROR, NOTHING, (struct outcome){NEW_PLACE, FRESH_PLACE});
}

static bool second_not_settled(void *ctx) {
    return bed_settled_count(b, b->d) < 2 || bed_settled_count(b, b->p) < 2;
}

static void second_follows_the_first(void **state) {
    const struct scene *const scenes[] = {&OVERWRITE, &FIRST, &MIRROR};
    for (unsigned i = 0; i < ARRAY_LEN(scenes); i++) {
        first_hangs_at_p(scenes[i]);
        the_second_waits();
        b->disk[b->p].stop_at_flush = false;
        world_disk_hang(world_disk_find(b->w, b->a->iom[b->p].disk), false);
        bed_until(b, second_not_settled, NULL);
        bed_syncs(b, b->d);
        bed_syncs(b, b->p);
        bed_check_outcome(b, &(struct outcome){NEW_PLACE, NEW_PLACE}, TAG_SECOND); // new: that of the second
        assert_int_equal(b->now.m[b->d].version[0], b->before.m[b->d].version[0] + 4);
        bed_end(b);
    }
}

// ---- the second over the settling of the first

//   D  old | E1 B1, durable; CHUNK1, E2 in one write of the journal; B2      P  the same      none of the second
//   write's flushes ends
static void second_over_settling(const struct scene *s, struct fates d, struct fates p, uint64_t first_place[2]) {
    bed_start_from_rest(b);
    b->watching = true;
    bed_writes(b, b->off, TAG_NEW);
    bed_until(b, bed_unsettled, b);
    first_place[0] = b->disk[b->d].new_place;
    first_place[1] = b->disk[b->p].new_place;
    b->disk[b->d].wrote = b->disk[b->p].wrote = 0;
    bed_stop_at_flush(b);
    bed_writes(b, b->off, TAG_SECOND);
    bed_until(b, bed_moving, b);
    bed_cut(b, d, p);
}

// With the second's journal lost: E1 B1 and the old CHUNK. With it: CHUNK1, and E2 at the second place.
static void check_second_cut(uint8_t iom, struct fates f, uint64_t first_place) {
    const struct look_member *m = &b->now.m[iom], *was = &b->before.m[iom];
    bool second = f.entry == WHOLE;
    assert_int_equal(m->updates, 1);
    assert_int_equal(m->place.at, second ? first_place : was->place.at);
    assert_int_equal(m->update.spot[BED_ROW].at, second ? b->disk[iom].new_place : first_place);
    assert_int_equal(m->entry_whole, !second || f.block == WHOLE);
    assert_int_equal(m->refs, was->refs + 1); // the old place went with CHUNK1, the second came with E2
}

static void over_settling(const struct scene *s) {
    const struct fates f[] = {NOTHING, ENTRY_ALONE, BOTH};
    bed_begin(b, s);
    for (unsigned i = 0; i < 9; i++) {
        struct fates d = f[i / 3], p = f[i % 3];
        uint64_t first[2];
        second_over_settling(s, d, p, first);
        check_second_cut(b->d, d, first[0]);
        check_second_cut(b->p, p, first[1]);
        bool d2 = d.block == WHOLE, p2 = p.block == WHOLE, second = d2 || p2;
        if (!second) {
            b->disk[b->d].new_place = first[0];
            b->disk[b->p].new_place = first[1];
        }
        // The first always is settled, for both have E1 and B1, or CHUNK1. The second goes forward with either's block
        // of it.
        struct outcome o = {!second || d2 ? NEW_PLACE : FRESH_PLACE, !second || p2 ? NEW_PLACE : FRESH_PLACE};
        uint8_t tag = second ? TAG_SECOND : TAG_NEW;
        bed_on(b);
        bed_check_outcome(b, &o, tag);
        bed_check_cut_again(b, &o, tag, 3);
    }
    bed_end(b);
}

static void second_over_the_settling_of_the_first(void **state) {
    over_settling(&OVERWRITE);
}
static void second_over_the_settling_of_the_first_mirrored(void **state) {
    over_settling(&MIRROR);
}

// ---- a stop while both are under way

//   D  old | E1 B1, E2 B2 as a second layer      P  old | E1 B1, its flush does not end      another IOM has died: the
//   array stops, and D hardens what it holds
static void second_layer_of_a_stop(void **state) {
    const struct fates p[] = {NOTHING, BOTH};
    for (unsigned i = 0; i < ARRAY_LEN(p); i++) {
        first_hangs_at_p(&OVERWRITE);
        uint8_t bystander = b->attr.handle.starter == 0 ? 3 : 0;
        assert_true(bystander != b->d && bystander != b->p);
        uint64_t first = b->disk[b->d].new_place;
        node_crash(b->a->iom[bystander].node);
        bed_idle(b, SEC(3));
        bed_cut(b, BOTH, p[i]);
        b->disk[b->d].new_place = first; // both sides': used by the first, and given back
        assert_int_equal(b->now.m[b->d].updates, 2);
        assert_true(b->now.m[b->d].entry_whole);
        bed_on(b);
        struct outcome o = {FRESH_PLACE, FRESH_PLACE};
        bed_check_outcome(b, &o,
                          TAG_SECOND); // acknowledged and on D's disk: it is not lost, over the first in either case
        bed_check_cut_again(b, &o, TAG_SECOND, 1);
        bed_end(b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(second_waits_cut_with_parity),
        cmocka_unit_test(second_waits_cut_without_parity),
        cmocka_unit_test(second_follows_the_first),
        cmocka_unit_test(second_over_the_settling_of_the_first),
        cmocka_unit_test(second_over_the_settling_of_the_first_mirrored),
        cmocka_unit_test(second_layer_of_a_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
