// Reads and writes: one message to each IOM that holds a part of the range, all at once; the parts are gathered and scattered here.
//
//   [off, off+len) ── pieces (chunk by chunk) ── IOM 2: pieces 0, 3, 6   one READ or WRITE, its payload the pieces one after the other
//                                                IOM 3: pieces 1, 4
//                                                IOM 0: pieces 2, 5
//
// A write that grows the file raises the size at the starter at the same time and is answered after both; where the starter has a part of the range (the first
// chunk of every file is its own) the WRITE to it says so, else there is a RAISE. Where the data must be on disk (O_SYNC, toughness 2) the size is raised
// durably first: no block beyond the durable end hardens (src/iom/row.h).
#include "mx/inside.h"
#include "wire/format.h"

// ---- pieces
struct piece {
    iom_id iom;
    uint64_t off;
    uint32_t len;
};
struct walk {
    const struct refmap *map;
    uint64_t at, end;
};

static bool next_piece(struct walk *w, struct piece *p) {
    if (w->at >= w->end) return false;
    struct place at = geo_locate(w->map, w->at);
    p->iom = at.data;
    p->off = w->at;
    p->len = (uint32_t)MIN((uint64_t)at.run_bytes, w->end - w->at);
    w->at += p->len;
    return true;
}

struct share { // what one IOM has of a range
    uint32_t bytes, pieces;
    uint64_t first_off;
};

static uint32_t share_out(const struct refmap *map, uint64_t off, uint32_t len, struct share share[ARRAY_IOMS_MAX]) {
    struct walk w = {map, off, off + len};
    struct piece p;
    uint64_t last_end[ARRAY_IOMS_MAX] = {0};
    uint32_t members = 0;
    memset(share, 0, sizeof(struct share) * ARRAY_IOMS_MAX);
    while (next_piece(&w, &p)) {
        struct share *s = &share[p.iom.n];
        if (!s->bytes) {
            members++;
            s->first_off = p.off;
        }
        if (!s->bytes || last_end[p.iom.n] != p.off) s->pieces++;
        s->bytes += p.len;
        last_end[p.iom.n] = p.off + p.len;
    }
    return members;
}

// ---- one range, all its members at once
struct transfer {
    struct mx *m;
    struct mx_op *op;
    struct mx_object *o;
    uint64_t off;
    uint32_t len;
    uint8_t *dst;           // read
    struct slice data;      // write
    uint8_t toughness;
    bool raises;            // the starter's part brings the new size
    bool cut;               // fsync: the starter says that the object was cut meanwhile
    bool told;              // and it was the only part: the starter knows all of this write, after the fact
    const uint64_t *recoveries; // mx_target's
    struct share share[ARRAY_IOMS_MAX];
    struct group parts;
};
struct part {
    struct transfer *t;
    iom_id iom;
    err (*co_part)(struct transfer *t, iom_id iom);
};

static void part_task(void *arg) {
    struct part *p = arg;
    group_done(p->t->m->env, &p->t->parts, p->co_part(p->t, p->iom));
}

// Runs co_part for every member of the range; the last one in this task.
static err co_parts(struct transfer *t, err (*co_part)(struct transfer *t, iom_id iom)) {
    struct part part[ARRAY_IOMS_MAX];
    uint32_t members = share_out(&t->o->map, t->off, t->len, t->share);
    group_init(&t->parts);
    for (uint8_t i = 0; i < ARRAY_IOMS_MAX && members; i++) {
        if (!t->share[i].bytes) continue;
        part[i] = (struct part){t, {i}, co_part};
        group_add(&t->parts);
        if (--members) env_spawn(t->m->env, "mx: part of a transfer", part_task, &part[i]);
        else part_task(&part[i]);
    }
    return co_group_wait(t->m->env, &t->parts, "mx: parts of a transfer");
}

static void scatter(struct transfer *t, iom_id iom, const uint8_t *src) {
    struct walk w = {&t->o->map, t->off, t->off + t->len};
    struct piece p;
    while (next_piece(&w, &p)) {
        if (!iom_eq(p.iom, iom)) continue;
        memcpy(t->dst + (p.off - t->off), src, p.len);
        src += p.len;
    }
}

