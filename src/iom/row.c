// The update protocol of an IOM: what it keeps in memory, and how its parts meet. (FIG. 1, 2, 15, 16)
//
//   MX ── write ──> D  (data chunk)                          P  (parity chunk of the stripe)
//                   dirty layer   ── DELTA (old xor new) ──>  open accumulator of that member
//        <── ok ──               <── DELTA_ACK ──
//                   ... by age, pressure, fsync, toughness 2:
//                   frozen layer  ── FREEZE v ──────────────> frozen accumulator
//                   block, UPDATE v │one flush               next parity = settled parity xor all frozen; block, UPDATE │one flush
//                                 ── HARDENED v ───────────>  all parts on disk: CHUNK, no UPDATE any more, old place free
//                   CHUNK, ...   <── SETTLED v ──            
//        <── fsync answered
//
// The unit of versions is a *segment*: at most 16 rows of one stripe, of which this IOM is either a D or the P. At most one version of a segment is
// in flight (I4). Contents lie in layers, newest first: D: dirty over frozen over clean over disk; P: clean over disk, and accumulators beside them.
//
// I1  old places are released in the batch that settles (row_settle.c), and reused by the store only when that batch is durable.
// I2  until then D's and P's CHUNK, untouched, name the last settled version whole.
// I3  fsync waits for SETTLED (co_row_settled).          I5  a block is written once a version, never to the journal.
// I8  freezes, HARDENED and SETTLED need no credit and are never behind a message that waits; places for what is dirty or held are promised before
//     a write is answered; D without credit freezes.
// I10 a read does not show what P does not hold yet: it waits for the acknowledgement (row_data.c).
//
// END: a block that reaches beyond the object's *durable* end does not harden before the starter has made such a size durable; D asks for it
// (row_harden.c), mostly it knows it from writes and fsyncs. So what recovery finds on disk lies below the size it finds, or was cut off by a truncation
// whose discard the starter's recovery repeats before rows are resolved: no marks of the end in the updates, and nothing to be guessed.
//
// Cuts: messages carry the sender's count of truncates. The starter has all members discard before it tells the new count to anyone, so what
// carries a lower count than a discard here that cut its segment is void, on either side (row_cut), and all other is valid.
//
// Files: row_data.c (D: writes, reads), row_harden.c (D: freezing, hardening, fsync), row_parity.c (P), row_settle.c, row_discard.c, row_stop.c
// (the stop), row_doubt.c (objects that their starter may have forgotten), resolve*.c (after a stop), row_record.c, row_io.c, row_slot.c,
// row_verify.c, row_gather.c and row_mend.c (a bad block is rebuilt from its row), row_scrub.c.
#include "iom/row_state.h"

#define CACHE_BYTES_DEFAULT MIB(64)
#define CREDIT_BYTES_DEFAULT MIB(8)
#define CREDIT_BYTES_MIN KIB(64)
#define FLUSH_AGE_DEFAULT MSEC(300)
#define IDLE_OBJECTS_MAX 4096u

// ---- contents -------------------------------------------------------------------------------------------------------

uint8_t *row_content_data(const struct content *c) { return c->buf ? c->buf->data + c->off : NULL; }

void row_layer_set(struct layer *l, unsigned row, struct content c) {
    if (l->mask >> row & 1) buf_unref(l->c[row].buf);
    l->mask |= (row_mask)(1u << row);
    l->c[row] = c;
}

void row_layer_drop(struct layer *l, row_mask rows) {
    ROW_FOR(rows & l->mask, b) {
        buf_unref(l->c[b].buf);
        l->c[b] = (struct content){0};
    }
    l->mask &= (row_mask)~rows;
}

void row_layer_move(struct layer *to, struct layer *from) {
    ROW_FOR(from->mask, b) {
        row_layer_set(to, b, from->c[b]);
        from->c[b] = (struct content){0};
    }
    from->mask = 0;
}

struct content row_own_block(struct rows *r) { return (struct content){buf_new(r->env->mem, BLOCK_BYTES), 0, true}; }

// ---- objects --------------------------------------------------------------------------------------------------------

static void handle_key(uint8_t out[MAP_KEY32_BYTES], struct handle h, uint64_t n) {
    memset(out, 0, MAP_KEY32_BYTES);
    handle_put(out, h);
    be64_put(out + HANDLE_BYTES, n);
}

