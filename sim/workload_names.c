// The namer: one client in a directory of its own, /dN, with a subdirectory /dN/s, which mostly has another starter. It creates, links, renames
// and removes, in and between the two, and keeps what may be found.
//
// Each *place* (directory, name) has its candidates: what it led to at any moment since both directories were synced last. Each object has the least
// and the most names it had in that time. After a crash of all every place leads to one of its candidates, and every object is found as often as it had names
// at some moment: so a rename is seen as both or neither, never as half.
#include "sim/client.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAMES 6u
#define PLACES (2 * NAMES)
#define OBJECTS 4096u
#define CANDIDATES 64u

struct oobject {
    struct handle h;
    uint32_t links, least, most;
};
struct oplace {
    uint32_t now;                    // object number; 0: nothing there
    uint32_t could[CANDIDATES], n;   // distinct, the durable one first
};
struct onames {
    struct handle dir[2];
    struct oplace place[PLACES];
    struct oobject object[OBJECTS];
    uint32_t objects;                // used; 0 is nobody
    bool uncertain, straddles;       // straddles: a change under way at the last crash ended after it: it need not be durable
    uint64_t crash;                  // crashes known of
    uint32_t touched[2], touches;    // places that the operation under way may change
    bool creates;                    // it makes an object whose handle is not known before its answer
    bool died;                       // with the MX, in the midst of an operation: done or not
};

static struct onames *names_of(struct client *c) {
    if (!c->names) {
        c->names = calloc(1, sizeof *c->names);
        ASSERT(c->names);
        for (uint32_t i = 0; i < PLACES; i++) c->names->place[i].n = 1;
        c->names->objects = 1;
    }
    return c->names;
}

static const char *place_name(uint32_t p) {
    static const char *const name[NAMES] = {"a", "b", "c", "d", "e", "f"};
    return name[p % NAMES];
}
static struct handle place_dir(struct onames *o, uint32_t p) { return o->dir[p / NAMES]; }

static void could_be(struct oplace *p, uint32_t object) {
    for (uint32_t i = 0; i < p->n; i++)
        if (p->could[i] == object) return;
    ASSERT(p->n < CANDIDATES);
    p->could[p->n++] = object;
}
static void could_all(struct oplace *to, const struct oplace *from) {
    for (uint32_t i = 0; i < from->n; i++) could_be(to, from->could[i]);
}
static void may_lose_a_name(struct onames *o, const struct oplace *p) {
    for (uint32_t i = 0; i < p->n; i++) {
        struct oobject *x = &o->object[p->could[i]];
        if (x->least) x->least--;
    }
}
static void may_gain_a_name(struct onames *o, const struct oplace *p) {
    for (uint32_t i = 0; i < p->n; i++) o->object[p->could[i]].most++;
}

static uint32_t object_of(struct onames *o, struct handle h) { // made when new
    for (uint32_t i = 1; i < o->objects; i++)
        if (handle_eq(o->object[i].h, h)) return i;
    ASSERT(o->objects < OBJECTS);
    o->object[o->objects] = (struct oobject){.h = h, .most = 1};
    return o->objects++;
}

static void settle(struct onames *o) { // what is now is what there is
    for (uint32_t i = 1; i < o->objects; i++) o->object[i].least = o->object[i].most = o->object[i].links;
    for (uint32_t i = 0; i < PLACES; i++) {
        o->place[i].could[0] = o->place[i].now;
        o->place[i].n = 1;
    }
}

// ---- looking
static err co_look_up(struct client *c, uint32_t p, struct attr *a, bool *there) {
    struct mx_op op = {0};
    err e = co_mx_lookup(client_mx(c), &op, place_dir(c->names, p), place_name(p), a);
    *there = e == OK;
    return e == ERR_NOENT ? OK : e;
}

static void found_at(struct client *c, uint32_t p, bool there, const struct attr *a) {
    struct onames *o = c->names;
    struct oplace *at = &o->place[p];
    uint32_t x = 0;
    for (uint32_t i = 1; there && i < o->objects && !x; i++)
        if (handle_eq(o->object[i].h, a->handle)) x = i;
    bool touched = o->died && ((o->touches > 0 && o->touched[0] == p) || (o->touches > 1 && o->touched[1] == p));
    if (there && !x && touched && o->creates) could_be(at, x = object_of(o, a->handle));
    bool known = there == (x != 0), possible = false;
    for (uint32_t i = 0; known && i < at->n; i++) possible |= at->could[i] == x;
    if (o->died && o->crash == oracle_crashes(c->w->oracle) && !touched && x != at->now)
        oracle_fault(c->w->oracle, "client %u: %c/%s changed when an MX died (no crash since)", c->n, p < NAMES ? 'd' : 's', place_name(p));
    if (!possible)
        oracle_fault(c->w->oracle, "client %u: after a crash %c/%s leads to %s it never led to since it was synced", c->n, p < NAMES ? 'd' : 's', place_name(p),
                     there ? "an object" : "nothing, which");
    at->now = x;
}

