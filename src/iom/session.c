// Sessions of MXs, their slots (exactly once) and what they have open.
//
//   SESSION  durable before its opening is answered; an unknown one is refused, never taken for new
//   SLOT     the last request of each slot and its whole reply, in the batch of its effect; a refusal too (a batch without a flush)
//   opens    in memory: an object is open in a session or not; after a recovery each session names what it has open with its first RENEW,
//            and which creations it has had no answer to: what those made is open as well, for the answer will say so
//
// A slot runs one request at a time: the same sequence again joins it or gets the stored reply; a higher one waits for
// it and runs; a lower one is refused. A lease runs from the last word of a session, only while this IOM serves; when
// it ends, slots and opens go.
#include "iom/name_inside.h"

#include "base/sum.h"

struct name_open {
    struct handle h;
    uint32_t sessions;
};

static uint64_t session_hash(const uint8_t id[16]) {
    return hash64(id, 16, 3);
}

void sessions_init(struct names *n) {
    map_init(&n->sessions, n->mem);
    map_init(&n->opens, n->mem);
}

static void session_free(struct names *n, struct name_session *s) {
    MAP_FOR(&s->slots, it) mem_free(n->mem, it.value);
    map_fini(&s->slots);
    map_fini(&s->opens);
    mem_free(n->mem, s);
}

void sessions_fini(struct names *n) {
    MAP_FOR(&n->sessions, it) session_free(n, it.value);
    MAP_FOR(&n->opens, it) mem_free(n->mem, it.value);
    map_fini(&n->sessions);
    map_fini(&n->opens);
}

static struct name_session *session_new(struct names *n, const uint8_t id[16], bool renewed) {
    struct name_session *s = mem_alloc(n->mem, sizeof *s);
    memcpy(s->id, id, 16);
    s->seen_ns = env_now_ns(n->env);
    s->renewed = renewed;
    waitq_init(&s->unused);
    map_init(&s->slots, n->mem);
    map_init(&s->opens, n->mem);
    map_put(&n->sessions, session_hash(id), s);
    return s;
}

struct name_session *session_find(struct names *n, const uint8_t id[16]) {
    struct name_session *s = map_get(&n->sessions, session_hash(id));
    return s != NULL && !s->closing && memcmp(s->id, id, 16) == 0 ? s : NULL;
}

// Leases stand still while this IOM is not served: all are as if just heard of.
err co_sessions_load(struct names *n) {
    static const uint8_t zero[16];
    sessions_fini(n);
    sessions_init(n);
    struct key k = key_make(KIND_SESSION, zero, 0);
    for (;; k = key_next(k)) {
        uint8_t val[RECORD_BYTES_MAX];
        uint32_t len;
        err e = co_tree_seek(n->store, n->tree, &k, val, sizeof val, &len);
        if (e == ERR_NOENT || (e == OK && key_kind(&k) != KIND_SESSION)) return OK;
        if (e != OK) return e;
        session_new(n, key_id(&k), false);
    }
}

bool sessions_settled(const struct names *n) {
    MAP_FOR(&n->sessions, it)
    if (!((struct name_session *)it.value)->renewed) return false;
    return true;
}

// ---- opens
bool object_open(const struct names *n, struct handle h) {
    return map_get(&n->opens, handle_hash(h)) != NULL;
}

void session_open_object(struct names *n, struct name_session *s, struct handle h) {
    uint64_t key = handle_hash(h);
    if (map_get(&s->opens, key) != NULL) return;
    struct name_open *o = map_get(&n->opens, key);
    if (o == NULL) {
        o = mem_alloc(n->mem, sizeof *o);
        o->h = h;
        map_put(&n->opens, key, o);
    }
    o->sessions++;
    map_put(&s->opens, key, o);
}

bool session_release_object(struct names *n, struct name_session *s, struct handle h) {
    uint64_t key = handle_hash(h);
    struct name_open *o = map_del(&s->opens, key);
    if (o == NULL || --o->sessions > 0) return false;
    map_del(&n->opens, key);
    mem_free(n->mem, o);
    return true;
}

static void session_close_objects(struct names *n, struct name_session *s) {
    MAP_FOR(&s->opens, it) {
        struct handle h = ((struct name_open *)it.value)->h;
        if (session_release_object(n, s, h)) orphan_note(n, h);
    }
}

// ---- slots
static struct key slot_key(const uint8_t session[16], uint32_t slot) {
    return key_make(KIND_SLOT, session, slot);
}

