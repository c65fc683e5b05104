// Rivals: several clients on several MXs at the same few names in /rivals and the directories below it. All that they ask and are told goes to the
// check for an order (sim/linear.h).
//
// They work in rounds. Between two of them nothing is under way but what clients asked for that died with their MX, and one of them, the leader, lets the
// round be checked; in every third he also looks at all there is and has it on disk. The operation of a client that died may take effect until the
// client is back.
//
// A crash of all ends a history: what was under way is lost, and where all are together again (the dead ones too) the leader looks at what is left, has it
// on disk, and another history begins with it. A failure of one IOM, its stand-in and its return end nothing.
#include "sim/client.h"
#include "sim/linear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROUND_OPS 4u      // of each
#define OBJECTS 0x7f00u   // of a run; what has used them up is done
#define DIRS_MADE_BELOW 6u // so many, and nobody makes another in this round
#define DIRS_A_ROUND 2u
#define RECENT 8u // objects that are linked and looked at by handle
#define LOOK_ROUNDS 3u

struct rivals {
    struct linear *l;
    struct handle object[OBJECTS]; // from 1 on, in the order in which they were heard of; the first is /rivals
    bool is_dir[OBJECTS];
    uint16_t objects;
    uint16_t dir[LINEAR_DIRS + 32], dirs; // that there were at the last look, or were heard of since
    uint64_t crash;                       // crashes that the present history comes after
    bool begun;                           // there is a history
    struct client *leader;
    uint32_t round, mkdirs_left;
    uint16_t hot_dir, hot_name; // where half of what is done in this round is done
};

static bool crashed(const struct client *c) { return c->w->rivals->crash != oracle_crashes(c->w->oracle); }

// ---- objects by number
static void dir_heard_of(struct rivals *r, uint16_t n) {
    for (uint16_t i = 0; i < r->dirs; i++)
        if (r->dir[i] == n) return;
    if (r->dirs < ARRAY_LEN(r->dir)) r->dir[r->dirs++] = n;
}

static uint16_t object_of(struct client *c, struct handle h, bool is_dir) {
    struct rivals *r = c->w->rivals;
    uint16_t n = r->objects;
    while (n > 0 && !handle_eq(r->object[n], h)) n--;
    if (n == 0) {
        ASSERT(r->objects + 1u < OBJECTS);
        n = ++r->objects;
        r->object[n] = h;
        r->is_dir[n] = is_dir;
        LOG(client_env(c), TRACE_DEBUG, "client %u: object %u is %u/%llx/%x", c->n, n, h.starter, (unsigned long long)h.index, h.generation);
    }
    if (r->is_dir[n] != is_dir) oracle_fault(c->w->oracle, "client %u: object %u was a %s and is none", c->n, n, is_dir ? "file" : "directory");
    if (is_dir) dir_heard_of(r, n);
    return n;
}

static uint16_t object_in(struct client *c, const struct attr *a) { return object_of(c, a->handle, S_ISDIR(a->mode)); }

static const char *name_text(uint16_t name) {
    static const char *const text[LINEAR_NAMES] = {"a", "b", "c", "d"};
    return text[name];
}

// ---- operations
static struct linear_op *op_begins(struct client *c, struct linear_op what) { // NULL: this is between two histories
    begins(c);
    what.client = (uint16_t)c->n;
    return c->rival.op = c->w->rivals->begun ? linear_invoke(c->w->rivals->l, &what) : NULL;
}

static void op_ends(struct client *c, err e, struct linear_answer a) {
    struct rivals *r = c->w->rivals;
    struct linear_op *o = c->rival.op;
    a.e = e;
    c->rival.op = NULL;
    if (!o) return;
    if (crashed(c)) linear_straddles(r->l, o);
    else if (excused_full(c, e)) linear_drop(r->l, o); // nothing happened
    else {
        char what[128];
        o->e = e;
        linear_tell(o, what, sizeof what);
        LOG(client_env(c), TRACE_DEBUG, "client %u: %s %u", c->n, what, a.object ? a.object : a.links);
        linear_return(r->l, o, &a);
    }
}

static void op_tells_object(struct client *c, err e, const struct attr *at) {
    struct linear_answer a = {.object = e ? 0 : object_in(c, at), .is_dir = !e && S_ISDIR(at->mode)};
    op_ends(c, e, a);
}