struct object *row_object_find(struct rows *r, struct handle h) {
    uint8_t key[MAP_KEY32_BYTES];
    handle_key(key, h, 0);
    return map_get_key32(&r->objects, key);
}

static struct object *object_new(struct rows *r, struct handle h) {
    struct object *o = mem_alloc(r->env->mem, sizeof *o);
    o->r = r;
    o->h = h;
    list_init(&o->segs);
    list_init(&o->unsettled);
    list_init(&o->idle);
    list_init(&o->touched);
    co_lock_init(&o->cutting);
    uint8_t key[MAP_KEY32_BYTES];
    handle_key(key, h, 0);
    map_put_key32(&r->objects, key, o);
    return o;
}

void row_object_pin(struct object *o) {
    if (!list_empty(&o->idle)) {
        list_remove(&o->idle);
        o->r->idle_count--;
    }
    o->pins++;
}

struct object *row_object(struct rows *r, struct handle h, const struct refmap *m) {
    struct object *o = row_object_find(r, h);
    if (!o) o = object_new(r, h);
    o->map = *m;
    row_object_pin(o);
    return o;
}

static void object_free(struct object *o) {
    uint8_t key[MAP_KEY32_BYTES];
    handle_key(key, o->h, 0);
    map_del_key32(&o->r->objects, key);
    mem_free(o->r->env->mem, o->cut);
    mem_free(o->r->env->mem, o);
}

// What was cut or deleted is remembered longest that way: late messages about it are known to be void.
void row_object_unpin(struct object *o) {
    struct rows *r = o->r;
    ASSERT(o->pins > 0);
    if (--o->pins > 0 || !list_empty(&o->segs)) return;
    list_push_back(&r->idle_objects, &o->idle);
    if (++r->idle_count <= IDLE_OBJECTS_MAX) return;
    struct object *oldest = LIST_ENTRY(r->idle_objects.next, struct object, idle);
    list_remove(&oldest->idle);
    if (oldest->gone && r->blank) { // a census under way must not meet it for a living one
        list_push_back(&r->idle_objects, &oldest->idle);
        return;
    }
    r->idle_count--;
    object_free(oldest);
}

err co_row_object_load(struct object *o) {
    if (o->loaded) return OK;
    struct row_cnode2 v;
    uint32_t len;
    struct key k = row_key(KIND_CNODE2, o->h, 0);
    err e = co_tree_get(o->r->store, o->r->tree, &k, &v, sizeof v, &len);
    if (e != OK && e != ERR_NOENT) return e;
    if (o->loaded) return OK; // another was quicker
    if (e == OK && len == sizeof v) {
        uint32_t count = le32_get(v.truncates), swept = le32_get(v.flags) & ROW_CNODE2_HEARD ? 0 : count;
        o->stored = swept >= o->swept;
        o->swept = MAX(o->swept, swept);
        o->truncates = MAX(o->truncates, count);
        o->gone = o->gone || (le32_get(v.flags) & ROW_CNODE2_GONE);
        o->asks = o->asks || (le32_get(v.flags) & ROW_CNODE2_ASKS);
        o->anew = o->anew || (le32_get(v.flags) & ROW_CNODE2_ANEW);
    }
    o->loaded = true;
    return OK;
}

bool row_cut(const struct object *o, uint32_t count, uint64_t seg) {
    if (o->gone) return true;
    if (count >= o->truncates || mutant(MUTANT_CUT)) return false;
    for (uint32_t i = 0; i < o->cuts; i++)
        if (o->cut[i].count > count && seg >= o->cut[i].from_seg) return true;
    return false;
}

void row_cut_add(struct object *o, uint32_t count, uint64_t from_seg) {
    while (o->cuts > 0 && o->cut[o->cuts - 1].from_seg >= from_seg && o->cut[o->cuts - 1].count <= count) o->cuts--; // all that it cuts the new one cuts too
    if (o->cuts == ROW_CUTS_MAX) memmove(o->cut, o->cut + 1, --o->cuts * sizeof o->cut[0]);
    if (o->cuts == o->cut_cap) {
        o->cut_cap = o->cut_cap ? 2 * o->cut_cap : 2;
        o->cut = mem_realloc(o->r->env->mem, o->cut, o->cut_cap * sizeof o->cut[0]);
    }
    o->cut[o->cuts++] = (struct cut){count, from_seg};
}

