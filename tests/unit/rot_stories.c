// Blocks that rot in unsettled rows, one story at a time: recovery gives them back from the others of their row, or
// says that they are lost. It never ends a node for that, and nobody reads bytes that were not written.
#include "tests/unit/rot_bed.h"

// ---- a row of which one participant has completed, durably, and neither P nor the other participant has
static struct {
    struct story *s;
    struct row r;
    bool armed, over;
} settling;

static void on_settled(void *ctx, struct node *from, struct node *to, const struct msg *m) {
    (void)ctx;
    struct array *a = settling.s->a;
    if (!settling.armed || m->type != MSG_SETTLED || from != a->iom[settling.r.p].node ||
        to != a->iom[settling.r.d[0]].node)
        return;
    settling.armed = false;
    world_cut_link(from, a->iom[settling.r.d[1]].node, true);
}
static void on_flush(void *ctx, const struct world_io *io) {
    (void)ctx;
    if (settling.armed || settling.over || io->op != DISK_FLUSH || io->moment != WORLD_IO_COMPLETED) return;
    settling.over = io->node == settling.s->a->iom[settling.r.d[0]].node;
}
static bool not_told(void *ctx) {
    return settling.armed;
}
static bool not_flushed(void *ctx) {
    return !settling.over;
}

static bool keep_of_first(void *ctx, const struct world_sector *s) {
    (void)ctx;
    return !strcmp(world_disk_name(s->disk), settling.s->a->iom[settling.r.d[0]].disk);
}

// Rows 0 of D0 and D1 are written anew, as 2 and 3, in one version; D2's has 1.
static void two_are_written(struct story *s) {
    settling.r = quiet_row(s);
    starts(s);
    settling.s = s;
    settling.armed = settling.over = false;
    world_options(s->w)->on_msg = on_settled;
    world_options(s->w)->on_io = on_flush;
    writes(&s->c[0], 0, 4096, 2);
    writes(&s->c[0], CHUNK, 4096, 3);
    settling.armed = true;
}

static bool keep_nothing(void *ctx, const struct world_sector *s) {
    return false;
}
static void power_is_cut(struct story *s, bool (*keep)(void *ctx, const struct world_sector *s)) {
    world_keep_sectors(s->w, keep, NULL);
    array_power_cut(s->a);
    world_keep_sectors(s->w, NULL, NULL);
    world_heal_all(s->w);
}

// Power is off in the end.
static void one_has_completed(struct story *s) {
    struct client *c = &s->c[0];
    two_are_written(s);
    until(s, not_told, s);
    settling.over = true; // until what D0 has been told is in its journal
    idle(s, MSEC(1));
    settling.over = false;
    uint64_t other = 3 * CHUNK; // D0's too, its parity at D2: a flush of D0, and none of P and D1
    while (geo_locate(&s->file.map, other).data.n != settling.r.d[0]) other += CHUNK;
    assert_int_equal(geo_locate(&s->file.map, other).parity.n, settling.r.d[2]);
    writes(c, other, 4096, 4);
    until(s, not_flushed, s);
    power_is_cut(s, keep_of_first);
    assert_false(has_update(s, settling.r.d[0]));
    assert_true(has_update(s, settling.r.d[1]));
    assert_true(has_update(s, settling.r.p));
}

// ---- what is seen in the end
static void whole_is(struct story *s, uint8_t first, uint8_t second, uint8_t third) {
    reads(&s->c[0], 0, 4096, 0, first);
    reads(&s->c[0], CHUNK, 4096, 0, second);
    reads(&s->c[0], 2 * CHUNK, 4096, 0, third);
    assert_int_equal(faults_of_check(s), 0);
    stopped_and_started(s);
    reads(&s->c[0], 0, 4096, 0, first);
    story_end(s);
}

// Another row of the segment, written and read over a start; and nothing is bad any more.
static void whole_after_writes(struct story *s, uint8_t byte) {
    writes(&s->c[0], 4096, 4096, byte);
    does(&s->c[0], co_fsync);
    assert_int_equal(faults_of_check(s), 0);
    stopped_and_started(s);
    reads(&s->c[0], 4096, 4096, 0, byte);
    story_end(s);
}

// ---- the stories of such a row

static void completed_beside_rot(void **state) {
    static struct story s;
    one_has_completed(&s);
    update_rots(&s, settling.r.d[1]);
    recovers(&s);
    whole_is(&s, 2, 3, 1);
}

static void completed_beside_bad_parity(void **state) {
    static struct story s;
    one_has_completed(&s);
    update_rots(&s, settling.r.p);
    recovers(&s);
    whole_is(&s, 2, 3, 1);
}