struct spot {
    uint16_t dir, name;
};
static struct handle handle_of(const struct client *c, uint16_t object) { return c->w->rivals->object[object]; }

static void co_make(struct client *c, struct spot p, bool dir) {
    struct mx_op op = {0};
    struct attr a;
    struct mx_file *f = NULL;
    err e;
    bool opens = !dir && below(c->w, 2);
    op_begins(c, (struct linear_op){.kind = LINEAR_MAKE, .makes_dir = dir, .dir = p.dir, .name = p.name});
    if (dir) e = co_mx_mkdir(client_mx(c), &op, handle_of(c, p.dir), name_text(p.name), S_IFDIR | 0755, &a);
    else if (opens) e = co_mx_create(client_mx(c), &op, handle_of(c, p.dir), name_text(p.name), S_IFREG | 0644, MX_O_CREATE | MX_O_EXCL, &f, &a);
    else e = co_mx_mknod(client_mx(c), &op, handle_of(c, p.dir), name_text(p.name), S_IFREG | 0644, 0, &a);
    op_tells_object(c, e, &a);
    if (!e && opens) co_mx_release(client_mx(c), f);
}

static void co_make_dir(struct client *c, struct spot p) {
    struct rivals *r = c->w->rivals;
    if (r->mkdirs_left) r->mkdirs_left--;
    else return co_make(c, p, false);
    co_make(c, p, true);
}

static void co_remove(struct client *c, struct spot p, bool dir) {
    struct mx_op op = {0};
    op_begins(c, (struct linear_op){.kind = dir ? LINEAR_RMDIR : LINEAR_UNLINK, .dir = p.dir, .name = p.name});
    op_ends(c, (dir ? co_mx_rmdir : co_mx_unlink)(client_mx(c), &op, handle_of(c, p.dir), name_text(p.name)), (struct linear_answer){0});
}

static void co_rename(struct client *c, struct spot from, struct spot to) {
    static const uint32_t flags[] = {[LINEAR_OVER] = 0, [LINEAR_NOREPLACE] = RENAME_FLAG_NOREPLACE, [LINEAR_EXCHANGE] = RENAME_FLAG_EXCHANGE};
    struct mx_op op = {0};
    enum linear_how how = below(c->w, 3) ? LINEAR_OVER : (enum linear_how)(1 + below(c->w, 2));
    op_begins(c, (struct linear_op){.kind = LINEAR_RENAME, .how = how, .dir = from.dir, .name = from.name, .to_dir = to.dir, .to_name = to.name});
    err e = co_mx_rename(client_mx(c), &op, handle_of(c, from.dir), name_text(from.name), handle_of(c, to.dir), name_text(to.name), flags[how]);
    op_ends(c, e, (struct linear_answer){0});
}

static void co_link(struct client *c, uint16_t object, struct spot p) {
    struct mx_op op = {0};
    struct attr a;
    op_begins(c, (struct linear_op){.kind = LINEAR_LINK, .object = object, .dir = p.dir, .name = p.name});
    op_ends(c, co_mx_link(client_mx(c), &op, handle_of(c, object), handle_of(c, p.dir), name_text(p.name), &a), (struct linear_answer){0});
}

static void co_look_up(struct client *c, struct spot p) {
    struct mx_op op = {0};
    struct attr a;
    op_begins(c, (struct linear_op){.kind = LINEAR_LOOKUP, .dir = p.dir, .name = p.name});
    op_tells_object(c, co_mx_lookup(client_mx(c), &op, handle_of(c, p.dir), name_text(p.name), &a), &a);
}

static err co_parent(struct client *c, uint16_t dir, uint16_t *parent) {
    struct mx_op op = {0};
    struct attr a;
    op_begins(c, (struct linear_op){.kind = LINEAR_PARENT, .dir = dir});
    err e = co_mx_lookup(client_mx(c), &op, handle_of(c, dir), "..", &a);
    *parent = e ? 0 : object_in(c, &a);
    op_tells_object(c, e, &a);
    return e;
}

static err co_links(struct client *c, uint16_t object, uint32_t *links) {
    struct mx_op op = {0};
    struct attr a;
    op_begins(c, (struct linear_op){.kind = LINEAR_LINKS, .object = object});
    err e = co_mx_getattr(client_mx(c), &op, handle_of(c, object), &a);
    *links = e ? 0 : a.nlink;
    op_ends(c, e, (struct linear_answer){.links = *links});
    return e;
}