// ---- segments -------------------------------------------------------------------------------------------------------

struct seg *row_seg_find(struct rows *r, struct handle h, uint64_t n) {
    uint8_t key[MAP_KEY32_BYTES];
    handle_key(key, h, n);
    return map_get_key32(&r->segs, key);
}

static void seg_init(struct seg *s, struct object *o, uint64_t n, uint8_t role) {
    s->r = o->r;
    s->o = o;
    s->n = n;
    s->role = role;
    s->blocks = geo_seg_blocks(&o->map);
    row_object_pin(o);
    list_push_back(&o->segs, &s->of_object);
    list_init(&s->lru);
    list_init(&s->work);
    list_init(&s->settling);
    co_lock_init(&s->lock);
    waitq_init(&s->q);
    uint8_t key[MAP_KEY32_BYTES];
    handle_key(key, o->h, n);
    map_put_key32(&o->r->segs, key, s);
}

void row_seg_pin(struct seg *s) {
    list_remove(&s->lru);
    s->pins++;
}

struct dseg *row_dseg(struct object *o, uint64_t n, uint8_t k, iom_id p) {
    struct seg *s = row_seg_find(o->r, o->h, n);
    if (!s) {
        struct dseg *d = mem_alloc(o->r->env->mem, sizeof *d);
        seg_init(&d->s, o, n, ROW_DATA);
        d->k = k;
        d->p = p;
        list_init(&d->unsettled);
        s = &d->s;
    }
    row_seg_pin(s);
    return row_d(s);
}

struct pseg *row_pseg(struct object *o, uint64_t n) {
    struct seg *s = row_seg_find(o->r, o->h, n);
    if (!s) {
        struct pseg *p = mem_alloc(o->r->env->mem, sizeof *p);
        seg_init(&p->s, o, n, ROW_PARITY);
        p->n = geo_data(&o->map);
        p->versions = mem_alloc(o->r->env->mem, sizeof p->versions[0] * p->n * p->s.blocks);
        s = &p->s;
    }
    row_seg_pin(s);
    return row_p(s);
}

static bool seg_at_rest(const struct seg *s) {
    if (s->busy || s->putting) return false;
    if (s->role == ROW_DATA) {
        const struct dseg *d = (const struct dseg *)s;
        return d->state == D_IDLE && !d->dirty.mask && !d->posted;
    }
    const struct pseg *p = (const struct pseg *)s;
    for (uint8_t k = 0; k < p->n; k++)
        if (p->open[k] || p->frozen[k]) return false;
    return p->state == P_IDLE;
}

void row_clean_drop(struct seg *s, row_mask rows) {
    s->r->clean_bytes -= row_count(s->clean.mask & rows) * BLOCK_BYTES;
    row_layer_drop(&s->clean, rows);
}
static void seg_forget_clean(struct seg *s) { row_clean_drop(s, s->clean.mask); }

static void seg_unmap(struct seg *s) {
    uint8_t key[MAP_KEY32_BYTES];
    handle_key(key, s->o->h, s->n);
    if (map_get_key32(&s->r->segs, key) == s) map_del_key32(&s->r->segs, key);
}

static void seg_free(struct seg *s) {
    struct rows *r = s->r;
    seg_forget_clean(s);
    seg_unmap(s);
    list_remove(&s->lru);
    list_remove(&s->work);
    list_remove(&s->of_object);
    if (s->role == ROW_PARITY) mem_free(r->env->mem, row_p(s)->versions);
    else mem_free(r->env->mem, row_d(s)->on_disk);
    row_object_unpin(s->o);
    mem_free(r->env->mem, s);
}

void row_seg_unpin(struct seg *s) {
    ASSERT(s->pins > 0);
    if (--s->pins > 0 || !seg_at_rest(s)) return;
    if (s->dead) {
        seg_free(s);
        return;
    }
    list_remove(&s->lru);
    list_push_back(&s->r->lru, &s->lru);
    row_cache_trim(s->r);
}

