// CREATE, MKDIR, SYMLINK: a new object and its name.
//
// A file's starter is the IOM of its directory: one batch. Directories are spread: one made in the root or just below
// it goes to the IOM that the hash of its name says (an intent of two IOMs); of those deeper down three in four stay
// with their parent, so that trees are cheap.
#include "iom/name_inside.h"

#include "base/sum.h"

#include <sys/stat.h>

struct making {
    struct request *r;
    const struct req_create *q;
    struct handle dir_handle;
    struct name name;
    struct cnode dir;
};

static err making_begin(struct making *m, struct request *r) {
    const struct req_create *q = (const void *)r->m->body;
    *m = (struct making){
        .r = r, .q = q, .dir_handle = wire_handle_at(&q->dir), .name = {q->name, le16_get(q->name_len)}};
    if (r->m->body_len < sizeof *q + m->name.len) return ERR_FORMAT;
    return name_check(m->name);
}

static uint8_t policy_of(uint8_t set, uint8_t standard) {
    return set == POLICY_UNSET ? standard : set;
}

static err making_map(const struct making *m, struct handle h, struct refmap *map) {
    const struct names *n = m->r->n;
    const struct rec_policy *p = &m->dir.policy;
    return refmap_make(map, &n->c.array, n->c.self, (enum protection)policy_of(p->protection, PROT_PARITY),
                       policy_of(p->span, 0), policy_of(p->quantum_shift, 16), handle_hash(h));
}

static struct step *making_steps(struct making *m, struct steps *s, uint8_t type, struct handle h, iom_id where) {
    struct names *n = m->r->n;
    uint32_t mode = le32_get(m->q->mode) & 07777;
    bool inherits = m->dir.mode & S_ISGID;
    if (inherits && type == OBJ_DIR) mode |= S_ISGID;
    s->len = 0;
    struct step *name = steps_add(s, STEP_NAME, m->dir_handle);
    name->name = m->name;
    name->target = h;
    name->type = type;
    name->nlink = type == OBJ_DIR;
    struct step *make = steps_add(s, STEP_MAKE, h);
    make->where = where;
    make->type = type;
    make->mode = mode;
    make->uid = le32_get(m->r->head->uid);
    make->gid = inherits ? m->dir.gid : le32_get(m->r->head->gid);
    make->rdev = le64_get(m->q->rdev);
    make->toughness = policy_of(m->dir.policy.toughness, 1);
    make->policy = (struct rec_policy){POLICY_UNSET, POLICY_UNSET, POLICY_UNSET, POLICY_UNSET};
    if (type == OBJ_DIR) {
        make->policy = m->dir.policy;
        make->target = m->dir_handle; // parent
        make->map = dir_map(n, where);
    }
    name->map = make->map;
    return make;
}

// The parent's policies; a name already there is told at once, before anything is prepared for it.
static err co_making_look(struct making *m) {
    struct names *n = m->r->n;
    err e = co_look_name(n, m->dir_handle, m->name);
    if (e == OK) e = co_cnode_made(n, m->dir_handle, &m->dir);
    if (e != OK) return e;
    if (m->dir.type != OBJ_DIR) return ERR_NOTDIR;
    if (m->dir.nlink == 0) return ERR_NOENT;
    struct dirent d;
    e = co_dirent_find(n, m->dir_handle, m->name, &d);
    return e == OK ? ERR_EXIST : e == ERR_NOENT ? OK : e;
}

err co_name_create(struct request *r) {
    struct making m;
    err e = making_begin(&m, r);
    uint8_t type = e == OK ? type_of_mode(le32_get(m.q->mode)) : 0;
    if (e == OK && (type == 0 || type == OBJ_DIR || type == OBJ_SYMLINK)) e = ERR_INVAL;
    while (e == OK) {
        struct steps s = {.len = 0};
        struct handle h;
        e = co_making_look(&m);
        if (e == OK) e = co_handle_new(r->n, &h);
        if (e != OK) return e;
        struct step *make = making_steps(&m, &s, type, h, r->n->c.self);
        e = making_map(&m, h, &make->map);
        s.v[0].map = make->map;
        if (e == OK) e = co_steps_run(r, &s, true, m.q->open);
        if (e != ERR_CONFLICT) return e;
        e = OK; // somebody else was at that name: look again
    }
    return e;
}