// ---- readdir: whole, or entry by entry with its cookies
struct listing {
    struct client *c;
    struct linear_answer *a;
    bool single;
    uint64_t cookie;
};

static bool on_entry(void *arg, const struct mx_dirent *d) {
    struct listing *l = arg;
    l->cookie = d->cookie;
    if (d->cookie <= 2) return true; // "." and ".."
    uint16_t n = 0;
    while (n < LINEAR_NAMES && (d->name_len != 1 || d->name[0] != name_text(n)[0])) n++;
    if (n == LINEAR_NAMES) {
        oracle_fault(l->c->w->oracle, "client %u: a readdir shows a name that nobody ever made", l->c->n);
        return true;
    }
    l->a->seen[n]++;
    l->a->listed[n] = object_of(l->c, d->handle, d->type == OBJ_DIR);
    l->a->listed_dirs = (uint16_t)(l->a->listed_dirs | (d->type == OBJ_DIR) << n);
    return !l->single;
}

static err co_list(struct client *c, uint16_t dir, struct linear_answer *a) {
    struct mx_op op = {0};
    struct listing l = {.c = c, .a = a, .single = below(c->w, 2)};
    bool eof = false, plus = below(c->w, 2);
    err e = OK;
    *a = (struct linear_answer){0};
    op_begins(c, (struct linear_op){.kind = LINEAR_LIST, .dir = dir});
    while (!e && !eof) e = co_mx_readdir(client_mx(c), &op, handle_of(c, dir), l.cookie, plus, on_entry, &l, &eof);
    op_ends(c, e, *a);
    return e;
}

// ---- all there is
static err co_see_links(struct client *c, const struct linear_state *s, uint16_t object) {
    uint32_t links;
    err e = co_links(c, object, &links);
    if (!e && !c->w->rivals->begun && !crashed(c) && links != linear_links(s, object))
        oracle_fault(c->w->oracle, "client %u: after a crash object %u has link count %u, names say %u", c->n, object, links, linear_links(s, object));
    return e;
}

static err co_see_parent(struct client *c, const struct linear_dir *d) {
    uint16_t parent;
    err e = d->id == LINEAR_ROOT ? OK : co_parent(c, d->id, &parent);
    if (!e && d->id != LINEAR_ROOT && !c->w->rivals->begun && !crashed(c) && parent != d->parent)
        oracle_fault(c->w->oracle, "client %u: after a crash directory %u says that it is in %u, and is in %u", c->n, d->id, parent, d->parent);
    return e;
}

// Lists all directories that are below /rivals, in the order in which they are found.
static err co_see_dirs(struct client *c, struct linear_state *s) {
    uint16_t found[LINEAR_DIRS] = {LINEAR_ROOT}, parent[LINEAR_DIRS] = {0};
    uint32_t dirs = 1;
    *s = (struct linear_state){0};
    for (uint32_t i = 0; i < dirs; i++) {
        struct linear_answer a;
        err e = co_list(c, found[i], &a);
        if (e && !(c->w->rivals->begun && e == ERR_STALE)) return e; // else what was lost has taken effect meanwhile
        if (linear_dir_of(s, found[i])) continue;
        memcpy(linear_dir_add(s, found[i], parent[i])->at, a.listed, sizeof a.listed);
        for (uint32_t n = 0; n < LINEAR_NAMES; n++) {
            if (!(a.listed_dirs >> n & 1)) continue;
            ASSERT(dirs < LINEAR_DIRS);
            parent[dirs] = found[i];
            found[dirs++] = a.listed[n];
        }
    }
    return OK;
}

static err co_see_all(struct client *c, struct linear_state *s) {
    struct rivals *r = c->w->rivals;
    err e = co_see_dirs(c, s);
    for (uint32_t i = 0; i < s->dirs && !e; i++) {
        e = co_see_parent(c, &s->dir[i]);
        if (!e) e = co_see_links(c, s, s->dir[i].id);
        for (uint32_t n = 0; n < LINEAR_NAMES && !e; n++)
            if (s->dir[i].at[n] && !r->is_dir[s->dir[i].at[n]]) e = co_see_links(c, s, s->dir[i].at[n]);
    }
    return r->begun && e == ERR_STALE ? OK : e; // its place in the order is asked for elsewhere
}