static bool co_find_all(struct client *c) { // false: a crash came in between, begin anew
    struct attr a[PLACES];
    bool there[PLACES];
    uint64_t crash = oracle_crashes(c->w->oracle);
    for (uint32_t p = 0; p < PLACES; p++) {
        err e = co_look_up(c, p, &a[p], &there[p]);
        must(c, "a lookup", e);
        if (e) return true;
        if (crash != oracle_crashes(c->w->oracle)) return false;
    }
    for (uint32_t p = 0; p < PLACES; p++) found_at(c, p, there[p], &a[p]);
    c->names->crash = crash;
    c->names->died = false;
    c->names->touches = 0;
    return true;
}

static void count_links(struct client *c) {
    struct onames *o = c->names;
    for (uint32_t i = 1; i < o->objects; i++) o->object[i].links = 0;
    for (uint32_t p = 0; p < PLACES; p++)
        if (o->place[p].now) o->object[o->place[p].now].links++;
    for (uint32_t i = 1; i < o->objects; i++)
        if (o->object[i].links < o->object[i].least || o->object[i].links > o->object[i].most)
            oracle_fault(c->w->oracle, "client %u: after a crash an object has %u names, %u to %u are possible", c->n, o->object[i].links, o->object[i].least,
                         o->object[i].most);
}

static void co_recheck(struct client *c) {
    while (!co_find_all(c)) {}
    for (uint32_t p = 0; p < PLACES; p++)
        if (c->names->place[p].now) LOG(client_env(c), TRACE_DEBUG, "client %u: finds object %u at %u", c->n, c->names->place[p].now, p);
    count_links(c);
    if (!c->names->straddles) settle(c->names);
    c->names->uncertain = c->names->straddles = false;
}

static bool crashed(struct client *c) {
    if (c->names->crash == oracle_crashes(c->w->oracle) && !c->names->died) return false;
    return c->names->uncertain = true;
}

struct listing {
    struct client *c;
    uint32_t dir, seen[NAMES];
};
static bool on_entry(void *arg, const struct mx_dirent *d) {
    struct listing *l = arg;
    for (uint32_t i = 0; i < NAMES; i++)
        if (d->name_len == 1 && d->name[0] == place_name(i)[0]) l->seen[i]++;
    return true;
}

// Without a crash in between, a listing shows every name once and no other.
static void co_list(struct client *c, uint32_t dir) {
    struct listing l = {.c = c, .dir = dir};
    struct mx_op op = {0};
    bool eof = false;
    err e = co_mx_readdir(client_mx(c), &op, c->names->dir[dir], 0, below(c->w, 2), on_entry, &l, &eof);
    must(c, "a readdir", e);
    if (e || crashed(c)) return;
    for (uint32_t i = 0; i < NAMES; i++)
        if (l.seen[i] != (c->names->place[dir * NAMES + i].now != 0))
            oracle_fault(c->w->oracle, "client %u: a listing shows %s %u times", c->n, place_name(i), l.seen[i]);
}

void co_check_names(struct client *c) {
    struct attr a;
    bool there;
    if (!c->names) return;
    if (crashed(c)) co_recheck(c);
    for (uint32_t p = 0; p < PLACES; p++) {
        err e = co_look_up(c, p, &a, &there);
        must(c, "a lookup", e);
        uint32_t now = c->names->place[p].now;
        if (!e && !crashed(c) && (there != (now != 0) || (there && !handle_eq(a.handle, c->names->object[now].h))))
            oracle_fault(c->w->oracle, "client %u: %c/%s is not what it was made (no crash since)", c->n, p < NAMES ? 'd' : 's', place_name(p));
        if (!e && there && !crashed(c) && a.nlink != c->names->object[now].links)
            oracle_fault(c->w->oracle, "client %u: %s has link count %u, names: %u", c->n, place_name(p), a.nlink, c->names->object[now].links);
    }
    co_list(c, 0);
    co_list(c, 1);
}

static void touch(struct onames *o, uint32_t from, uint32_t to, bool creates) {
    o->touched[0] = from;
    o->touched[1] = to;
    o->touches = 2;
    o->creates = creates;
}

void names_client_died(struct client *c) {
    if (!c->names) return;
    c->names->died = c->names->straddles = true; // what it did last need not be durable
}

// ---- changing. Before the call the possibilities grow, after it (no crash in between) the present moves.
static bool ended_well(struct client *c, const char *what, err e, err expected) {
    LOG(client_env(c), TRACE_DEBUG, "client %u: %s ended: %s", c->n, what, err_text(e));
    if (crashed(c)) { // what it met is not known: the next look tells
        c->names->straddles = true;
        return false;
    }
    if (excused_full(c, e)) return false; // nothing happened
    if (e != expected) oracle_fault(c->w->oracle, "client %u: %s gave \"%s\", expected \"%s\"", c->n, what, err_text(e), err_text(expected));
    return e == OK && expected == OK;
}

