// The objects that are open through this MX, and what it adds to the starter's attributes: its own writes show at once.
#include "mx/inside.h"
#include "wire/format.h"

static void object_key(uint8_t key[MAP_KEY32_BYTES], struct handle h) {
    memset(key, 0, MAP_KEY32_BYTES);
    handle_put(key, h);
}

struct mx_object *mx_object_find(struct mx *m, struct handle h) {
    uint8_t key[MAP_KEY32_BYTES];
    object_key(key, h);
    return map_get_key32(&m->objects, key);
}

// A change counter came from the starter: moved by one for what we just did, or else by somebody too.
void mx_object_change(struct mx_object *o, uint64_t change, bool by_us) {
    if (change <= o->change) return;
    if (!by_us || change != o->change + 1) o->own_since = change;
    o->change = change;
}

uint64_t mx_file_own_change(const struct mx_file *f, uint64_t opened_at) {
    return f->object->own_since <= opened_at ? f->object->change : 0;
}

void mx_object_learn(struct mx *m, struct mx_object *o, const struct attr *a) {
    if (a->truncates < o->truncates) return; // an answer that was overtaken
    bool cut = a->truncates > o->truncates;
    o->truncates = a->truncates;
    bool overtaken = !cut && a->change < o->size_change;
    o->size = cut || !(o->unflushed || overtaken) ? a->size : MAX(o->size, a->size);
    o->size_change = cut ? a->change : MAX(o->size_change, a->change);
    if (cut) o->durable_end = 0;
    o->toughness = a->toughness;
    mx_object_change(o, a->change, false);
    o->learned_ns = env_now_ns(m->env);
}

struct mx_object *mx_object_get(struct mx *m, const struct attr *a) {
    struct mx_object *o = mx_object_find(m, a->handle);
    if (!o) {
        uint8_t key[MAP_KEY32_BYTES];
        o = mem_alloc(m->env->mem, sizeof *o);
        o->handle = a->handle;
        o->map = a->map;
        waitq_init(&o->released);
        list_init(&o->idle);
        list_init(&o->parting);
        object_key(key, a->handle);
        map_put_key32(&m->objects, key, o);
        list_push_back(&m->object_list, &o->node);
    }
    mx_object_ref(m, o);
    mx_object_learn(m, o, a);
    return o;
}

void mx_object_ref(struct mx *m, struct mx_object *o) {
    if (!list_empty(&o->idle)) {
        list_remove(&o->idle);
        m->idle_objects--;
    }
    o->refs++;
}

// Written here and neither fsynced nor told lost: whoever opens and fsyncs it next may rely on our knowing that.
static bool is_owed(const struct mx_object *o) { return o->writes != o->synced || (o->lost && !o->lost_told); }

static void object_free(struct mx *m, struct mx_object *o) {
    uint8_t key[MAP_KEY32_BYTES];
    object_key(key, o->handle);
    map_del_key32(&m->objects, key);
    list_remove(&o->node);
    mem_free(m->env->mem, o);
}

static void idle_free(struct mx *m, struct mx_object *o) {
    list_remove(&o->idle);
    m->idle_objects--;
    object_free(m, o);
}

void mx_object_put(struct mx *m, struct mx_object *o) {
    ASSERT(o->refs > 0);
    if (--o->refs) return;
    if (!is_owed(o)) {
        object_free(m, o);
        return;
    }
    o->idle_since_ns = env_now_ns(m->env);
    list_push_back(&m->idle, &o->idle);
    if (++m->idle_objects > MX_IDLE_OBJECTS_MAX) idle_free(m, LIST_ENTRY(m->idle.next, struct mx_object, idle));
}

void mx_objects_expire(struct mx *m, uint64_t idle_before_ns) {
    while (!list_empty(&m->idle)) {
        struct mx_object *o = LIST_ENTRY(m->idle.next, struct mx_object, idle);
        if (o->idle_since_ns >= idle_before_ns) return;
        idle_free(m, o);
    }
}

void mx_attr_decode(struct attr *out, const struct wire_attr *w, err *bad) {
    *bad = refmap_at(&out->map, w->map.b);
    out->handle = handle_at(w->handle.b);
    out->mode = le32_get(w->mode);
    out->nlink = le32_get(w->nlink);
    out->uid = le32_get(w->uid);
    out->gid = le32_get(w->gid);
    out->size = le64_get(w->size);
    out->used = le64_get(w->used);
    out->atime_ns = le64_get(w->atime_ns);
    out->mtime_ns = le64_get(w->mtime_ns);
    out->ctime_ns = le64_get(w->ctime_ns);
    out->btime_ns = le64_get(w->btime_ns);
    out->change = le64_get(w->change);
    out->rdev = le64_get(w->rdev);
    out->truncates = le32_get(w->truncates);
    out->toughness = w->toughness;
    out->dir_change = out->dir_time_ns = out->dir_nlink = 0;
}

// Own writes that the starter has not heard of yet.
static void overlay(struct mx *m, struct attr *a) {
    struct mx_object *o = mx_object_find(m, a->handle);
    if (!o) return;
    mx_object_learn(m, o, a);
    if (!o->unflushed) return;
    if (a->truncates == o->truncates) a->size = MAX(a->size, o->size);
    if (o->mtime_ns > a->mtime_ns) a->mtime_ns = a->ctime_ns = o->mtime_ns;
}

err mx_reply_attr(struct mx *m, struct msg *reply, struct attr *out, bool *has_attr) {
    err bad = ERR_FORMAT;
    *has_attr = false;
    if (reply->body_len >= sizeof(struct rep_attr)) {
        const struct rep_attr *r = (const struct rep_attr *)reply->body;
        mx_attr_decode(out, &r->attr, &bad);
        out->dir_change = le64_get(r->dir_change);
        out->dir_time_ns = le64_get(r->dir_time_ns);
        out->dir_nlink = le32_get(r->dir_nlink);
        *has_attr = r->has_attr;
        if (!bad && *has_attr) overlay(m, out);
    }
    msg_free(reply);
    return bad;
}