static struct slice gather(struct transfer *t, iom_id iom) { // a reference for the caller
    const struct share *s = &t->share[iom.n];
    if (s->pieces == 1) return (struct slice){buf_ref(t->data.buf), t->data.off_bytes + (uint32_t)(s->first_off - t->off), s->bytes};
    struct buf *b = buf_new(t->m->env->mem, s->bytes);
    struct walk w = {&t->o->map, t->off, t->off + t->len};
    struct piece p;
    uint32_t at = 0;
    while (next_piece(&w, &p)) {
        if (!iom_eq(p.iom, iom)) continue;
        memcpy(b->data + at, slice_data(t->data) + (p.off - t->off), p.len);
        at += p.len;
    }
    return (struct slice){b, 0, s->bytes};
}

static err co_read_part(struct transfer *t, iom_id iom) {
    struct msg *q = mx_msg(t->m, t->op, MSG_READ, sizeof(struct req_read)), *reply;
    struct req_read *r = (struct req_read *)q->body;
    handle_put(r->handle.b, t->o->handle);
    refmap_put(r->map.b, &t->o->map);
    r->off = le64_of(t->off);
    r->len = le32_of(t->len);
    err e = co_mx_request(t->m, t->op, (struct mx_target){.iom = iom}, q, &reply);
    if (e) return e;
    if (reply->payload.len_bytes != t->share[iom.n].bytes) e = ERR_FORMAT;
    else scatter(t, iom, slice_data(reply->payload));
    msg_free(reply);
    return e;
}

// What the starter answers to a raise by us.
static err size_learn(struct mx_object *o, const struct msg *reply, uint64_t *size) {
    const struct rep_size *s = (const struct rep_size *)reply->body;
    if (reply->body_len < sizeof *s) return ERR_FORMAT;
    mx_object_change(o, le64_get(s->change), true);
    *size = le64_get(s->size);
    if (le32_get(s->truncates) != o->truncates) return OK;
    o->size = MAX(o->size, *size);
    o->size_change = MAX(o->size_change, le64_get(s->change));
    o->durable_end = MAX(o->durable_end, le64_get(s->durable_size));
    return OK;
}

static err co_write_part(struct transfer *t, iom_id iom) {
    struct msg *q = mx_msg(t->m, t->op, MSG_WRITE, sizeof(struct req_write));
    struct req_write *w = (struct req_write *)q->body;
    struct slice data = gather(t, iom);
    handle_put(w->handle.b, t->o->handle);
    refmap_put(w->map.b, &t->o->map);
    w->off = le64_of(t->off);
    w->len = le32_of(t->len);
    w->truncates = le32_of(t->o->truncates);
    w->durable_end = le64_of(t->o->durable_end);
    w->toughness = t->toughness;
    w->raise = t->raises && iom.n == t->o->handle.starter;
    w->mtime_ns = le64_of(t->o->mtime_ns);
    bool raises = w->raise;
    msg_set_payload(q, data);
    buf_unref(data.buf);
    struct msg *reply;
    uint64_t size;
    err e = co_mx_request(t->m, t->op, (struct mx_target){.iom = iom, .once = true, .recoveries = t->recoveries}, q, &reply);
    if (e) return e;
    if (raises) e = size_learn(t->o, reply, &size);
    msg_free(reply);
    return e;
}

// ---- size at the starter
struct raise {
    uint64_t end;
    bool durable, append, again;
    uint64_t place;             // again: that it was given before
    struct mx_slot *slot;       // of an append
    const uint64_t *recoveries; // mx_target's
};
static err co_raise(struct mx *m, struct mx_op *op, struct mx_object *o, struct raise what, uint64_t *size) {
    struct msg *q = mx_msg(m, op, MSG_RAISE, sizeof(struct req_raise)), *reply;
    struct req_raise *r = (struct req_raise *)q->body;
    handle_put(r->handle.b, o->handle);
    r->end = le64_of(what.end);
    r->mtime_ns = le64_of(o->mtime_ns);
    r->truncates = le32_of(o->truncates);
    r->durable = what.durable;
    r->append = what.append;
    r->again = what.again;
    r->place = le64_of(what.place);
    err e = co_mx_request(m, op, (struct mx_target){.iom = {o->handle.starter}, .once = what.append, .slot = what.slot, .recoveries = what.recoveries}, q, &reply);
    if (e) return e;
    e = size_learn(o, reply, size);
    msg_free(reply);
    return e;
}