static err co_slot_read(struct request *r, struct name_slot *s, uint8_t *val, uint32_t *len) {
    struct key k = slot_key(r->session->id, r->slot);
    err e = co_tree_get(r->n->store, r->n->tree, &k, val, RECORD_BYTES_MAX, len);
    if (e == OK && *len < sizeof(struct rec_slot)) e = ERR_FORMAT;
    if (e == ERR_NOENT) *len = 0;
    if (e != OK && e != ERR_NOENT) return e;
    s->seq = *len > 0 ? le64_get(((struct rec_slot *)(void *)val)->seq) : 0;
    s->known = true;
    return OK;
}

#define SLOTS_MAX 65536u // of one session and IOM

static struct name_slot *slot_of(struct request *r) {
    struct name_slot *s = map_get(&r->session->slots, r->slot);
    if (s != NULL) return s;
    s = mem_alloc(r->n->mem, sizeof *s);
    waitq_init(&s->q);
    map_put(&r->session->slots, r->slot, s);
    return s;
}

static err co_slot_repeat(struct request *r, struct name_slot *s, struct msg **stored, err *result) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    err e = co_slot_read(r, s, val, &len);
    if (e != OK) return e;
    const struct rec_slot *rec = (const void *)val;
    uint32_t body = len - (uint32_t)sizeof *rec;
    *result = (err)le32_get(rec->result);
    if (rec->has_reply) {
        *stored = msg_new(r->n->mem, r->m->type | MSG_REPLY, (uint32_t)sizeof(struct envelope) + body);
        memcpy((*stored)->body + sizeof(struct envelope), rec->reply, body);
    }
    r->n->stats.slots_replayed++;
    return OK;
}

// OK and r->stored: the request was done before, *stored and *result are its reply. OK alone: it may run, slot_give
// follows.
err co_slot_take(struct request *r, struct msg **stored, err *result) {
    if (r->slot >= SLOTS_MAX) return ERR_INVAL;
    struct name_slot *s = slot_of(r);
    while (s->running) {
        if (s->known && r->seq < s->seq) return ERR_SESSION;
        co_wait(r->n->env, &s->q, "slot");
    }
    if (r->n->stopping) return ERR_STOPPED;
    s->running = true;
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    err e = s->known ? OK : co_slot_read(r, s, val, &len);
    if (e == OK && r->seq < s->seq) e = ERR_SESSION;
    if (e == OK && r->seq == s->seq) {
        e = co_slot_repeat(r, s, stored, result);
        r->stored = e == OK;
    }
    if (e == OK && !r->stored) {
        s->seq = r->seq;
        return OK;
    }
    s->running = false;
    waitq_wake_all(r->n->env, &s->q);
    return e;
}

void slot_give(struct request *r, bool done) {
    struct name_slot *s = map_get(&r->session->slots, r->slot);
    s->running = false;
    if (!done) s->known = false; // nothing was kept: the same sequence may come again and run
    waitq_wake_all(r->n->env, &s->q);
}

void request_slot(struct request *r, struct batch *b, err result) {
    if (r->seq == 0) return;
    union {
        struct rec_slot rec;
        uint8_t room[sizeof(struct rec_slot) + REPLY_BYTES_MAX];
    } val = {.rec = {.seq = le64_of(r->seq), .result = le32_of((uint32_t)result), .has_reply = r->reply_len > 0}};
    memcpy(val.rec.reply, r->reply, r->reply_len);
    struct key k = slot_key(r->session->id, r->slot);
    batch_put(b, r->n->tree, &k, &val, (uint32_t)sizeof val.rec + r->reply_len);
}

// ---- opening, renewing, closing
err co_name_session_open(struct request *r) {
    static const uint8_t none[16];
    struct names *n = r->n;
    const uint8_t *id = r->head->session;
    if (memcmp(id, none, 16) == 0) return ERR_INVAL;
    if (session_find(n, id) == NULL) {
        if (map_get(&n->sessions, session_hash(id)) != NULL) return ERR_BUSY; // being opened or closed
        struct name_session *s = session_new(n, id, true);
        s->closing = true; // nobody uses it before its record is there
        struct rec_session rec = {.format = NAMES_FORMAT};
        struct key k = key_make(KIND_SESSION, id, 0);
        struct batch *b = batch_new(n->store);
        batch_urgent(b); // files can be read, and removed, in a full store
        batch_put(b, n->tree, &k, &rec, sizeof rec);
        uint64_t number;
        err e = co_mirror_commit(n, b, &number);
        s->closing = false;
        if (e != OK) {
            map_del(&n->sessions, session_hash(id));
            session_free(n, s);
            return e;
        }
    }
    struct name_session *s = session_find(n, id);
    if (s != NULL) s->seen_ns = env_now_ns(n->env);
    return co_mirror_durable(n, n->mirror.number);
}

