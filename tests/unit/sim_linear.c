// The check for an order (sim/linear.h) sees what it is there for: histories made by hand that have no order, each beside one that nearly is the same
// and has; and small random ones, for which trying all orders says the same.
#include "sim/linear.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROOT = LINEAR_ROOT, DIR = 2, FILE_ = 10, NEW = 20 };
enum { A, B, C, D };

// The beginning of each story: ROOT/a is the directory DIR, which is empty, ROOT/b the file FILE_.
static struct linear_state beginning(void) {
    struct linear_state s = {0};
    linear_dir_add(&s, ROOT, 0);
    linear_dir_add(&s, DIR, ROOT);
    linear_dir_of(&s, ROOT)->at[A] = DIR;
    linear_dir_of(&s, ROOT)->at[B] = FILE_;
    return s;
}

static struct linear *story(void) {
    struct linear *l = linear_create();
    struct linear_state s = beginning();
    assert_true(linear_found(l, &s));
    return l;
}

static void has_order(struct linear *l) {
    if (!linear_settle(l)) fail_msg("%s", linear_why(l));
    linear_destroy(l);
}
static void has_none(struct linear *l) {
    assert_false(linear_settle(l));
    assert_true(strlen(linear_why(l)) > 0);
    linear_destroy(l);
}

// ---- operations: begun, then ended; or both at once
static struct linear_op *make(struct linear *l, uint16_t dir, uint16_t name) {
    return linear_invoke(l, &(struct linear_op){.kind = LINEAR_MAKE, .dir = dir, .name = name});
}
static struct linear_op *makes_dir(struct linear *l, uint16_t dir, uint16_t name) {
    return linear_invoke(l, &(struct linear_op){.kind = LINEAR_MAKE, .makes_dir = true, .dir = dir, .name = name});
}
static struct linear_op *of(struct linear *l, enum linear_kind kind, uint16_t dir, uint16_t name) {
    return linear_invoke(l, &(struct linear_op){.kind = kind, .dir = dir, .name = name});
}
static struct linear_op *moves(struct linear *l, uint16_t dir, uint16_t name, uint16_t to_dir, uint16_t to_name) {
    return linear_invoke(l, &(struct linear_op){.kind = LINEAR_RENAME, .dir = dir, .name = name, .to_dir = to_dir, .to_name = to_name});
}
static void ends(struct linear *l, struct linear_op *o, err e, uint16_t object) {
    linear_return(l, o, &(struct linear_answer){.e = e, .object = object});
}
static void finds(struct linear *l, uint16_t dir, uint16_t name, uint16_t object) { // 0: nothing
    ends(l, of(l, LINEAR_LOOKUP, dir, name), object ? OK : ERR_NOENT, object);
}
static void has_links(struct linear *l, uint16_t object, uint32_t links) {
    struct linear_op *o = linear_invoke(l, &(struct linear_op){.kind = LINEAR_LINKS, .object = object});
    linear_return(l, o, &(struct linear_answer){.links = links});
}

// ---- what is to be seen
static void a_stale_lookup(void **state) {
    struct linear *l = story();
    ends(l, make(l, ROOT, C), OK, NEW);
    finds(l, ROOT, C, 0);
    has_none(l);
    l = story();
    struct linear_op *o = make(l, ROOT, C); // but while it is made, both may be
    finds(l, ROOT, C, 0);
    finds(l, ROOT, C, NEW);
    ends(l, o, OK, NEW);
    has_order(l);
    l = story();
    o = make(l, ROOT, C); // and not the other way round
    finds(l, ROOT, C, NEW);
    finds(l, ROOT, C, 0);
    ends(l, o, OK, NEW);
    has_none(l);
}

static void two_exclusive_creates_succeed(void **state) {
    for (int both = 0; both < 2; both++) {
        struct linear *l = story();
        struct linear_op *one = make(l, ROOT, C), *two = make(l, ROOT, C);
        ends(l, one, OK, NEW);
        ends(l, two, both ? OK : ERR_EXIST, both ? NEW + 1 : 0);
        (both ? has_none : has_order)(l);
    }
    struct linear *l = story(); // nor do both fail
    struct linear_op *one = make(l, ROOT, C), *two = make(l, ROOT, C);
    ends(l, one, ERR_EXIST, 0);
    ends(l, two, ERR_EXIST, 0);
    has_none(l);
}