static err co_raise_end(struct transfer *t, bool durable) {
    uint64_t size;
    return co_raise(t->m, t->op, t->o, (struct raise){.end = t->off + t->len, .durable = durable}, &size);
}

static err co_raise_part(struct transfer *t, iom_id iom) { return co_raise_end(t, false); }

static err co_write_all(struct transfer *t, bool grows) {
    t->raises = t->told = false;
    if (!grows) return co_parts(t, co_write_part);
    if (t->toughness != 2) {
        uint32_t members = share_out(&t->o->map, t->off, t->len, t->share);
        t->raises = t->share[t->o->handle.starter].bytes;
        t->told = t->raises && members == 1;
        if (t->raises) return co_parts(t, co_write_part);
    }
    if (t->toughness == 2) {
        err e = co_raise_end(t, true);
        return e ? e : co_parts(t, co_write_part);
    }
    // The raise beside the parts: a group of its own, since co_parts owns t->parts.
    struct transfer raise = *t;
    struct part part = {&raise, {t->o->handle.starter}, co_raise_part};
    group_init(&raise.parts);
    group_add(&raise.parts);
    env_spawn(t->m->env, "mx: raise", part_task, &part);
    err e = co_parts(t, co_write_part);
    err raised = co_group_wait(t->m->env, &raise.parts, "mx: the new size");
    return e ? e : raised;
}

static err co_learn(struct mx *m, struct mx_op *op, struct mx_object *o) {
    struct attr a;
    uint64_t since_ns = op->since_ns; // the operation goes on: getattr begins the clock anew
    err e = co_mx_getattr(m, op, o->handle, &a);
    op->since_ns = since_ns;
    return e;
}

// A write begins or ends: an fsync may be owed.
static void write_counts(struct mx_object *o, uint8_t toughness) {
    o->writes += toughness < 2;
    o->fast += toughness == 0 || (toughness == 1 && !geo_has_parity(&o->map));
}

// Some members may have taken their part of a write that failed. Theirs will reach the disk, and they will ask for a size that covers it then: so the file has that size
// from now on, not at some time after its writer has seen another.
static void co_raise_failed(struct transfer *t, err e) {
    if ((e != ERR_NOSPC && e != ERR_IO) || t->off + t->len <= t->o->size) return;
    err raised = co_raise_end(t, false);
    if (raised) LOG(t->m->env, TRACE_WARN, "mx: a write that failed may make its file longer later: %s", err_name(raised));
}

// With `pinned` only while the map counts so many: else ERR_EPOCH.
static err co_write_range(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, struct slice data, const uint64_t *pinned) {
    struct mx_object *o = f->object;
    struct transfer t = {.m = m, .op = op, .o = o, .off = off, .len = data.len_bytes, .data = data, .recoveries = pinned};
    bool was_flushed = !o->unflushed;
    uint32_t number = ++o->write_number;
    for (;;) {
        t.toughness = f->flags & MX_O_SYNC ? 2 : o->toughness;
        o->mtime_ns = env_wall_ns(m->env);
        o->unflushed = true;
        write_counts(o, t.toughness);
        uint64_t recoveries = cluster_map_losses(&m->map);
        err e = co_write_all(&t, off + t.len > o->size);
        write_counts(o, t.toughness); // again: a recovery meanwhile took the first as lost, pieces sent since are not synced either
        o->unflushed = e || !t.told || !was_flushed || number != o->write_number;
        if (!e && !pinned && recoveries != cluster_map_losses(&m->map)) { // the size that it rested on may be lost while the data was sent again
            o->unflushed = true;
            e = co_raise_end(&t, t.toughness == 2);
        }
        if (e != ERR_TRUNCATED) {
            if (!e) o->size = MAX(o->size, off + t.len);
            else co_raise_failed(&t, e);
            return e;
        }
        e = co_learn(m, op, o);
        if (!e) e = co_mx_pause(m, op, MSEC(1));
        if (e) return e;
    }
}