static void co_make_name(struct client *c, uint32_t p) {
    struct onames *o = c->names;
    struct oplace *at = &o->place[p];
    struct mx_op op = {0};
    struct attr a;
    touch(o, p, p, true);
    err e = co_mx_mknod(client_mx(c), &op, place_dir(o, p), place_name(p), S_IFREG | 0600, 0, &a);
    if (!e) {
        uint32_t x = object_of(o, a.handle); // also when a crash came: it may be there
        could_be(at, x);
        if (!crashed(c) && at->now == 0) {
            o->object[x].links = 1;
            at->now = x;
            return;
        }
    }
    (void)ended_well(c, "a create", e, at->now ? ERR_EXIST : OK);
}

static void co_unlink(struct client *c, uint32_t p) {
    struct onames *o = c->names;
    struct oplace *at = &o->place[p];
    struct mx_op op = {0};
    may_lose_a_name(o, at);
    could_be(at, 0);
    touch(o, p, p, false);
    err e = co_mx_unlink(client_mx(c), &op, place_dir(o, p), place_name(p));
    if (e == ERR_NOSPC) must(c, "an unlink", e); // a delete makes room, it needs none
    if (!ended_well(c, "an unlink", e, at->now ? OK : ERR_NOENT)) return;
    o->object[at->now].links--;
    at->now = 0;
}

static void co_rename(struct client *c, uint32_t from, uint32_t to) {
    struct onames *o = c->names;
    struct oplace *a = &o->place[from], *b = &o->place[to];
    struct mx_op op = {0};
    if (from == to) return;
    may_lose_a_name(o, b);
    could_all(b, a);
    could_be(a, 0);
    touch(o, from, to, false);
    err e = co_mx_rename(client_mx(c), &op, place_dir(o, from), place_name(from), place_dir(o, to), place_name(to), 0);
    if (!ended_well(c, "a rename", e, a->now ? OK : ERR_NOENT) || a->now == b->now) return; // two names of one object: nothing happens
    if (b->now) o->object[b->now].links--;
    b->now = a->now;
    a->now = 0;
}

static void co_link(struct client *c, uint32_t from, uint32_t to) {
    struct onames *o = c->names;
    struct oplace *a = &o->place[from], *b = &o->place[to];
    struct mx_op op = {0};
    struct attr at;
    uint32_t x = a->now;
    if (!x) return;
    may_gain_a_name(o, a);
    could_be(b, x);
    touch(o, to, to, false);
    err e = co_mx_link(client_mx(c), &op, o->object[x].h, place_dir(o, to), place_name(to), &at);
    if (!ended_well(c, "a link", e, b->now ? ERR_EXIST : OK)) return;
    o->object[x].links++;
    b->now = x;
}

static void co_sync(struct client *c) {
    struct mx_op op = {0};
    err e = co_mx_fsyncdir(client_mx(c), &op, c->names->dir[0]);
    if (!e) e = co_mx_fsyncdir(client_mx(c), &op, c->names->dir[1]);
    must(c, "an fsync of a directory", e);
    LOG(client_env(c), TRACE_DEBUG, "client %u: synced its directories: %s", c->n, err_text(e));
    if (!e && !crashed(c)) settle(c->names);
}

err co_names_prepare(struct client *maker, struct handle dir) {
    struct mx_op op = {0};
    struct attr a;
    err e = co_mx_mkdir(client_mx(maker), &op, dir, "s", S_IFDIR | 0755, &a);
    if (!e) e = co_mx_fsyncdir(client_mx(maker), &op, dir);
    return e;
}

static bool co_find_dirs(struct client *c) {
    char name[16];
    struct mx_op op = {0};
    struct attr a;
    snprintf(name, sizeof name, "d%u", c->n);
    err e = co_mx_lookup(client_mx(c), &op, handle_root(), name, &a);
    names_of(c)->dir[0] = a.handle;
    if (!e) e = co_mx_lookup(client_mx(c), &op, a.handle, "s", &a);
    c->names->dir[1] = a.handle;
    if (!c->names->died) c->names->crash = oracle_crashes(c->w->oracle);
    must(c, "finding its directories, made and synced before,", e);
    return e == OK;
}

static void co_name_op(struct client *c) {
    uint32_t from = (uint32_t)below(c->w, PLACES), to = (uint32_t)below(c->w, PLACES);
    if (crashed(c)) co_recheck(c);
    uint32_t what = (uint32_t)below(c->w, 12);
    c->names->touches = 0;
    begins(c);
    LOG(client_env(c), TRACE_DEBUG, "client %u: name operation %u on %c/%s and %c/%s", c->n, what, from < NAMES ? 'd' : 's', place_name(from), to < NAMES ? 'd' : 's',
        place_name(to));
    switch (what) {
    case 0: case 1: case 2: c->doing = "create"; co_make_name(c, from); break;
    case 3: case 4: c->doing = "unlink"; co_unlink(c, from); break;
    case 5: case 6: case 7: c->doing = "rename"; co_rename(c, from, to); break;
    case 8: c->doing = "link"; co_link(c, from, to); break;
    case 9: c->doing = "sync"; co_sync(c); break;
    case 10: c->doing = "list"; co_list(c, from / NAMES); break;
    default: c->doing = "check names"; co_check_names(c);
    }
}

void co_namer(struct client *c) {
    if (!co_find_dirs(c)) return;
    for (; c->ops < c->w->o.ops; c->ops++, c->w->progress++) co_name_op(c);
}