// Two bad blocks in a row, in all three ways: what was good stays, what is lost is told, and everything else goes on,
// also after another start.
static void two_rots(uint8_t first_kind, unsigned first, uint8_t second_kind, unsigned second, uint64_t lost_off,
                     uint64_t good_off, uint8_t good) {
    static struct story s;
    one_has_completed(&s);
    uint8_t who[4] = {settling.r.d[0], settling.r.d[1], settling.r.d[2], settling.r.p};
    (first_kind == KIND_UPDATE ? update_rots : chunk_rots)(&s, who[first]);
    (second_kind == KIND_UPDATE ? update_rots : chunk_rots)(&s, who[second]);
    for (unsigned i = 0; i < 2; i++) {
        if (i == 0)
            recovers(&s);
        else
            stopped_and_started(&s);
        recovery_is_told(&s.c[0]);
        reads_eio(&s.c[0], lost_off);
        reads(&s.c[0], good_off, 4096, 0, good);
        reads(&s.c[0], CHUNK + 4096, 4096, 0, 1);
        writes(&s.c[0], 8192, 4096, 7);
        does(&s.c[0], co_fsync);
        reads(&s.c[0], 8192, 4096, 0, 7);
        assert_true(faults_of_check(&s) > 0);
    }
    story_end(&s);
}

static void completed_beside_two_rots(void **state) {
    two_rots(KIND_UPDATE, 1, KIND_CHUNK, 2, CHUNK, 0, 2);
}
static void completed_beside_bad_parity_and_rot(void **state) {
    two_rots(KIND_UPDATE, 1, KIND_UPDATE, 3, CHUNK, 0, 2);
}
static void bad_parity_and_a_bystander(void **state) {
    two_rots(KIND_UPDATE, 3, KIND_CHUNK, 2, 2 * CHUNK, CHUNK, 3);
}

// ---- a row of which nobody has completed
// I3: when P tells that the row is settled, its participants' blocks are on disk. I6: what a participant lacks is given
// back by P and the other participants, whatever became of a bystander's block.
static void lost_beside_a_bystander(void **state) {
    static struct story s;
    two_are_written(&s);
    until(&s, not_told, &s);
    power_is_cut(&s, keep_nothing);
    assert_true(has_update(&s, settling.r.d[0]));
    update_rots(&s, settling.r.d[1]);
    chunk_rots(&s, settling.r.d[2]);
    recovers(&s);
    recovery_is_told(&s.c[0]);
    whole_is(&s, 2, 3, 1); // the bystander's too: the row that has gone forward gives it back
}

// ---- rows that enter the parity at recovery, or in service, over something bad
static void parity_is_bad_in_service(void **state) {
    static struct story s;
    chunk_rots(&s, quiet_row(&s).p);
    starts(&s);
    writes(&s.c[0], 100, 1000, 2);
    writes(&s.c[0], 0, 4096, 2);
    does(&s.c[0], co_fsync);
    whole_is(&s, 2, 1, 1);
}

// A bystander dies: what is dirty becomes an UPDATE, which enters the parity at recovery.
static void entering(struct story *s, struct row r) {
    writes(&s->c[0], 0, 4096, 2);
    idle(s, MSEC(20));
    one_dies_and_is_back(s, r.d[2]);
}

static void parity_is_bad_when_a_row_enters(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    chunk_rots(&s, r.p);
    starts(&s);
    entering(&s, r);
    whole_is(&s, 2, 1, 1);
}

// It was read for the write, and rots on disk after that.
static void rots_behind_a_write(struct story *s, uint8_t iom, const struct look *l) {
    writes(&s->c[0], 100, 1000, 2);
    place_rots(s, iom, l->val + sizeof(struct row_chunk));
}

static void old_block_is_bad_when_a_row_enters(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    struct look l = look_at(&s, r.d[0], KIND_CHUNK);
    starts(&s);
    rots_behind_a_write(&s, r.d[0], &l);
    entering(&s, r);
    whole_is(&s, 2, 1, 1);
}

static void old_block_and_another_are_bad_when_a_row_enters(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    struct look l = look_at(&s, r.d[0], KIND_CHUNK);
    chunk_rots(&s, r.d[1]);
    starts(&s);
    rots_behind_a_write(&s, r.d[0], &l);
    entering(&s, r);
    reads(&s.c[0], 0, 4096, 0, 2);
    reads_eio(&s.c[0], CHUNK);
    assert_true(faults_of_check(&s) > 0);
    stopped_and_started(&s);
    reads(&s.c[0], 0, 4096, 0, 2);
    story_end(&s);
}

// P gives back what it held of a D that died, whose old block is bad: the row gives that back first.
static void old_block_is_bad_under_what_was_held(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    struct look l = look_at(&s, r.d[0], KIND_CHUNK);
    starts(&s);
    rots_behind_a_write(&s, r.d[0], &l);
    idle(&s, MSEC(20));
    one_dies_and_is_back(&s, r.d[0]);
    recovery_is_told(&s.c[0]);
    reads(&s.c[0], 100, 1000, 0, 2);
    reads(&s.c[0], 1100, 2996, 0, 1);
    whole_after_writes(&s, 3);
}

