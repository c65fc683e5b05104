// The cluster map: what is encoded is decoded, garbage is refused with a reason, the first map is what it should be.
#include "cluster/map.h"
#include "base/sum.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void first_of(struct cluster_map *m, uint8_t ioms, uint8_t hosts) {
    static const char *const names[] = {"h0", "h1", "h2", "h3", "h4", "h5"};
    struct map_first_iom f[ARRAY_IOMS_MAX] = {0};
    for (uint8_t i = 0; i < ioms; i++) {
        f[i].at = "unix:/a/place";
        f[i].host = names[i % hosts];
        f[i].store[0] = i + 1;
    }
    cluster_map_first(m, (const uint8_t *)"sixteen bytes id", f, ioms);
}

static void comes_back(void **state) {
    for (uint8_t ioms = 1; ioms <= ARRAY_IOMS_MAX; ioms++) {
        struct cluster_map m, back;
        uint8_t p[CLUSTER_MAP_BYTES_MAX], q[CLUSTER_MAP_BYTES_MAX];
        first_of(&m, ioms, 3);
        m.version = 77;
        m.epoch = 12;
        m.recoveries = 1ull << 40;
        m.state = ARRAY_RUNNING;
        memset(m.iom[0].at, 'x', MAP_ADDRESS_BYTES - 1);
        memset(m.iom[0].host, 'y', MAP_HOST_BYTES - 1);
        m.iom[0].incarnation = 99;
        m.iom[0].lost = true;
        uint32_t len = cluster_map_encode(&m, p);
        assert_int_equal(cluster_map_decode(&back, p, len, NULL), OK);
        assert_int_equal(cluster_map_encode(&back, q), len);
        assert_memory_equal(p, q, len);
        assert_string_equal(back.iom[0].at, m.iom[0].at);
        assert_int_equal(back.recoveries, m.recoveries);
        assert_true(back.iom[0].lost);
        assert_int_equal(back.iom[0].state, m.iom[0].state);
        assert_true(ioms == 1 || !back.iom[1].lost);
    }
}

static void first_map(void **state) {
    static const uint8_t votes[] = {0, 1, 2, 3, 3, 5, 5};
    struct cluster_map m;
    for (uint8_t ioms = 1; ioms <= 6; ioms++) {
        first_of(&m, ioms, 6);
        assert_int_equal(m.voters, votes[ioms]);
        assert_int_equal(m.iom[ioms - 1].proxy, ioms == 1 ? NO_IOM : 0);
        assert_int_equal(m.state, ARRAY_STOPPED);
    }
    first_of(&m, 6, 2); // IOMs 0, 2, 4 on one host, 1, 3, 5 on another: both hosts vote first
    assert_int_equal(m.voter[0].iom, 0);
    assert_int_equal(m.voter[1].iom, 1);
    assert_int_equal(cluster_map_voter(&m, m.iom[5].store), -1);
    assert_int_equal(cluster_map_majority(&m), 3);
}

static void garbage_is_refused(void **state) {
    struct cluster_map m, back;
    uint8_t p[CLUSTER_MAP_BYTES_MAX], q[CLUSTER_MAP_BYTES_MAX];
    first_of(&m, 4, 4);
    uint32_t len = cluster_map_encode(&m, p);
    for (uint32_t i = 0; i < len; i++) {
        const char *why = NULL;
        memcpy(q, p, len);
        q[i] ^= 1;
        assert_int_not_equal(cluster_map_decode(&back, q, len, &why), OK);
        assert_non_null(why);
        why = NULL;
        assert_int_not_equal(cluster_map_decode(&back, p, i, &why), OK);
        assert_non_null(why);
    }
    p[4] = 2; // a newer format: its sum is not ours to judge
    assert_int_equal(cluster_map_decode(&back, p, len, NULL), ERR_VERSION);
}

static void one_may_be_anything_but_up(void **state) {
    struct cluster_map m;
    first_of(&m, 4, 4);
    for (uint8_t s = ARRAY_STOPPED; s <= ARRAY_RUNNING; s++) {
        m.state = s;
        m.iom[1].state = MAP_IOM_FAILED;
        m.iom[3].state = MAP_IOM_UP;
        assert_null(cluster_map_fault(&m));
        m.iom[3].state = MAP_IOM_REBUILDING;
        assert_true(s == ARRAY_STOPPED ? !cluster_map_fault(&m) : cluster_map_fault(&m) != NULL);
    }
}

// Whatever lies behind a right sum: refused or a sound map, never read beyond.
static void random_bytes_behind_a_right_sum(void **state) {
    uint64_t x = 1;
    struct cluster_map m, back;
    first_of(&m, 4, 4);
    uint32_t sound = 0;
    for (int n = 0; n < 20000; n++) {
        uint8_t p[CLUSTER_MAP_BYTES_MAX];
        uint32_t len = cluster_map_encode(&m, p);
        for (int k = 0; k < 3; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            p[12 + (x >> 33) % (len - 12)] = (uint8_t)(x >> 20);
        }
        memset(p + 8, 0, 4);
        le32 sum = le32_of(crc32c(0, p, len));
        memcpy(p + 8, &sum, 4);
        if (cluster_map_decode(&back, p, len, NULL) != OK) continue;
        sound++;
        assert_null(cluster_map_fault(&back));
    }
    assert_in_range(sound, 1000, 19999);
}