// What is written and not settled yet holds more places than it will need (a parity block has one promised for each member): once it is settled
// there may be room after all. A store is full when it is full with everything settled.
static err co_fsync_members(struct mx *m, struct mx_op *op, struct mx_object *o);
static err co_write_fitting(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, struct slice data, const uint64_t *pinned) {
    err e = co_write_range(m, op, f, off, data, pinned);
    if (e != ERR_NOSPC || co_fsync_members(m, op, f->object)) return e;
    return co_write_range(m, op, f, off, data, pinned);
}

static err co_write(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, struct slice data, const uint64_t *pinned) {
    if (off > OBJECT_BYTES_MAX || data.len_bytes > OBJECT_BYTES_MAX - off) return ERR_FBIG;
    mx_object_ref(m, f->object); // a release in between must not take it away
    err e = OK;
    for (uint32_t done = 0; done < data.len_bytes && !e;) {
        uint32_t len = MIN(data.len_bytes - done, MX_TRANSFER_MAX);
        e = co_write_fitting(m, op, f, off + done, (struct slice){data.buf, data.off_bytes + done, len}, pinned);
        done += len;
    }
    if (!e) m->stats.bytes_written += data.len_bytes;
    mx_object_put(m, f->object);
    return e;
}

err co_mx_write(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, struct slice data) {
    mx_op_begin(m, op);
    return co_write(m, op, f, off, data, NULL);
}

// The place of an append is a size that a crash of all may take back; then others get that place. So nothing is sent there after a recovery before the starter was
// asked again, by the same request: its kept reply says that the place is still ours, else it gives another. Where that reply was lost too, our data may still be on disk
// where they went, and the starter is told where: but only the place of before the last loss, for one of before another may be somebody else's meanwhile.
static err co_append(struct mx *m, struct mx_op *op, struct mx_file *f, struct slice data, uint64_t *at, struct mx_slot *slot) {
    struct mx_object *o = f->object;
    uint64_t size = 0, given = 0;
    bool placed = false;
    for (;;) {
        uint64_t recoveries = cluster_map_losses(&m->map);
        bool again = placed && recoveries - given == 1;
        o->mtime_ns = env_wall_ns(m->env);
        struct raise what = {.end = data.len_bytes, .append = true, .again = again, .place = *at, .slot = slot};
        if (again) what.recoveries = &recoveries;
        err e = co_raise(m, op, o, what, &size);
        if (e == ERR_EPOCH && again) continue;
        if (e == ERR_TRUNCATED) {
            placed = false;
            e = co_learn(m, op, o);
            if (e) return e;
            continue;
        }
        if (e) return e;
        placed = true;
        given = recoveries;
        *at = size - data.len_bytes;
        e = co_write(m, op, f, *at, data, &recoveries);
        if (e != ERR_EPOCH) return e;
    }
}

err co_mx_append(struct mx *m, struct mx_op *op, struct mx_file *f, struct slice data, uint64_t *at) {
    iom_id starter = {f->object->handle.starter};
    struct mx_iom *i = &m->iom[starter.n];
    mx_op_begin(m, op);
    *at = 0;
    while (i->appends == MX_APPENDS) co_wait(m->env, &i->append_over, "mx: other appends");
    i->appends++;
    struct mx_slot *slot = co_mx_slot_take(m, starter);
    err e = co_append(m, op, f, data, at, slot);
    mx_slot_give(m, starter, slot);
    i->appends--;
    waitq_wake_one(m->env, &i->append_over);
    return e;
}