static err co_sync_all(struct client *c, const struct linear_state *s) {
    struct mx_op op = {0};
    err e = OK;
    for (uint32_t i = 0; i < s->dirs && !e; i++) e = co_mx_fsyncdir(client_mx(c), &op, handle_of(c, s->dir[i].id));
    return e;
}

// ---- the leader
static void tell_line(void *ctx, const char *text) {
    struct client *c = ctx;
    LOG(client_env(c), TRACE_DEBUG, "order: %s", text);
}

static void no_order(struct client *c) {
    if (oracle_faults(c->w->oracle)) return; // it has been told
    linear_tell_all(c->w->rivals->l, tell_line, c);
    oracle_fault(c->w->oracle, "%s", linear_why(c->w->rivals->l));
}

static bool rival(const struct client *c) { return c->kind == CLIENT_RIVAL; }

static bool all_together(const struct workload *w, bool the_dead_too) {
    for (uint32_t i = 0; i < w->clients; i++) {
        const struct client *c = &w->client[i];
        if (rival(c) && (c->rival.state == RIVAL_WORKS || (the_dead_too && c->rival.lost))) return false;
    }
    return true;
}

static uint32_t lost_mkdirs(const struct workload *w) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < w->clients; i++) {
        const struct client *c = &w->client[i];
        n += rival(c) && c->rival.lost && c->rival.lost->makes_dir;
    }
    return n;
}

static void round_begins(struct client *c) {
    struct rivals *r = c->w->rivals;
    for (uint32_t i = 0; i < c->w->clients; i++) // whoever waits takes part, also if he has not woken up yet
        if (c->w->client[i].rival.state == RIVAL_WAITS) c->w->client[i].rival.state = RIVAL_WORKS;
    r->round++;
    r->mkdirs_left = linear_dirs(r->l) + lost_mkdirs(c->w) < DIRS_MADE_BELOW ? DIRS_A_ROUND : 0;
    r->hot_dir = r->dir[below(c->w, r->dirs)];
    r->hot_name = (uint16_t)below(c->w, LINEAR_NAMES);
}

static void dirs_are(struct rivals *r, const struct linear_state *s) {
    r->dirs = 0;
    for (uint32_t i = 0; i < s->dirs; i++) dir_heard_of(r, s->dir[i].id);
}

// A history begins with what there is.
static void co_begin(struct client *c) {
    struct rivals *r = c->w->rivals;
    struct linear_state s;
    if (!all_together(c->w, true)) return;
    r->crash = oracle_crashes(c->w->oracle);
    err e = co_see_all(c, &s);
    if (!e && !crashed(c)) e = co_sync_all(c, &s);
    if (crashed(c)) return; // once more
    must(c, "looking at all names of the rivals", e);
    if (e) return;
    if (!linear_found(r->l, &s)) no_order(c);
    dirs_are(r, &s);
    r->begun = true;
    round_begins(c);
}

static void co_look_and_sync(struct client *c) {
    struct rivals *r = c->w->rivals;
    struct linear_state s;
    err e = co_see_all(c, &s);
    if (crashed(c)) return;
    must(c, "a look at all names of the rivals", e);
    if (!linear_settle(r->l)) return no_order(c);
    dirs_are(r, &s);
    e = co_sync_all(c, &s);
    if (!e && !crashed(c)) linear_durable(r->l);
    if (e != ERR_STALE) must(c, "an fsync of the rivals' directories", e);
}

static void co_go_on(struct client *c) {
    struct rivals *r = c->w->rivals;
    if (!linear_settle(r->l)) return no_order(c);
    if (r->round % LOOK_ROUNDS == 0) co_look_and_sync(c);
    if (!crashed(c)) round_begins(c);
}

static void history_ends(struct client *c) {
    struct rivals *r = c->w->rivals;
    r->begun = false;
    if (!linear_cut(r->l)) no_order(c);
}

static void co_lead(struct client *c) {
    struct rivals *r = c->w->rivals;
    r->leader = c;
    if (r->begun && crashed(c)) history_ends(c);
    if (r->begun) co_go_on(c);
    else co_begin(c);
    r->leader = NULL;
}

static void co_meet(struct client *c) {
    struct rivals *r = c->w->rivals;
    uint32_t round = r->round;
    c->rival.state = RIVAL_WAITS;
    c->doing = "rivals meet";
    while (r->round == round) {
        if (!r->leader && all_together(c->w, false)) co_lead(c);
        if (r->round == round) co_client_pause(c, MSEC(1));
    }
}