static void a_rename_is_lost(void **state) {
    struct linear *l = story();
    ends(l, moves(l, ROOT, B, DIR, C), OK, 0);
    finds(l, ROOT, B, FILE_);
    has_none(l);
    l = story();
    ends(l, moves(l, ROOT, B, DIR, C), OK, 0);
    finds(l, DIR, C, 0);
    has_none(l);
    l = story();
    ends(l, moves(l, ROOT, B, DIR, C), OK, 0);
    finds(l, ROOT, B, 0);
    finds(l, DIR, C, FILE_);
    has_links(l, FILE_, 1);
    has_order(l);
}

static void a_rename_is_seen_by_halves(void **state) {
    for (int halves = 0; halves < 2; halves++) {
        struct linear *l = story();
        struct linear_op *o = moves(l, ROOT, B, DIR, C);
        finds(l, DIR, C, FILE_);
        finds(l, ROOT, B, halves ? FILE_ : 0);
        ends(l, o, OK, 0);
        (halves ? has_none : has_order)(l);
    }
}

static void a_rename_over_loses_what_it_replaced_once(void **state) {
    struct linear *l = story();
    ends(l, make(l, DIR, A), OK, NEW);
    ends(l, moves(l, ROOT, B, DIR, A), OK, 0);
    ends(l, linear_invoke(l, &(struct linear_op){.kind = LINEAR_LINK, .object = NEW, .dir = ROOT, .name = D}), ERR_STALE, 0);
    has_order(l);
    l = story();
    ends(l, make(l, DIR, A), OK, NEW);
    ends(l, moves(l, ROOT, B, DIR, A), OK, 0);
    ends(l, linear_invoke(l, &(struct linear_op){.kind = LINEAR_LINK, .object = NEW, .dir = ROOT, .name = D}), OK, 0);
    has_none(l);
}

static void a_repeated_request_is_done_twice(void **state) {
    struct linear *l = story(); // another one made the name again in between
    ends(l, of(l, LINEAR_UNLINK, ROOT, B), OK, 0);
    ends(l, make(l, ROOT, B), OK, NEW);
    finds(l, ROOT, B, 0);
    has_none(l);
    l = story(); // the answer is that of the second time
    ends(l, of(l, LINEAR_UNLINK, ROOT, B), ERR_NOENT, 0);
    finds(l, ROOT, B, 0);
    has_none(l);
    l = story();
    ends(l, make(l, ROOT, C), ERR_EXIST, 0);
    finds(l, ROOT, C, NEW);
    has_none(l);
}

static void list(struct linear *l, struct linear_op *o, const char *names) { // of ROOT: a is DIR, b FILE_, c NEW
    static const uint16_t object[] = {DIR, FILE_, NEW, NEW + 1};
    struct linear_answer a = {.listed_dirs = 1};
    for (; *names; names++) {
        a.seen[*names - 'a']++;
        a.listed[*names - 'a'] = object[*names - 'a'];
    }
    linear_return(l, o, &a);
}

static void a_name_is_seen_twice(void **state) {
    struct linear *l = story();
    list(l, of(l, LINEAR_LIST, ROOT, 0), "abb");
    has_none(l);
}

static void listings(void **state) {
    static const struct { const char *names; bool order; } while_c_is_made[] = {{"ab", true}, {"abc", true}, {"ac", false}, {"abcd", false}, {"", false}};
    for (size_t i = 0; i < ARRAY_LEN(while_c_is_made); i++) {
        struct linear *l = story();
        struct linear_op *o = make(l, ROOT, C), *looks = of(l, LINEAR_LIST, ROOT, 0);
        ends(l, o, OK, NEW);
        list(l, looks, while_c_is_made[i].names);
        (while_c_is_made[i].order ? has_order : has_none)(l);
    }
    struct linear *l = story(); // moved within it meanwhile: POSIX lets it be seen at both places or at none
    struct linear_op *looks = of(l, LINEAR_LIST, ROOT, 0), *o = moves(l, ROOT, B, ROOT, C);
    ends(l, o, OK, 0);
    list(l, looks, "a");
    has_order(l);
}

// ---- what was lost
static void what_is_lost_is_done_once_or_not(void **state) {
    for (int twice = 0; twice < 2; twice++) {
        struct linear *l = story();
        assert_non_null(linear_lost(l, of(l, LINEAR_UNLINK, ROOT, B)));
        finds(l, ROOT, B, FILE_);
        assert_true(linear_settle(l)); // it may be for long
        finds(l, ROOT, B, 0);
        assert_true(linear_settle(l));
        ends(l, make(l, ROOT, B), OK, NEW);
        finds(l, ROOT, B, twice ? 0 : NEW);
        (twice ? has_none : has_order)(l);
    }
    struct linear *l = story();
    assert_non_null(linear_lost(l, of(l, LINEAR_UNLINK, ROOT, B)));
    finds(l, ROOT, B, FILE_);
    has_order(l);
}