// Where the object ends, asked anew when what is known is old and the read would reach beyond it.
static err co_end(struct mx *m, struct mx_op *op, struct mx_object *o, uint64_t want, uint64_t *end) {
    if (want > o->size && env_now_ns(m->env) - o->learned_ns > MX_ATTR_FRESH_NS) {
        err e = co_learn(m, op, o);
        if (e) return e;
    }
    *end = o->size;
    return OK;
}

err co_mx_read(struct mx *m, struct mx_op *op, struct mx_file *f, uint64_t off, uint32_t len, uint8_t *dst, uint32_t *got) {
    struct mx_object *o = f->object;
    uint64_t end = 0;
    mx_op_begin(m, op);
    *got = 0;
    if (off > OBJECT_BYTES_MAX) return ERR_INVAL;
    mx_object_ref(m, o);
    err e = co_end(m, op, o, off + len, &end);
    if (!e && off < end) len = (uint32_t)MIN((uint64_t)len, end - off);
    else len = 0;
    while (!e && *got < len) {
        struct transfer t = {.m = m, .op = op, .o = o, .off = off + *got, .len = MIN(len - *got, MX_TRANSFER_MAX), .dst = dst + *got};
        e = co_parts(&t, co_read_part);
        if (!e) *got += t.len;
    }
    m->stats.bytes_read += *got;
    mx_object_put(m, o);
    return e;
}

// ---- open, close, fsync
static err co_name_request_handle(struct mx *m, struct mx_op *op, uint16_t type, struct handle h, struct msg **reply) {
    struct msg *q = mx_msg(m, op, type, sizeof(struct req_handle));
    handle_put(((struct req_handle *)q->body)->handle.b, h);
    return co_mx_request(m, op, (struct mx_target){.iom = {h.starter}, .once = type == MSG_OPEN || type == MSG_RELEASE}, q, reply);
}

static void co_wait_released(struct mx *m, struct handle h);
static void object_close(struct mx *m, struct mx_object *o);

static struct mx_file *file_new(struct mx *m, const struct attr *a, uint32_t flags) {
    struct mx_file *f = mem_alloc(m->env->mem, sizeof *f);
    f->object = mx_object_get(m, a);
    f->object->opens++;
    if (!list_empty(&f->object->parting)) { // another's last close while our open was on its way: the starter is not to hear of it
        list_remove(&f->object->parting);
        m->iom[a->handle.starter].parting_len--;
        mx_object_put(m, f->object);
    }
    f->flags = flags;
    f->lost_seen = f->object->lost - (f->object->lost && !f->object->lost_told);
    return f;
}

static err co_truncate_on_open(struct mx *m, struct mx_op *op, struct attr *a) {
    struct mx_setattr s = {.valid = SETATTR_SIZE, .size = 0};
    return a->size ? co_mx_setattr(m, op, a->handle, &s, a) : OK;
}

static err co_open_at_starter(struct mx *m, struct mx_op *op, struct handle h, struct attr *attr) {
    struct msg *reply;
    bool has_attr;
    err e = co_name_request_handle(m, op, MSG_OPEN, h, &reply);
    if (!e) e = mx_reply_attr(m, reply, attr, &has_attr);
    return !e && !has_attr ? ERR_FORMAT : e;
}

// An open whose answer was on its way while another's last close set out: the starter has counted it out again.
static bool overtaken(struct mx *m, struct handle h) {
    struct mx_object *o = mx_object_find(m, h);
    return o && o->releasing;
}

// An object that is open here already counts as open once more from the start, so that no last close in between tells the starter otherwise.
static err co_open_once(struct mx *m, struct mx_op *op, struct handle h, uint32_t flags, struct mx_file **out, struct attr *attr) {
    co_wait_released(m, h);
    struct mx_object *o = mx_object_find(m, h);
    bool queued = o && !list_empty(&o->parting), was_open = o && (o->opens || queued); // as the starter sees it
    if (queued) { // its reference is ours now
        list_remove(&o->parting);
        m->iom[h.starter].parting_len--;
        o->opens++;
    } else if (o) {
        mx_object_ref(m, o);
        o->opens++;
    }
    err e = co_open_at_starter(m, op, h, attr);
    if (!e && overtaken(m, h)) e = ERR_BUSY;
    if (!e) *out = file_new(m, attr, flags);
    if (o && (!e || was_open)) object_close(m, o);
    else if (o) {
        o->opens--;
        mx_object_put(m, o);
    }
    return e;
}