static iom_id mkdir_place(const struct making *m) {
    const struct names *n = m->r->n;
    uint64_t h = hash64(m->name.s, m->name.len, handle_hash(m->dir_handle));
    bool high = handle_eq(m->dir_handle, handle_root()) || handle_eq(m->dir.parent, handle_root());
    if (!high && (h & 3) != 0) return n->c.self;
    return (iom_id){(uint8_t)((h >> 2) % n->c.array.ioms)};
}

err co_name_mkdir(struct request *r) {
    struct making m;
    err e = making_begin(&m, r);
    while (e == OK) {
        struct steps s = {.len = 0};
        struct handle h = handle_zero();
        e = co_making_look(&m);
        if (e != OK) return e;
        iom_id where = mkdir_place(&m);
        if (iom_eq(where, r->n->c.self)) e = co_handle_new(r->n, &h); // else the other IOM gives it
        if (e != OK) return e;
        making_steps(&m, &s, OBJ_DIR, h, where);
        e = co_steps_run(r, &s, true, false);
        if (e != ERR_CONFLICT) return e;
        e = OK;
    }
    return e;
}

// ---- symlinks
struct symlink_extra {
    struct names *n;
    const struct slice *target;
    struct handle h;
};

static void symlink_parts(void *arg, struct batch *b) {
    const struct symlink_extra *x = arg;
    const struct slice *p = x->target;
    uint8_t id[HANDLE_BYTES];
    handle_put(id, x->h);
    for (uint32_t off = 0, part = 0; off < p->len_bytes; off += SYMLINK_PART_BYTES, part++) {
        struct key k = key_make(KIND_SYMLINK, id, part);
        batch_put(b, x->n->tree, &k, slice_data(*p) + off, MIN(SYMLINK_PART_BYTES, p->len_bytes - off));
    }
}

err co_name_symlink(struct request *r) {
    struct making m;
    err e = making_begin(&m, r);
    uint32_t len = r->m->payload.len_bytes;
    if (e == OK && (len == 0 || memchr(slice_data(r->m->payload), 0, len) != NULL)) e = ERR_INVAL;
    if (e == OK && len > SYMLINK_BYTES_MAX) e = ERR_NAMETOOLONG;
    while (e == OK) {
        struct steps s = {.len = 0};
        struct handle h;
        e = co_making_look(&m);
        if (e == OK) e = co_handle_new(r->n, &h);
        if (e != OK) return e;
        struct step *make = making_steps(&m, &s, OBJ_SYMLINK, h, r->n->c.self);
        make->mode = 0777;
        make->size = len;
        make->map = s.v[0].map = dir_map(r->n, r->n->c.self);
        struct symlink_extra x = {r->n, &r->m->payload, h};
        s.extra = symlink_parts;
        s.arg = &x;
        e = co_steps_run(r, &s, true, false);
        if (e != ERR_CONFLICT) return e;
        e = OK;
    }
    return e;
}

// The creation was done before, and its reply is told once more. What is open is in memory alone: since then a restart
// may have forgotten that this object is. ERR_STALE: the session did not name the creation when it was renewed, and the
// file is gone.
err co_name_create_again(struct request *r, struct msg **stored) {
    const struct req_create *q = (const void *)r->m->body;
    if (!q->open || *stored == NULL || (*stored)->body_len < sizeof(struct rep_attr)) return OK;
    struct handle h = handle_at(((const struct rep_attr *)(const void *)(*stored)->body)->attr.handle.b);
    struct cnode c;
    err e = co_cnode_live(r->n, h, &c);
    if (e == OK && r->session != NULL) session_open_object(r->n, r->session, h);
    if (e == OK) return OK;
    msg_free(*stored);
    *stored = NULL;
    return e;
}