static void what_is_lost_is_over_in_time(void **state) {
    for (int late = 0; late < 2; late++) {
        struct linear *l = story();
        struct linear_op *o = linear_lost(l, of(l, LINEAR_UNLINK, ROOT, B));
        assert_true(linear_settle(l));
        if (late) finds(l, ROOT, B, FILE_);
        linear_over(l, o);
        if (late) finds(l, ROOT, B, FILE_);
        finds(l, ROOT, B, 0);
        (late ? has_none : has_order)(l);
    }
}

static void who_made_it_is_found_out(void **state) {
    for (int what = 0; what < 4; what++) {
        struct linear *l = story();
        struct linear_op *o = linear_lost(l, make(l, ROOT, C));
        assert_non_null(o);
        finds(l, ROOT, C, NEW);
        if (what == 1) finds(l, ROOT, C, NEW + 1); // one made it once
        if (what == 2) finds(l, ROOT, D, NEW + 1); // not there
        if (what == 3) assert_true(linear_settle(l));
        ends(l, moves(l, ROOT, C, ROOT, D), OK, 0);
        finds(l, ROOT, D, NEW);
        (what == 1 || what == 2 ? has_none : has_order)(l);
    }
    struct linear *l = story(); // a directory, and what is in it
    assert_non_null(linear_lost(l, makes_dir(l, ROOT, C)));
    struct linear_op *o = of(l, LINEAR_LOOKUP, ROOT, C);
    linear_return(l, o, &(struct linear_answer){.object = NEW, .is_dir = true});
    ends(l, make(l, NEW, A), OK, NEW + 1);
    ends(l, of(l, LINEAR_RMDIR, ROOT, C), ERR_NOTEMPTY, 0);
    has_links(l, ROOT, 4);
    has_order(l);
    l = story(); // a file is no directory
    assert_non_null(linear_lost(l, makes_dir(l, ROOT, C)));
    finds(l, ROOT, C, NEW);
    has_none(l);
    l = story(); // nobody made it
    finds(l, ROOT, C, NEW);
    has_none(l);
}

// ---- directories
static void a_directory_goes_below_itself(void **state) {
    for (int both = 0; both < 2; both++) {
        struct linear *l = story();
        ends(l, makes_dir(l, ROOT, C), OK, NEW);
        struct linear_op *one = moves(l, ROOT, A, NEW, A), *two = moves(l, ROOT, C, DIR, A);
        ends(l, one, OK, 0);
        ends(l, two, both ? OK : ERR_NOENT, 0);
        has_none(l); // it is still where it was, and below itself
        l = story();
        ends(l, makes_dir(l, ROOT, C), OK, NEW);
        ends(l, moves(l, ROOT, A, NEW, A), OK, 0);
        ends(l, moves(l, ROOT, C, DIR, A), ERR_INVAL, 0);
        ends(l, of(l, LINEAR_PARENT, DIR, 0), OK, NEW);
        has_order(l);
    }
}

static void a_name_comes_into_what_is_removed(void **state) {
    static const struct { err make, rmdir; bool order; } ends_of[] = {
        {OK, OK, false}, {OK, ERR_NOTEMPTY, true}, {ERR_NOENT, OK, true}, {ERR_STALE, OK, true}, {ERR_NOENT, ERR_NOTEMPTY, false}};
    for (size_t i = 0; i < ARRAY_LEN(ends_of); i++) {
        struct linear *l = story();
        struct linear_op *m = make(l, DIR, A), *r = of(l, LINEAR_RMDIR, ROOT, A);
        ends(l, r, ends_of[i].rmdir, 0);
        ends(l, m, ends_of[i].make, ends_of[i].make ? 0 : NEW);
        (ends_of[i].order ? has_order : has_none)(l);
    }
}