err co_mx_open(struct mx *m, struct mx_op *op, struct handle h, uint32_t flags, struct mx_file **out, struct attr *attr) {
    err e;
    mx_op_begin(m, op);
    do e = co_open_once(m, op, h, flags, out, attr);
    while (e == ERR_BUSY);
    if (!e && (flags & MX_O_TRUNC)) {
        e = co_truncate_on_open(m, op, attr);
        if (e) co_mx_release(m, *out);
    }
    if (e) *out = NULL;
    return e;
}

static err co_create_once(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, struct attr *attr) {
    uint16_t len = (uint16_t)strnlen(name, 256);
    if (len > 255) return ERR_NAMETOOLONG;
    struct msg *q = mx_msg(m, op, MSG_CREATE, (uint32_t)sizeof(struct req_create) + len), *reply;
    struct req_create *r = (struct req_create *)q->body;
    bool has_attr;
    handle_put(r->dir.b, dir);
    r->mode = le32_of(mode);
    r->open = 1;
    r->name_len = le16_of(len);
    memcpy(r->name, name, len);
    err e = co_mx_request(m, op, (struct mx_target){.iom = {dir.starter}, .once = true, .opens = true}, q, &reply);
    if (!e) e = mx_reply_attr(m, reply, attr, &has_attr);
    return !e && !has_attr ? ERR_FORMAT : e;
}

err co_mx_create(struct mx *m, struct mx_op *op, struct handle dir, const char *name, uint32_t mode, uint32_t flags, struct mx_file **out, struct attr *attr) {
    mx_op_begin(m, op);
    for (;;) {
        err e = co_create_once(m, op, dir, name, mode, attr);
        if (!e && !overtaken(m, attr->handle)) {
            *out = file_new(m, attr, flags);
            return OK;
        }
        if (!e) return co_mx_open(m, op, attr->handle, flags & ~MX_O_TRUNC, out, attr);
        if (e != ERR_EXIST || (flags & MX_O_EXCL)) return e;
        e = co_mx_lookup(m, op, dir, name, attr);
        if (!e) e = co_mx_open(m, op, attr->handle, flags, out, attr);
        if (e != ERR_NOENT && e != ERR_STALE) return e; // else it was removed in between: create it after all
    }
}

err co_mx_flush(struct mx *m, struct mx_op *op, struct mx_file *f) {
    struct mx_object *o = f->object;
    uint64_t size;
    mx_op_begin(m, op);
    for (;;) {
        if (!o->unflushed) return OK;
        o->unflushed = false;
        err e = co_raise(m, op, o, (struct raise){0}, &size);
        if (!e || e == ERR_STALE) return OK; // an unlinked object that is gone has nothing to tell
        o->unflushed = true;
        if (e == ERR_TRUNCATED) e = co_learn(m, op, o);
        if (e) return e;
    }
}

static err co_sync_meta(struct mx *m, struct mx_op *op, struct mx_object *o) {
    struct msg *reply;
    err e = co_name_request_handle(m, op, MSG_SYNC_META, o->handle, &reply);
    if (e) return e;
    const struct rep_size *s = (const struct rep_size *)reply->body;
    if (reply->body_len < sizeof *s) e = ERR_FORMAT;
    else if (le32_get(s->truncates) == o->truncates) o->durable_end = MAX(o->durable_end, le64_get(s->durable_size));
    msg_free(reply);
    return e;
}

static err co_fsync_part(struct transfer *t, iom_id iom) {
    struct msg *q = mx_msg(t->m, t->op, MSG_FSYNC, sizeof(struct req_fsync));
    struct req_fsync *r = (struct req_fsync *)q->body;
    handle_put(r->handle.b, t->o->handle);
    refmap_put(r->map.b, &t->o->map);
    r->durable_end = le64_of(t->o->durable_end);
    r->truncates = le32_of(t->o->truncates);
    return co_mx_order(t->m, t->op, (struct mx_target){.iom = iom}, q);
}

