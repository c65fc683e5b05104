// RENAME, sent to the IOM of the directory that the name leaves.
//
//   NAME(S, s)  O -> nothing (exchange: E)        OBJECT(O)  ctime; parent, if it is a directory and S is not T
//   NAME(T, d)  E or nothing -> O                 OBJECT(E)  loses a name (a directory: must be empty); exchange: parent
//
// A directory that goes to another parent needs the one right, and with it held the walk from the new parent up to the
// root: the directory itself must not lie on it. Nobody else moves directories meanwhile, so what the walk saw stays
// true. ctime of a file whose starter is neither S's nor T's IOM is left as it is: POSIX allows it, and a third IOM
// need not take part.
#include "iom/name_inside.h"

#define TRIES 64
#define DEPTH_MAX 4096

struct renaming {
    struct names *n;
    struct handle from_dir, to_dir;
    struct name from, to;
    uint32_t flags;
    struct dirent o, e; // what moves, what is there
    bool has_e;
};

static err co_lookup_there(struct names *n, struct handle dir, struct name nm, struct dirent *d) {
    if (dir.starter == n->c.self.n) return co_dir_find(n, dir, nm, d);
    if (!handle_valid(dir) || dir.starter >= n->c.array.ioms) return ERR_STALE;
    struct msg *m = n->port.msg(n->port.ctx, MSG_LOOKUP, (uint32_t)(sizeof(struct req_name) + nm.len)), *reply;
    struct req_name *q = (void *)m->body;
    wire_handle_put(&q->dir, dir);
    q->name_len = le16_of((uint16_t)nm.len);
    memcpy(q->name, nm.s, nm.len);
    err e = co_call_iom(n, (iom_id){dir.starter}, m, &reply);
    msg_free(m);
    if (e != OK) return e;
    const struct rep_attr *rep = (const void *)reply->body;
    e = reply->body_len < sizeof *rep ? ERR_FORMAT : refmap_at(&d->map, rep->attr.map.b);
    if (e == OK) {
        d->h = wire_handle_at(&rep->attr.handle);
        d->type = type_of_mode(le32_get(rep->attr.mode));
    }
    msg_free(reply);
    return e;
}

// ---- the walk for cycles
static err co_parent_of(struct names *n, struct handle dir, struct handle *parent) {
    static const struct name up = {(const uint8_t *)"..", 2};
    if (dir.starter == n->c.self.n) {
        struct cnode c;
        err e = co_look_object(n, dir);
        if (e == OK) e = co_cnode_get(n, dir, &c);
        if (e == OK && c.type != OBJ_DIR) e = ERR_NOTDIR;
        if (e == OK && c.nlink == 0) e = ERR_NOENT;
        if (e == OK) *parent = c.parent;
        return e;
    }
    struct dirent d;
    err e = co_lookup_there(n, dir, up, &d);
    if (e == OK) *parent = d.h;
    return e;
}

static err co_walk_from(struct names *n, struct handle h, struct handle moved) {
    for (int depth = 0; depth < DEPTH_MAX; depth++) {
        if (handle_eq(h, moved)) return ERR_INVAL;
        if (handle_eq(h, handle_root())) return OK;
        err e = co_parent_of(n, h, &h);
        if (e != OK) return e;
    }
    return ERR_INVAL;
}

static err co_rename_walk(struct names *n, void *arg) {
    struct renaming *x = arg;
    err e = x->o.type == OBJ_DIR ? co_walk_from(n, x->to_dir, x->o.h) : OK;
    if (e == OK && (x->flags & RENAME_FLAG_EXCHANGE) && x->e.type == OBJ_DIR) e = co_walk_from(n, x->from_dir, x->e.h);
    return e;
}

// ---- what is to be done
static err co_rename_look(struct renaming *x) {
    err e = co_dir_find(x->n, x->from_dir, x->from, &x->o);
    if (e != OK) return e;
    e = co_lookup_there(x->n, x->to_dir, x->to, &x->e);
    x->has_e = e == OK;
    return e == ERR_NOENT ? OK : e;
}

static err rename_allowed(const struct renaming *x) {
    bool o_dir = x->o.type == OBJ_DIR, e_dir = x->has_e && x->e.type == OBJ_DIR;
    if (x->flags & RENAME_FLAG_EXCHANGE) return x->has_e ? OK : ERR_NOENT;
    if (!x->has_e) return OK;
    if (x->flags & RENAME_FLAG_NOREPLACE) return ERR_EXIST;
    if (o_dir && !e_dir) return ERR_NOTDIR;
    if (!o_dir && e_dir) return ERR_ISDIR;
    return OK;
}