// Where the row cannot, there is nothing to lay it over.
static void two_are_bad_under_what_was_held(void **state) {
    static struct story s;
    struct row r = quiet_row(&s);
    struct look l = look_at(&s, r.d[0], KIND_CHUNK);
    chunk_rots(&s, r.d[1]);
    starts(&s);
    rots_behind_a_write(&s, r.d[0], &l);
    idle(&s, MSEC(20));
    one_dies_and_is_back(&s, r.d[0]);
    recovery_is_told(&s.c[0]);
    reads_eio(&s.c[0], 0);
    reads_eio(&s.c[0], CHUNK);
    reads(&s.c[0], 4096, 4096, 0, 1);
    reads(&s.c[0], CHUNK + 4096, 4096, 0, 1);
    writes(&s.c[0], 4096, 4096, 3);
    does(&s.c[0], co_fsync);
    stopped_and_started(&s);
    reads(&s.c[0], 4096, 4096, 0, 3);
    story_end(&s);
}

#define T(f) cmocka_unit_test(f)
// ---- what was put aside at a stop: layers over layers, of which one is lost
// Stripe 2, whose D1 is IOM 3, no voter: its disk hangs, so the version that P has in flight waits for it while the
// others agree on a stop. D0 has frozen A over that, and has B, which both know of, on top.
#define LAID_SEG 2u
#define LAID (LAID_SEG * 3 * CHUNK)

static struct row two_layers(struct story *s, bool first_hangs) {
    quiet_row(s);
    struct row r = {.p = geo_locate(&s->file.map, LAID).parity.n};
    for (unsigned k = 0; k < 3; k++) r.d[k] = geo_locate(&s->file.map, LAID + k * CHUNK).data.n;
    assert_int_equal(r.d[1], 3);
    starts(s);
    writes(&s->c[0], LAID + CHUNK, 4096, 4);
    world_disk_hang(world_disk_find(s->w, s->a->iom[r.d[1]].disk), true);
    idle(s, SEC(1));
    writes(&s->c[0], LAID, 8, 2);
    world_disk_hang(world_disk_find(s->w, s->a->iom[r.d[0]].disk), first_hangs);
    idle(s, SEC(1)); // frozen, by age
    writes(&s->c[0], LAID + 4088, 8, 3);
    idle(s, MSEC(20));
    return r;
}
static struct look put_aside(struct story *s, uint8_t iom, uint64_t which) {
    return look_at_number(s, iom, KIND_UPDATE, LAID_SEG | which);
}
static void stops_and_rots(struct story *s, struct row r, uint8_t iom, uint64_t which) {
    idle(s, SEC(5)); // a member is missed, the others have put aside what they hold
    node_crash(s->a->iom[iom].node);
    world_disk_hang(world_disk_find(s->w, s->a->iom[r.d[1]].disk), false);
    struct look l = put_aside(s, iom, which);
    assert_true(l.len > sizeof(struct row_update));
    place_rots(s, iom, l.val + sizeof(struct row_update));
}

// D0 has lost A and B, and P has lost A: B alone, over the block before A, was never anybody's content.
static void held_open_over_lost_frozen(void **state) {
    static struct story s;
    struct row r = two_layers(&s, true);
    struct sim_iom *d0 = &s.a->iom[r.d[0]];
    world_keep_sectors(s.w, keep_nothing, NULL);
    node_power_cut(d0->node);
    world_keep_sectors(s.w, NULL, NULL);
    world_disk_hang(world_disk_find(s.w, d0->disk), false);
    stops_and_rots(&s, r, r.p, ROW_KEY_HELD);
    assert_true(put_aside(&s, r.p, ROW_KEY_HELD | ROW_KEY_HELD_OPEN).len != 0);
    assert_int_equal(put_aside(&s, r.d[0], 0).len, 0);
    recovers(&s);
    recovery_is_told(&s.c[0]);
    reads(&s.c[0], LAID, 4096, 0, 1);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

// D0 has A; what it put aside at the stop, A and B, is lost. P has B.
static void second_layer_is_lost(void **state) {
    static struct story s;
    struct row r = two_layers(&s, false);
    node_crash(s.a->iom[r.d[2]].node);
    stops_and_rots(&s, r, r.d[0], ROW_KEY_SECOND);
    recovers(&s);
    recovery_is_told(&s.c[0]);
    reads(&s.c[0], LAID + 4088, 8, 0, 3);
    reads(&s.c[0], LAID, 8, 0, 2);
    reads(&s.c[0], LAID + 8, 4080, 0, 1);
    assert_int_equal(faults_of_check(&s), 0);
    story_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        T(completed_beside_rot),
        T(completed_beside_bad_parity),
        T(completed_beside_two_rots),
        T(completed_beside_bad_parity_and_rot),
        T(bad_parity_and_a_bystander),
        T(lost_beside_a_bystander),
        T(parity_is_bad_in_service),
        T(parity_is_bad_when_a_row_enters),
        T(old_block_is_bad_when_a_row_enters),
        T(old_block_and_another_are_bad_when_a_row_enters),
        T(old_block_is_bad_under_what_was_held),
        T(two_are_bad_under_what_was_held),
        T(held_open_over_lost_frozen),
        T(second_layer_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