// The starter's part: what it knows of the object is on disk. Times and change counter of own writes go with the same message.
static err co_meta_durable(struct mx *m, struct mx_op *op, struct mx_object *o) {
    uint64_t size;
    if (!o->unflushed) return co_sync_meta(m, op, o);
    o->unflushed = false;
    err e = co_raise(m, op, o, (struct raise){.durable = true}, &size);
    if (e == ERR_STALE) return OK; // an unlinked object that is gone has nothing to tell
    if (e) o->unflushed = true;
    return e;
}

static err co_meta_part(struct transfer *t, iom_id iom) {
    err e = co_meta_durable(t->m, t->op, t->o);
    t->cut = e == ERR_TRUNCATED; // what members say counts more: they say it once
    return t->cut ? OK : e;
}

// Every member is asked, for others may have written through other MXs. Where the whole object lies below its durable end the starter is
// asked at the same time; else first, for the rows need to know that end. ERR_TRUNCATED: it was cut meanwhile, and not all were asked.
static err co_fsync_once(struct mx *m, struct mx_op *op, struct mx_object *o) {
    struct transfer t = {.m = m, .op = op, .o = o};
    struct part part[ARRAY_IOMS_MAX + 1];
    bool first = o->size > o->durable_end && o->learned_ns;
    err e = first ? co_meta_durable(m, op, o) : OK;
    if (e) return e;
    group_init(&t.parts);
    for (uint8_t i = 0; i < o->map.span; i++) {
        part[i] = (struct part){&t, refmap_member(&o->map, i), co_fsync_part};
        group_add(&t.parts);
        env_spawn(m->env, "mx: fsync of a member", part_task, &part[i]);
    }
    if (!first) {
        part[o->map.span] = (struct part){&t, {o->handle.starter}, co_meta_part};
        group_add(&t.parts);
        part_task(&part[o->map.span]);
    }
    err of_members = co_group_wait(m->env, &t.parts, "mx: fsync");
    return of_members == OK && t.cut ? ERR_TRUNCATED : of_members;
}

static err co_fsync_members(struct mx *m, struct mx_op *op, struct mx_object *o) {
    for (;;) {
        err e = co_fsync_once(m, op, o);
        if (e != ERR_TRUNCATED) return e;
        e = co_learn(m, op, o);
        if (e) return e;
    }
}

err co_mx_fsync(struct mx *m, struct mx_op *op, struct mx_file *f, bool data_only) {
    struct mx_object *o = f->object;
    mx_op_begin(m, op);
    uint64_t writes = o->writes, fast = o->fast;
    err e = co_fsync_members(m, op, o);
    if (e) return e;
    o->synced = MAX(o->synced, writes);
    o->fast_synced = MAX(o->fast_synced, fast);
    if (f->lost_seen == o->lost) return OK;
    f->lost_seen = o->lost;
    o->lost_told = true;
    return ERR_IO;
}

err co_mx_fsyncdir(struct mx *m, struct mx_op *op, struct handle dir) {
    struct msg *reply;
    mx_op_begin(m, op);
    err e = co_name_request_handle(m, op, MSG_SYNC_META, dir, &reply);
    if (!e) msg_free(reply);
    return e;
}

// ---- last closes. The starter is told of several at once; nobody waits for that but who opens the object anew, lest the two overtake each other.
struct releaser {
    struct mx *m;
    iom_id iom;
};

static uint32_t partings_take(struct mx_iom *i, struct mx_object **v) {
    uint32_t n = 0;
    i->parting_hurry = false;
    for (struct list *l; n < MX_PARTING_MAX && (l = list_pop_front(&i->parting)); i->parting_len--) {
        v[n] = LIST_ENTRY(l, struct mx_object, parting);
        v[n++]->releasing = true;
    }
    return n;
}