void row_seg_drop(struct seg *s) {
    s->dead = true;
    seg_unmap(s);
    seg_forget_clean(s);
    list_remove(&s->work);
    waitq_wake_all(s->r->env, &s->q);
}

void row_cache_trim(struct rows *r) {
    uint64_t held = r->dirty_bytes + r->acc_bytes, limit = r->cfg.cache_bytes;
    uint64_t room = limit > held + limit / 8 ? limit - held : limit / 8;
    while (r->clean_bytes > room || map_count(&r->segs) > limit / KIB(8) + 1024) {
        if (list_empty(&r->lru)) return;
        seg_free(LIST_ENTRY(r->lru.next, struct seg, lru));
    }
}

// Its record is about to go: a reader must not bring back what was discarded, nor its places.
static bool swept(const struct seg *s) { return s->o->sweeping && s->n >= s->o->sweep_from; }

err co_row_seg_load(struct seg *s) {
    if (s->loaded) return OK;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = row_key(KIND_CHUNK, s->o->h, s->n);
    err e = co_tree_get(s->r->store, s->r->tree, &k, val, sizeof val, &len);
    if (e != OK && e != ERR_NOENT) return e;
    if (s->loaded || s->dead) return OK; // another was quicker, or it is cut off
    if (e == OK && !swept(s)) e = row_chunk_decode(s, val, len);
    else if (e == ERR_NOENT && row_asks(s) && !swept(s)) e = co_row_ask_versions(s);
    else e = OK;
    if (s->loaded || s->dead) return OK;
    if (e != OK) return e;
    s->loaded = true;
    return OK;
}

// ---- tasks, failure -------------------------------------------------------------------------------------------------

void row_spawn(struct rows *r, const char *name, void (*fn)(void *arg), void *arg) {
    r->tasks++;
    env_spawn(r->env, name, fn, arg);
}

void row_task_end(struct rows *r) {
    r->tasks--;
    waitq_wake_all(r->env, &r->stop_q);
}

// The store did not take what it must take. Nothing is acknowledged from here on; what is in memory stays readable.
void row_break(struct rows *r, err e, const char *what) {
    if (r->broken != OK) return;
    r->broken = e;
    LOG(r->env, TRACE_ERROR, "rows: %s: %s: no writes are taken any more", what, err_text(e));
    MAP_FOR(&r->segs, it) waitq_wake_all(r->env, &((struct seg *)it.value)->q);
}

// ---- messages -------------------------------------------------------------------------------------------------------

static void receive_marks(struct rows *r, iom_id from, const struct msg *m) {
    if (m->body_len < sizeof(struct row_marks)) return;
    const struct row_marks *v = (const void *)m->body;
    uint32_t n = MIN(le32_get(v->count), (m->body_len - (uint32_t)sizeof *v) / (uint32_t)sizeof v->mark[0]);
    for (uint32_t i = 0; i < n; i++) {
        const struct row_mark *k = &v->mark[i];
        if (m->type == MSG_FREEZE && (k->flags & MARK_HINT)) row_d_hint(r, k);
        else if (m->type == MSG_FREEZE) row_p_freeze(r, from, k);
        else if (m->type == MSG_HARDENED) row_p_hardened(r, k);
        else row_d_settled(r, k);
    }
}

void rows_receive(struct rows *r, iom_id from, struct msg *m) {
    if (r->stopping || from.n >= ARRAY_IOMS_MAX) {
        msg_free(m);
        return;
    }
    switch (m->type) {
        case MSG_DELTA: row_delta_receive(r, from, m); break;
        case MSG_DELTA_ACK: row_delta_ack(r, from, m); break;
        case MSG_FREEZE:
        case MSG_HARDENED:
        case MSG_SETTLED: receive_marks(r, from, m); break;
        default: LOG(r->env, TRACE_WARN, "rows: a post of unknown type %u from IOM %u", m->type, from.n);
    }
    msg_free(m);
}

// ---- life -----------------------------------------------------------------------------------------------------------

static void peer_init(struct rpeer *p) {
    list_init(&p->out);
    waitq_init(&p->credit_q);
}

