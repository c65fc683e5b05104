// UNLINK, RMDIR, LINK: a name goes or comes, the object's link count with it.
#include "iom/name_inside.h"

#include <sys/stat.h>

#define TRIES 64 // a name may change hands between the look and the step; an object that stays away is gone

static err co_name_gone(struct request *r, bool dir) {
    const struct req_name *q = (const void *)r->m->body;
    struct handle at = wire_handle_at(&q->dir);
    struct name nm = {q->name, le16_get(q->name_len)};
    if (r->m->body_len < sizeof *q + nm.len) return ERR_FORMAT;
    err e = name_check(nm);
    for (int tries = 0; tries < TRIES && e == OK; tries++) {
        struct dirent d;
        e = co_dir_find(r->n, at, nm, &d);
        if (e == OK && dir && d.type != OBJ_DIR) e = ERR_NOTDIR;
        if (e == OK && !dir && d.type == OBJ_DIR) e = ERR_ISDIR;
        if (e != OK) return e;
        struct steps s = {.len = 0};
        struct step *name = steps_add(&s, STEP_NAME, at);
        name->name = nm;
        name->expect = d.h;
        name->nlink = dir ? -1 : 0;
        struct step *object = steps_add(&s, STEP_OBJECT, d.h);
        object->nlink = -1;
        object->flags = dir && !mutant(MUTANT_EMPTY) ? STEP_EMPTY : 0;
        e = co_steps_run(r, &s, false, false);
        if (e != ERR_CONFLICT && e != ERR_STALE) return e;
        e = OK;
    }
    return e == OK ? ERR_STALE : e;
}

err co_name_unlink(struct request *r) {
    return co_name_gone(r, false);
}
err co_name_rmdir(struct request *r) {
    return co_name_gone(r, true);
}

// What its starter says of an object: type and map, for the name that points to it.
err co_object_about(struct names *n, struct handle h, uint8_t *type, struct refmap *map) {
    if (h.starter == n->c.self.n) {
        struct cnode c;
        err e = co_look_object(n, h);
        if (e == OK) e = co_cnode_live(n, h, &c);
        if (e != OK) return e;
        *type = c.type;
        *map = c.map;
        return OK;
    }
    if (!handle_valid(h) || h.starter >= n->c.array.ioms) return ERR_STALE;
    struct msg *m = n->port.msg(n->port.ctx, MSG_GETATTR, sizeof(struct req_handle)), *reply;
    wire_handle_put(&((struct req_handle *)(void *)m->body)->handle, h);
    err e = co_call_iom(n, (iom_id){h.starter}, m, &reply);
    msg_free(m);
    if (e != OK) return e;
    const struct rep_attr *rep = (const void *)reply->body;
    e = reply->body_len < sizeof *rep ? ERR_FORMAT : refmap_at(map, rep->attr.map.b);
    *type = e == OK ? type_of_mode(le32_get(rep->attr.mode)) : 0;
    msg_free(reply);
    return e;
}

err co_name_link(struct request *r) {
    const struct req_link *q = (const void *)r->m->body;
    struct handle dir = wire_handle_at(&q->dir), h = wire_handle_at(&q->handle);
    struct name nm = {q->name, le16_get(q->name_len)};
    if (r->m->body_len < sizeof *q + nm.len) return ERR_FORMAT;
    uint8_t type;
    struct refmap map;
    err e = name_check(nm);
    if (e == OK) e = co_object_about(r->n, h, &type, &map);
    if (e == OK && type == OBJ_DIR) e = ERR_PERM;
    while (e == OK) {
        struct dirent d;
        e = co_dir_find(r->n, dir, nm, &d);
        if (e == OK) return ERR_EXIST;
        if (e != ERR_NOENT || d.number == 0) return e;
        struct steps s = {.len = 0};
        struct step *name = steps_add(&s, STEP_NAME, dir);
        name->name = nm;
        name->target = h;
        name->map = map;
        name->type = type;
        steps_add(&s, STEP_OBJECT, h)->nlink = 1;
        e = co_steps_run(r, &s, true, false);
        if (e != ERR_CONFLICT) return e;
        e = OK;
    }
    return e;
}