static struct msg *release_msg(struct mx *m, struct mx_op *op, struct mx_object *const *v, uint32_t n) {
    struct msg *q = mx_msg(m, op, MSG_RELEASE, sizeof(struct req_handle));
    handle_put(((struct req_handle *)q->body)->handle.b, v[0]->handle);
    if (n == 1) return q;
    struct buf *b = buf_new(m->env->mem, (n - 1) * HANDLE_BYTES);
    for (uint32_t i = 1; i < n; i++) handle_put(b->data + (i - 1) * HANDLE_BYTES, v[i]->handle);
    msg_set_payload(q, (struct slice){b, 0, (n - 1) * HANDLE_BYTES});
    buf_unref(b);
    return q;
}

static void co_partings_tell(struct mx *m, iom_id iom) {
    struct mx_object *v[MX_PARTING_MAX];
    uint32_t n = partings_take(&m->iom[iom.n], v);
    struct mx_op op = {0};
    mx_op_begin(m, &op);
    err e = co_mx_order(m, &op, (struct mx_target){.iom = iom, .once = true}, release_msg(m, &op, v, n));
    if (e && e != ERR_STALE && e != ERR_STOPPED) LOG(m->env, TRACE_WARN, "release of open objects: %s", err_text(e));
    for (uint32_t i = 0; i < n; i++) {
        v[i]->releasing = false;
        waitq_wake_all(m->env, &v[i]->released);
        mx_object_put(m, v[i]);
    }
}

static void releaser_task(void *arg) {
    struct releaser r = *(struct releaser *)arg;
    struct mx *m = r.m;
    struct mx_iom *i = &m->iom[r.iom.n];
    mem_free(m->env->mem, arg);
    while (!list_empty(&i->parting) && !m->stopping) {
        if (!i->parting_hurry && i->parting_len < MX_PARTING_MAX) co_wait_until(m->env, &i->parting_wake, env_now_ns(m->env) + MX_PARTING_NS, "mx: more last closes");
        if (!list_empty(&i->parting) && !m->stopping) co_partings_tell(m, r.iom);
    }
    i->releaser_runs = false;
    if (--m->releasers == 0) waitq_wake_all(m->env, &m->map_news);
}

static void parting_add(struct mx *m, struct mx_object *o) {
    struct mx_iom *i = &m->iom[o->handle.starter];
    list_push_back(&i->parting, &o->parting);
    if (++i->parting_len >= MX_PARTING_MAX) waitq_wake_all(m->env, &i->parting_wake);
    if (i->releaser_runs) return;
    struct releaser *r = mem_alloc(m->env->mem, sizeof *r);
    *r = (struct releaser){m, {o->handle.starter}};
    i->releaser_runs = true;
    m->releasers++;
    env_spawn(m->env, "mx: releases", releaser_task, r);
}

void co_mx_partings_first(struct mx *m, iom_id iom) {
    if (iom.n >= m->config.array_ioms || list_empty(&m->iom[iom.n].parting)) return;
    m->iom[iom.n].parting_hurry = true;
    waitq_wake_all(m->env, &m->iom[iom.n].parting_wake);
    co_yield(m->env);
}

void mx_partings_stop(struct mx *m) {
    for (uint8_t i = 0; i < m->config.array_ioms; i++) waitq_wake_all(m->env, &m->iom[i].parting_wake);
}

static void object_close(struct mx *m, struct mx_object *o) {
    if (--o->opens > 0 || m->stopping) mx_object_put(m, o);
    else parting_add(m, o);
}

void co_mx_release(struct mx *m, struct mx_file *f) {
    struct mx_object *o = f->object;
    mem_free(m->env->mem, f);
    object_close(m, o);
}

// An object that is to be released and not yet told counts as open again; one that is being told is waited for.
static void co_wait_released(struct mx *m, struct handle h) {
    for (struct mx_object *o; (o = mx_object_find(m, h)) && o->releasing;) {
        mx_object_ref(m, o);
        co_wait(m->env, &o->released, "mx: the starter hears of the last close");
        mx_object_put(m, o);
    }
}

struct handle mx_file_handle(const struct mx_file *f) { return f->object->handle; }