static void refusals(void **state) {
    static const struct { enum linear_kind kind; uint16_t name; err e; bool order; } told[] = {
        {LINEAR_MAKE, B, ERR_EXIST, true},     {LINEAR_MAKE, C, ERR_EXIST, false},     {LINEAR_UNLINK, A, ERR_ISDIR, true},
        {LINEAR_UNLINK, B, ERR_ISDIR, false},  {LINEAR_UNLINK, C, ERR_NOENT, true},    {LINEAR_UNLINK, B, ERR_NOENT, false},
        {LINEAR_RMDIR, B, ERR_NOTDIR, true},   {LINEAR_RMDIR, A, ERR_NOTEMPTY, false}, {LINEAR_RMDIR, A, ERR_NOTDIR, false},
        {LINEAR_LOOKUP, A, ERR_STALE, false},  {LINEAR_RMDIR, A, ERR_STALE, false},    {LINEAR_MAKE, C, ERR_IO, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(told); i++) {
        struct linear *l = story();
        ends(l, of(l, told[i].kind, ROOT, told[i].name), told[i].e, 0);
        (told[i].order ? has_order : has_none)(l);
    }
    struct linear *l = story();
    struct linear_op *o = moves(l, ROOT, A, ROOT, B);
    ends(l, o, ERR_NOTDIR, 0);
    o = moves(l, ROOT, B, ROOT, A);
    ends(l, o, ERR_ISDIR, 0);
    o = moves(l, ROOT, B, ROOT, B);
    ends(l, o, OK, 0);
    o = linear_invoke(l, &(struct linear_op){.kind = LINEAR_RENAME, .how = LINEAR_EXCHANGE, .dir = ROOT, .name = A, .to_dir = ROOT, .to_name = B});
    ends(l, o, OK, 0);
    finds(l, ROOT, A, FILE_);
    o = linear_invoke(l, &(struct linear_op){.kind = LINEAR_RENAME, .how = LINEAR_NOREPLACE, .dir = ROOT, .name = A, .to_dir = ROOT, .to_name = B});
    ends(l, o, ERR_EXIST, 0);
    has_order(l);
}

static void link_counts(void **state) {
    for (uint32_t links = 1; links <= 3; links++) {
        struct linear *l = story();
        ends(l, linear_invoke(l, &(struct linear_op){.kind = LINEAR_LINK, .object = FILE_, .dir = DIR, .name = D}), OK, 0);
        has_links(l, FILE_, links);
        has_links(l, ROOT, 3);
        (links == 2 ? has_order : has_none)(l);
    }
}

// ---- a crash
static struct linear *crashed(void) { // c came and was durable, b went and was not, d was being made
    struct linear *l = story();
    ends(l, make(l, ROOT, C), OK, NEW);
    assert_true(linear_settle(l));
    linear_durable(l);
    ends(l, of(l, LINEAR_UNLINK, ROOT, B), OK, 0);
    linear_straddles(l, make(l, ROOT, D));
    assert_true(linear_cut(l));
    return l;
}

static bool left(uint16_t b, uint16_t c, uint16_t d) {
    struct linear *l = crashed();
    struct linear_state s = beginning();
    uint16_t *at = linear_dir_of(&s, ROOT)->at;
    at[B] = b;
    at[C] = c;
    at[D] = d;
    bool may = linear_found(l, &s);
    if (may) { // and it goes on from there
        finds(l, ROOT, B, b);
        finds(l, ROOT, C, c);
        assert_true(linear_settle(l));
    }
    linear_destroy(l);
    return may;
}

static void what_a_crash_leaves(void **state) {
    assert_true(left(0, NEW, 0));
    assert_true(left(FILE_, NEW, 0)); // taken back
    assert_true(left(0, NEW, NEW + 1));
    assert_false(left(0, 0, 0)); // c was durable
    assert_false(left(NEW, NEW, 0));
    assert_false(left(0, FILE_, 0));
}

static void before_a_crash_all_has_its_order(void **state) {
    struct linear *l = story();
    ends(l, make(l, ROOT, C), OK, NEW);
    finds(l, ROOT, C, 0);
    linear_straddles(l, make(l, ROOT, D));
    assert_false(linear_cut(l));
    linear_destroy(l);
}

// ---- small random ones, and all orders of them
#define SMALL 5u
struct small {
    struct linear_op op[SMALL];
    struct linear_answer answer[SMALL];
    int begins[SMALL], ends[SMALL]; // instants; lost: when it is over
};

static bool precedes(const struct small *h, uint32_t a, uint32_t b) { return h->ends[a] < h->begins[b]; }

static bool any_order(const struct small *h, struct linear_state s, uint32_t turned, uint32_t late) {
    bool all = true;
    for (uint32_t i = 0; i < SMALL; i++) {
        struct linear_op o = h->op[i];
        struct linear_state next = s;
        bool first = !((turned | late) >> i & 1);
        uint32_t too_late = late;
        all &= (turned >> i & 1) || o.lost;
        for (uint32_t j = 0; j < SMALL && first; j++) {
            if (turned >> j & 1 || !precedes(h, j, i)) continue;
            if (h->op[j].lost) too_late |= 1u << j;
            else first = false;
        }
        o.e = o.lost ? OK : h->answer[i].e;
        o.found = o.lost ? (uint16_t)(LINEAR_NOBODYS + i) : h->answer[i].object;
        o.links = h->answer[i].links;
        if (first && linear_step(&next, &o) && any_order(h, next, turned | 1u << i, too_late)) return true;
    }
    return all;
}

static uint32_t below(uint32_t n) { return (uint32_t)rand() % n; }

static void small_random(struct small *h) {
    static const err told[] = {OK, OK, OK, ERR_NOENT, ERR_EXIST, ERR_NOTEMPTY, ERR_ISDIR};
    static const uint16_t dirs[] = {ROOT, ROOT, DIR}, objects[] = {DIR, FILE_, NEW, NEW + 1};
    *h = (struct small){0};
    for (uint32_t i = 0; i < SMALL; i++) {
        struct linear_op *o = &h->op[i];
        o->kind = (enum linear_kind)below(LINEAR_LINKS + 1);
        o->client = (uint16_t)i;
        o->dir = dirs[below(3)];
        o->to_dir = dirs[below(3)];
        o->name = (uint16_t)below(3);
        o->to_name = (uint16_t)below(3);
        o->object = objects[below(2)];
        o->lost = o->kind < LINEAR_LOOKUP && below(5) == 0;
        h->answer[i] = (struct linear_answer){.e = told[below(ARRAY_LEN(told))], .links = 1 + below(3)};
        if (o->kind == LINEAR_MAKE) h->answer[i].object = (uint16_t)(NEW + i);
        if (o->kind == LINEAR_LOOKUP) h->answer[i].object = below(3) ? objects[below(2)] : (uint16_t)(NEW + below(SMALL));
        if (o->kind == LINEAR_PARENT) h->answer[i].object = ROOT;
        h->begins[i] = (int)(2 * below(8));
        h->ends[i] = h->begins[i] + 1 + (int)(2 * below(5));
    }
}

static bool found_by_search(const struct small *h) {
    struct linear *l = story();
    struct linear_op *o[SMALL];
    for (int t = 0; t < 32; t++)
        for (uint32_t i = 0; i < SMALL; i++) {
            if (h->begins[i] == t) o[i] = linear_invoke(l, &(struct linear_op){.kind = h->op[i].kind, .client = h->op[i].client, .dir = h->op[i].dir, .name = h->op[i].name, .to_dir = h->op[i].to_dir, .to_name = h->op[i].to_name, .object = h->op[i].object});
            if (h->begins[i] == t && h->op[i].lost) linear_lost(l, o[i]);
            if (h->ends[i] == t && h->op[i].lost) linear_over(l, o[i]);
            if (h->ends[i] == t && !h->op[i].lost) linear_return(l, o[i], &h->answer[i]);
        }
    bool order = linear_settle(l);
    linear_destroy(l);
    return order;
}

// What is found that nobody made is not among them: the stories above are about that.
static bool somebody_made_all(const struct small *h) {
    for (uint32_t i = 0; i < SMALL; i++) {
        uint16_t x = h->op[i].kind == LINEAR_LOOKUP && !h->answer[i].e ? h->answer[i].object : FILE_;
        if (x < NEW) continue;
        const struct linear_op *o = &h->op[x - NEW];
        if (o->kind != LINEAR_MAKE || o->lost || h->answer[x - NEW].e) return false;
    }
    return true;
}

static void all_orders_say_the_same(void **state) {
    uint32_t with = 0, without = 0;
    srand(1);
    while (with < 600 || without < 600) {
        struct small h;
        small_random(&h);
        if (!somebody_made_all(&h)) continue;
        bool order = any_order(&h, beginning(), 0, 0);
        assert_int_equal(found_by_search(&h), order);
        ++*(order ? &with : &without);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stale_lookup),
        cmocka_unit_test(two_exclusive_creates_succeed),
        cmocka_unit_test(a_rename_is_lost),
        cmocka_unit_test(a_rename_is_seen_by_halves),
        cmocka_unit_test(a_rename_over_loses_what_it_replaced_once),
        cmocka_unit_test(a_repeated_request_is_done_twice),
        cmocka_unit_test(a_name_is_seen_twice),
        cmocka_unit_test(listings),
        cmocka_unit_test(what_is_lost_is_done_once_or_not),
        cmocka_unit_test(what_is_lost_is_over_in_time),
        cmocka_unit_test(who_made_it_is_found_out),
        cmocka_unit_test(a_directory_goes_below_itself),
        cmocka_unit_test(a_name_comes_into_what_is_removed),
        cmocka_unit_test(refusals),
        cmocka_unit_test(link_counts),
        cmocka_unit_test(what_a_crash_leaves),
        cmocka_unit_test(before_a_crash_all_has_its_order),
        cmocka_unit_test(all_orders_say_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