// ---- voters ---------------------------------------------------------------------------------------------------------
static bool votes(const struct cluster_map *m, uint8_t iom) {
    for (uint8_t i = 0; i < m->voters; i++)
        if (m->voter[i].iom == iom) return true;
    return false;
}

// A map without a change of voters is what it always was, byte 15 is 0; one with it says under whom it was chosen.
static void says_who_chose_it(void **state) {
    struct cluster_map m, back;
    uint8_t p[CLUSTER_MAP_BYTES_MAX];
    first_of(&m, 5, 5);
    uint32_t len = cluster_map_encode(&m, p);
    assert_int_equal(p[15], 0);
    struct map_voters five = cluster_map_voters(&m), four;
    assert_true(map_voters_same(&five, &(struct map_voters){.count = 5, .at = {five.at[4], five.at[3], five.at[1], five.at[0],
                                                                              five.at[2]}}));
    m.iom[2].state = MAP_IOM_FAILED;
    cluster_map_replace(&m, 2, (const uint8_t *)"another store id");
    m.chosen_by = five;
    assert_null(cluster_map_fault(&m));
    assert_int_equal(cluster_map_encode(&m, p), len + 4 * 17);
    assert_int_equal(p[15], 5);
    assert_int_equal(cluster_map_decode(&back, p, len + 4 * 17, NULL), OK);
    four = cluster_map_voters(&back);
    back.chosen_by = cluster_map_choosers(&back);
    assert_true(map_voters_same(&five, &back.chosen_by));
    assert_true(map_voters_one_apart(&four, &five) && map_voters_one_apart(&five, &four));
    assert_false(map_voters_one_apart(&five, &five) || map_voters_same(&five, &four));
}

static void more_than_one_other_voter_is_no_map(void **state) {
    struct cluster_map m;
    first_of(&m, 4, 4);
    m.chosen_by = cluster_map_voters(&m);
    assert_non_null(cluster_map_fault(&m)); // the same ones are not listed
    m.chosen_by.at[1] = (struct map_voter){.store = {9}, .iom = 1};
    assert_non_null(cluster_map_fault(&m)); // one for another is two changes
    m.chosen_by.count = 1;
    assert_non_null(cluster_map_fault(&m));
    m.chosen_by.count = 2;
    assert_non_null(cluster_map_fault(&m));
    memcpy(m.chosen_by.at[1].store, m.iom[2].store, 16);
    m.chosen_by.at[1].iom = 2;
    assert_null(cluster_map_fault(&m));
    m.chosen_by.at[1].iom = 0;
    assert_non_null(cluster_map_fault(&m));
    m.chosen_by.count = 0;
    m.voter[0].store[5] ^= 1;
    assert_non_null(cluster_map_fault(&m)); // no store of its IOM
}

static void another_store(void **state) {
    struct cluster_map m;
    first_of(&m, 4, 4);
    m.iom[1].incarnation = 7;
    m.iom[1].state = MAP_IOM_FAILED;
    cluster_map_replace(&m, 1, (const uint8_t *)"another store id");
    assert_memory_equal(m.iom[1].store, "another store id", 16);
    assert_int_equal(m.iom[1].incarnation, 7); // the new store's begin above it
    assert_int_equal(m.iom[1].state, MAP_IOM_FAILED);
    assert_int_equal(m.voters, 2);
    assert_true(votes(&m, 0) && votes(&m, 2));
    assert_null(cluster_map_fault(&m));
    assert_true(cluster_map_add_voter(&m)); // the fourth goes in for it
    assert_true(votes(&m, 3));
    assert_false(cluster_map_add_voter(&m));
    m.iom[1].state = MAP_IOM_UP;
    m.iom[0].state = MAP_IOM_FAILED;
    cluster_map_replace(&m, 0, (const uint8_t *)"a third store id");
    m.iom[1].state = MAP_IOM_REBUILDING;
    assert_false(cluster_map_add_voter(&m)); // only who is up
    m.iom[1].state = MAP_IOM_UP;
    assert_true(cluster_map_add_voter(&m));
    assert_true(votes(&m, 1) && !votes(&m, 0));
    assert_null(cluster_map_fault(&m));
    cluster_map_replace(&m, 0, (const uint8_t *)"one that no vote"); // it votes no more: only the entry changes
    assert_int_equal(m.voters, 3);
}

static void a_voter_of_a_host_that_has_none(void **state) {
    struct cluster_map m;
    first_of(&m, 6, 3);  // voters 0, 1, 2, 3, 4 of h0, h1, h2, h0, h1
    m.voters = 3;
    m.voter[0] = m.voter[4]; // 4, 1, 2: h0 has none
    assert_true(cluster_map_add_voter(&m));
    assert_int_equal(m.voter[3].iom, 0);
    assert_true(cluster_map_add_voter(&m));
    assert_int_equal(m.voter[4].iom, 3);
    assert_false(cluster_map_add_voter(&m));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back), cmocka_unit_test(first_map), cmocka_unit_test(garbage_is_refused),
        cmocka_unit_test(one_may_be_anything_but_up), cmocka_unit_test(random_bytes_behind_a_right_sum),
        cmocka_unit_test(says_who_chose_it), cmocka_unit_test(more_than_one_other_voter_is_no_map),
        cmocka_unit_test(another_store), cmocka_unit_test(a_voter_of_a_host_that_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