static void config_set(struct rows_config *to, const struct rows_config *c) {
    if (c) *to = *c;
    if (!to->cache_bytes) to->cache_bytes = CACHE_BYTES_DEFAULT;
    if (!to->dirty_bytes) to->dirty_bytes = to->cache_bytes / 2;
    if (!to->credit_bytes) to->credit_bytes = CREDIT_BYTES_DEFAULT;
    if (!to->flush_age_ns) to->flush_age_ns = FLUSH_AGE_DEFAULT;
    to->credit_bytes = MAX(to->credit_bytes, CREDIT_BYTES_MIN);
    to->dirty_bytes = MAX(to->dirty_bytes, CREDIT_BYTES_MIN);
}

struct rows *rows_create(struct env *e, struct store *s, iom_id self, const struct rows_port *port, const struct rows_config *c) {
    struct rows *r = mem_alloc(e->mem, sizeof *r);
    r->env = e;
    r->store = s;
    r->tree = c && c->stand_in ? TREE_STAND_IN : TREE_LOCAL;
    row_blank_of_store(r);
    r->self = self;
    r->beside = (iom_id){NO_IOM};
    r->port = *port;
    config_set(&r->cfg, c);
    for (unsigned i = 0; i < ARRAY_IOMS_MAX; i++) peer_init(&r->peer[i]);
    map_init_key32(&r->objects, e->mem);
    map_init_key32(&r->segs, e->mem);
    map_init_key32(&r->slots, e->mem);
    struct list *lists[] = {&r->slot_lru, &r->lru, &r->idle_objects, &r->d_aged, &r->d_due, &r->touched,
                             &r->p_gather, &r->p_ready, &r->settle, &r->recheck};
    for (unsigned i = 0; i < ARRAY_LEN(lists); i++) list_init(lists[i]);
    struct waitq *queues[] = {&r->d_wake, &r->p_wake, &r->settle_wake, &r->ack_wake, &r->room_q, &r->stop_q, &r->mend_q, &r->gather_q, &r->build_q};
    for (unsigned i = 0; i < ARRAY_LEN(queues); i++) waitq_init(queues[i]);
    row_spawn(r, "row flusher", row_d_flusher, r);
    row_spawn(r, "row parity", row_p_flusher, r);
    row_spawn(r, "row acks", row_p_acker, r);
    row_spawn(r, "row settler", row_settler, r);
    return r;
}

void rows_beside(struct rows *r, iom_id other) { r->beside = other; }

static void layer_free(struct layer *l) { row_layer_drop(l, l->mask); }

static void seg_destroy(struct seg *s) {
    struct rows *r = s->r;
    layer_free(&s->clean);
    if (s->role == ROW_DATA) {
        layer_free(&row_d(s)->dirty);
        layer_free(&row_d(s)->frozen);
        mem_free(r->env->mem, row_d(s)->on_disk);
    } else {
        struct pseg *p = row_p(s);
        layer_free(&p->forming);
        for (uint8_t k = 0; k < p->n; k++) {
            row_acc_free(r, &p->open[k]);
            row_acc_free(r, &p->frozen[k]);
        }
        mem_free(r->env->mem, p->versions);
    }
    mem_free(r->env->mem, s);
}

void rows_destroy(struct rows *r) {
    struct mem *mem = r->env->mem;
    ASSERT(r->tasks == 0 && r->inside == 0);
    for (unsigned i = 0; i < ARRAY_IOMS_MAX; i++) {
        ASSERT(list_empty(&r->peer[i].out));
        mem_free(mem, r->peer[i].refusal);
    }
    row_recheck_forget(r);
    row_scrub_forget(r);
    MAP_FOR(&r->segs, it) seg_destroy(it.value);
    MAP_FOR(&r->objects, it) {
        mem_free(mem, ((struct object *)it.value)->cut);
        mem_free(mem, it.value);
    }
    MAP_FOR(&r->slots, it) mem_free(mem, it.value);
    map_fini(&r->segs);
    map_fini(&r->objects);
    map_fini(&r->slots);
    mem_free(mem, r);
}

void rows_stats(const struct rows *r, struct rows_stats *out) {
    *out = r->stats;
    out->missing_total = r->missing_total;
    out->missing_done = r->missing_done;
    out->dirty_bytes = r->dirty_bytes + r->acc_bytes;
    out->cache_bytes = r->clean_bytes + out->dirty_bytes;
}