// ---- one of them
static struct spot any_spot(struct client *c) {
    struct rivals *r = c->w->rivals;
    if (below(c->w, 2)) return (struct spot){r->hot_dir, r->hot_name};
    return (struct spot){below(c->w, 3) ? r->dir[below(c->w, r->dirs)] : LINEAR_ROOT, (uint16_t)below(c->w, LINEAR_NAMES)};
}

static uint16_t any_object(struct client *c) {
    uint32_t back = (uint32_t)below(c->w, RECENT);
    return (uint16_t)(c->w->rivals->objects - MIN(back, c->w->rivals->objects - 1u));
}

static void co_rival_look(struct client *c, uint64_t what) {
    struct rivals *r = c->w->rivals;
    struct linear_answer a;
    uint16_t parent, dir = r->dir[below(c->w, r->dirs)];
    uint32_t links;
    switch (what) {
    case 0: (void)!co_list(c, any_spot(c).dir, &a); break;
    case 1: (void)!co_links(c, any_object(c), &links); break;
    case 2:
        if (dir != LINEAR_ROOT) (void)!co_parent(c, dir, &parent);
        break;
    default: co_look_up(c, any_spot(c));
    }
}

static void co_rival_op(struct client *c) {
    uint64_t what = below(c->w, 24);
    c->doing = "rivals' names";
    if (what < 5) co_make(c, any_spot(c), false);
    else if (what < 7) co_make_dir(c, any_spot(c));
    else if (what < 10) co_remove(c, any_spot(c), false);
    else if (what < 12) co_remove(c, any_spot(c), true);
    else if (what < 16) co_rename(c, any_spot(c), any_spot(c));
    else if (what < 17) co_link(c, any_object(c), any_spot(c));
    else co_rival_look(c, what - 17);
}

static bool finished(const struct client *c) { return c->ops >= c->w->o.ops || c->w->rivals->objects + CLIENTS_MAX * LINEAR_NAMES >= OBJECTS; }

static void rival_returns(struct client *c) {
    if (c->rival.lost) linear_over(c->w->rivals->l, c->rival.lost);
    c->rival.lost = NULL;
}

void co_rival(struct client *c) {
    rival_returns(c);
    while (!finished(c)) {
        co_meet(c);
        for (uint32_t i = 0; i < ROUND_OPS && !finished(c) && !crashed(c); i++, c->ops++, c->w->progress++) co_rival_op(c);
    }
    c->rival.state = RIVAL_AWAY;
}

void rival_client_died(struct client *c) {
    struct rivals *r = c->w->rivals;
    if (c->rival.op) c->rival.lost = linear_lost(r->l, c->rival.op);
    if (r && r->leader == c) r->leader = NULL;
    c->rival.op = NULL;
    c->rival.state = RIVAL_AWAY;
}

// The last look is that of one of them.
void co_rival_check(struct client *c) {
    struct rivals *r = c->w->rivals;
    if (r->leader) return;
    co_lead(c);
    if (!r->begun) co_lead(c); // that ended a history
    r->leader = c;
    co_look_and_sync(c);
    struct linear_counts n = linear_counts(r->l);
    LOG(client_env(c), TRACE_DEBUG, "rivals: %llu operations, %llu searches for their order, %llu points, at most %llu", (unsigned long long)n.ops,
        (unsigned long long)n.settled, (unsigned long long)n.states, (unsigned long long)n.most_states);
}

err co_rivals_prepare(struct client *c) {
    struct rivals *r = c->w->rivals = calloc(1, sizeof *r);
    struct policy none = {0};
    struct mx_op op = {0};
    struct handle dir;
    struct attr a;
    ASSERT(r);
    r->l = linear_create();
    err e = co_folder_make(c, "rivals", &none, &dir);
    for (uint16_t n = 0; n < 2 && !e; n++) e = co_mx_mkdir(client_mx(c), &op, dir, name_text(n), S_IFDIR | 0755, &a);
    if (!e) object_of(c, dir, true);
    return e ? e : co_mx_fsyncdir(client_mx(c), &op, dir);
}

void rivals_destroy(struct workload *w) {
    if (w->rivals) linear_destroy(w->rivals->l);
    free(w->rivals);
}
