// A store is lost for good and another one takes its place (src/iom/replace.c, row_census.c), told one story at a time in the simulated world.
#include "tests/unit/rot_bed.h"

static bool not_whole(void *ctx) { return !array_whole(((struct story *)ctx)->a); }
static bool not_without_it(void *ctx) { return !array_serving_but(((struct sim_iom *)ctx)->array, ctx); }

static void is_replaced(struct story *s, struct sim_iom *lost) {
    assert_true(array_replace(lost, world_now_ns(s->w) + SEC(60)));
    array_start_one(lost);
    until(s, not_whole, s);
}

static void dies_and_is_replaced(struct story *s, uint8_t n) {
    array_iom_dies(&s->a->iom[n], true);
    until(s, not_without_it, &s->a->iom[n]);
    is_replaced(s, &s->a->iom[n]);
}

// Each store in turn, so in the end nothing is where it was: data, parity and names, of a file with parity and of one with mirrors.
static void every_store_is_another(void **state) {
    static const char *const protections[] = {"parity", "mirror"};
    for (unsigned p = 0; p < ARRAY_LEN(protections); p++) {
        static struct story s;
        struct client *c = &s.c[0];
        story_begin_as(&s, 1 + p, true);
        makes_another(c, protections[p]);
        file_is_written(&s);
        does(c, co_fsync);
        for (uint8_t n = 0; n < IOMS; n++) {
            dies_and_is_replaced(&s, n);
            recovery_is_told(c);
            reads(c, 0, FILE_BYTES, 0, 1 + n);
            writes(c, 0, FILE_BYTES, 2 + n);
            does(c, co_fsync);
            assert_int_equal(faults_of_check(&s), 0);
        }
        assert_int_equal(size_of_file(c), FILE_BYTES);
        array_power_cut(s.a); // what the new stores have is all there is
        starts(&s);
        until(&s, not_whole, &s);
        reads(c, 0, FILE_BYTES, 0, 1 + IOMS);
        assert_int_equal(faults_of_check(&s), 0);
        story_end(&s);
    }
}

// Written while the new store does not know yet what it lacks, and cut; then another one fails at once: its blocks are put together with what the new one has by then.
static void another_fails_when_it_is_whole(void **state) {
    for (uint8_t n = 0; n < IOMS; n++) {
        static struct story s;
        struct client *c = &s.c[0];
        story_begin_as(&s, 1 + n, true);
        file_is_written(&s);
        does(c, co_fsync);
        truncates(c, 3 * CHUNK); // cuts of before, which nobody tells the new one of
        truncates(c, 2 * CHUNK);
        array_iom_dies(&s.a->iom[n], false);
        until(&s, not_without_it, &s.a->iom[n]);
        assert_true(array_replace(&s.a->iom[n], world_now_ns(s.w) + SEC(60)));
        array_start_one(&s.a->iom[n]);
        writes(c, CHUNK, 2 * CHUNK, 2);
        until(&s, not_whole, &s);
        writes(c, 4096, 4096, 3); // no fsync: what the one that fails had in memory another has
        array_iom_dies(&s.a->iom[(n + 1) % IOMS], false);
        until(&s, not_without_it, &s.a->iom[(n + 1) % IOMS]);
        assert_int_equal(size_of_file(&s.c[1]), 3 * CHUNK);
        reads(&s.c[1], 0, 4096, 0, 1);
        reads(&s.c[1], 4096, 4096, 0, 3);
        reads(&s.c[1], CHUNK, 2 * CHUNK, 0, 2);
        array_start_one(&s.a->iom[(n + 1) % IOMS]);
        until(&s, not_whole, &s);
        assert_int_equal(faults_of_check(&s), 0);
        story_end(&s);
    }
}

// ---- a file without protection: what its lost member had is lost, and says so
static uint8_t member_at(const struct story *s, uint64_t off) { return geo_locate(&s->file.map, off).data.n; }

static void an_unprotected_file_has_lost_a_part(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    uint64_t stripe = (uint64_t)IOMS * CHUNK;
    story_begin_as(&s, 1, true);
    makes_another(c, "none");
    file_is_written(&s);
    does(c, co_fsync);
    dies_and_is_replaced(&s, member_at(&s, CHUNK));
    recovery_is_told(c);
    assert_int_equal(size_of_file(c), FILE_BYTES);
    reads(c, 0, CHUNK, 0, 1);
    reads_eio(c, CHUNK);
    reads_eio(c, stripe + CHUNK);
    writes(c, CHUNK, 4096, 2); // what is written anew is there
    does(c, co_fsync);
    reads(c, CHUNK, 4096, 0, 2);
    reads_eio(c, CHUNK + 4096);
    array_power_cut(s.a); // it stays so
    starts(&s);
    until(&s, not_whole, &s);
    reads(c, CHUNK, 4096, 0, 2);
    reads_eio(c, CHUNK + 4096);
    truncates(c, 0); // emptied, it has lost nothing any more
    truncates(c, stripe);
    reads(c, 0, (uint32_t)stripe, 0, 0);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

static void an_unprotected_file_that_is_younger(void **state) {
    static struct story s;
    struct client *c = &s.c[0];
    story_begin_as(&s, 1, true);
    file_is_written(&s);
    dies_and_is_replaced(&s, 2);
    makes_another(c, "none");
    truncates(c, FILE_BYTES);
    reads(c, 0, FILE_BYTES, 0, 0); // holes, at the new store as well
    writes(c, 0, FILE_BYTES, 2);
    does(c, co_fsync);
    array_power_cut(s.a);
    starts(&s);
    until(&s, not_whole, &s);
    reads(c, 0, FILE_BYTES, 0, 2);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_store_is_another),
        cmocka_unit_test(another_fails_when_it_is_whole),
        cmocka_unit_test(an_unprotected_file_has_lost_a_part),
        cmocka_unit_test(an_unprotected_file_that_is_younger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