// A file that a creation made, as its stored reply says: open here before anybody can take its name away.
static err co_session_open_made(struct request *r, const struct wire_slot *w) {
    uint8_t val[RECORD_BYTES_MAX];
    uint32_t len;
    struct key k = slot_key(r->session->id, le32_get(w->slot));
    err e = co_tree_get(r->n->store, r->n->tree, &k, val, sizeof val, &len);
    if (e == ERR_NOENT) return OK; // none was ever done
    const struct rec_slot *rec = (const void *)val;
    if (e == OK && len < sizeof *rec) e = ERR_FORMAT;
    if (e != OK || le64_get(rec->seq) != le64_get(w->seq) || le32_get(rec->result) != OK) return e;
    if (len < sizeof *rec + sizeof(struct rep_attr) - sizeof(struct envelope)) return ERR_INVAL; // no creation's
    const uint8_t *attr = rec->reply + offsetof(struct rep_attr, attr) - sizeof(struct envelope);
    session_open_object(r->n, r->session, handle_at(((const struct wire_attr *)(const void *)attr)->handle.b));
    return OK;
}

err co_name_session_renew(struct request *r) {
    struct names *n = r->n;
    struct name_session *s = r->session;
    const struct slice *p = &r->m->payload;
    const struct req_renew *q = (const void *)r->m->body;
    uint32_t creates = (r->m->body_len - (uint32_t)sizeof *q) / (uint32_t)sizeof q->creates[0];
    if (p->len_bytes % HANDLE_BYTES != 0) return ERR_INVAL;
    if (r->m->body_len != sizeof *q + creates * sizeof q->creates[0]) return ERR_INVAL;
    for (uint32_t i = 0; i < p->len_bytes; i += HANDLE_BYTES)
        session_open_object(n, s, handle_at(slice_data(*p) + i));
    for (uint32_t i = 0; i < creates; i++) {
        err e = co_session_open_made(r, &q->creates[i]);
        if (e != OK) return e;
    }
    s->renewed = true;
    if (n->orphans_waiting && sessions_settled(n)) waitq_wake_all(n->env, &n->tick);
    return OK;
}

// Slots in bounded batches, the session's own record with the last: a crash between leaves a session that closes again.
static err co_session_erase(struct names *n, const uint8_t id[16]) {
    struct key k = slot_key(id, 0), first = k;
    for (bool more = true; more;) {
        struct batch *b = batch_new(n->store);
        batch_urgent(b);
        for (uint32_t i = 0; i < 64 && more; i++) {
            uint8_t val[RECORD_BYTES_MAX];
            uint32_t len;
            err e = co_tree_seek(n->store, n->tree, &k, val, sizeof val, &len);
            if (e != OK && e != ERR_NOENT) return batch_drop(b), e;
            more = e == OK && memcmp(k.b, first.b, 17) == 0;
            if (more) {
                batch_del(b, n->tree, &k);
                k = key_next(k);
            }
        }
        struct key own = key_make(KIND_SESSION, id, 0);
        if (!more) batch_del(b, n->tree, &own);
        uint64_t number;
        err e = co_mirror_commit(n, b, &number);
        if (e != OK) return e;
    }
    return OK;
}

// `mine`: uses of the session by the caller.
static err co_session_end(struct names *n, struct name_session *s, uint32_t mine) {
    s->closing = true;
    while (s->users > mine && !n->stopping) co_wait(n->env, &s->unused, "session's requests");
    if (n->stopping) return ERR_STOPPED;
    err e = co_session_erase(n, s->id);
    if (e != OK) {
        s->closing = false;
        return e;
    }
    session_close_objects(n, s);
    map_del(&n->sessions, session_hash(s->id));
    return OK;
}

err co_name_session_close(struct request *r) {
    struct name_session *s = r->session;
    err e = co_session_end(r->n, s, 1);
    if (e != OK) return e;
    r->session = NULL;
    session_free(r->n, s);
    return OK;
}

static struct name_session *session_overdue(struct names *n) {
    uint64_t now = env_now_ns(n->env);
    MAP_FOR(&n->sessions, it) {
        struct name_session *s = it.value;
        if (!s->closing && s->users == 0 && now > s->seen_ns && now - s->seen_ns > n->c.session_lease_ns) return s;
    }
    return NULL;
}

void co_sessions_expire(struct names *n) {
    struct name_session *s;
    while (!n->stopping && (s = session_overdue(n)) != NULL) {
        LOG(n->env, TRACE_INFO, "names: a session's lease has run out");
        if (co_session_end(n, s, 0) != OK) return;
        session_free(n, s);
    }
}