// The two names were looked at one after the other. What is answered without a change held at one instant only if the first is still what it was.
static bool co_source_stays(struct renaming *x) {
    struct dirent now;
    return mutant(MUTANT_TWO_LOOKS) || (co_dir_find(x->n, x->from_dir, x->from, &now) == OK && handle_eq(now.h, x->o.h));
}

static void step_points(struct step *s, const struct dirent *d) {
    s->target = d->h;
    s->map = d->map;
    s->type = d->type;
}

static void rename_names(const struct renaming *x, struct steps *s) {
    bool exchange = x->flags & RENAME_FLAG_EXCHANGE;
    int8_t o_dir = x->o.type == OBJ_DIR, e_dir = x->has_e && x->e.type == OBJ_DIR;
    struct step *from = steps_add(s, STEP_NAME, x->from_dir), *to = steps_add(s, STEP_NAME, x->to_dir);
    from->name = x->from;
    from->expect = x->o.h;
    if (exchange) step_points(from, &x->e);
    from->nlink = (int8_t)((exchange ? e_dir : 0) - o_dir);
    to->name = x->to;
    if (x->has_e) to->expect = x->e.h;
    step_points(to, &x->o);
    to->nlink = (int8_t)(o_dir - e_dir);
}

static void object_moves(const struct renaming *x, struct steps *s, const struct dirent *d, struct handle to,
                         bool same_dir) {
    bool dir = d->type == OBJ_DIR;
    if (!dir && d->h.starter != x->from_dir.starter && d->h.starter != x->to_dir.starter) return;
    struct step *t = steps_add(s, STEP_OBJECT, d->h);
    if (!dir || same_dir) return;
    t->flags = STEP_PARENT;
    t->target = to;
}

static void rename_steps(struct renaming *x, struct steps *s) {
    bool exchange = x->flags & RENAME_FLAG_EXCHANGE, same_dir = handle_eq(x->from_dir, x->to_dir);
    bool moves_dir = x->o.type == OBJ_DIR || (exchange && x->e.type == OBJ_DIR);
    s->len = 0;
    rename_names(x, s);
    object_moves(x, s, &x->o, x->to_dir, same_dir);
    if (exchange) {
        object_moves(x, s, &x->e, x->from_dir, same_dir);
    } else if (x->has_e) {
        struct step *t = steps_add(s, STEP_OBJECT, x->e.h);
        t->nlink = -1;
        t->flags = x->e.type == OBJ_DIR ? STEP_EMPTY : 0;
    }
    if (!moves_dir || same_dir) return;
    steps_add(s, STEP_RIGHT, handle_root());
    s->co_walk = co_rename_walk;
    s->arg = x;
}

static err rename_begin(struct renaming *x, struct request *r) {
    const struct req_rename *q = (const void *)r->m->body;
    uint32_t from_len = le16_get(q->name_len), to_len = le16_get(q->to_len);
    *x = (struct renaming){
        .n = r->n,
        .from_dir = wire_handle_at(&q->dir),
        .to_dir = wire_handle_at(&q->to_dir),
        .flags = le32_get(q->flags),
        .from = {q->names, from_len},
        .to = {q->names + from_len, to_len},
    };
    if (r->m->body_len < sizeof *q + from_len + to_len) return ERR_FORMAT;
    if (x->flags & ~(RENAME_FLAG_NOREPLACE | RENAME_FLAG_EXCHANGE)) return ERR_INVAL;
    if (x->flags == (RENAME_FLAG_NOREPLACE | RENAME_FLAG_EXCHANGE)) return ERR_INVAL;
    err e = name_check(x->from);
    return e == OK ? name_check(x->to) : e;
}

err co_name_rename(struct request *r) {
    struct renaming x;
    err e = rename_begin(&x, r);
    for (int tries = 0; tries < TRIES && e == OK; tries++) {
        e = co_rename_look(&x);
        if (e != OK) return e;
        e = rename_allowed(&x);
        if (e != OK || (x.has_e && handle_eq(x.o.h, x.e.h))) { // two names of one object: POSIX wants nothing done
            if (co_source_stays(&x)) return e;
            e = OK;
            continue;
        }
        struct steps s = {.len = 0};
        rename_steps(&x, &s);
        e = co_steps_run(r, &s, false, false);
        if (e != ERR_CONFLICT && e != ERR_STALE) return e;
        e = OK;
    }
    return e == OK ? ERR_STALE : e;
}
