// The simple name space of linear.h: directories with a handful of names, one operation at a time.
//
// Each operation has its reasons to be refused, as a set of errors: it is done if there is none, else any of them may be told.
#include "sim/linear.h"

#include <stdio.h>
#include <string.h>

static_assert(ERR_COUNT <= 64, "a set of errors is a word");
#define REASON(e) (1ull << (e))
#define NO_DIRECTORY (REASON(ERR_NOENT) | REASON(ERR_STALE)) // its record may be there yet, or not

// ---- states
struct linear_dir *linear_dir_of(struct linear_state *s, uint16_t id) {
    for (uint32_t i = 0; i < s->dirs; i++)
        if (s->dir[i].id == id) return &s->dir[i];
    return NULL;
}

struct linear_dir *linear_dir_add(struct linear_state *s, uint16_t id, uint16_t parent) {
    ASSERT(s->dirs < LINEAR_DIRS);
    uint32_t i = s->dirs++;
    for (; i > 0 && s->dir[i - 1].id > id; i--) s->dir[i] = s->dir[i - 1];
    s->dir[i] = (struct linear_dir){.id = id, .parent = parent};
    return &s->dir[i];
}

static void dir_remove(struct linear_state *s, const struct linear_dir *d) { // what is not used is zero: states are compared by bytes
    uint32_t i = (uint32_t)(d - s->dir);
    memmove(&s->dir[i], &s->dir[i + 1], (--s->dirs - i) * sizeof *d);
    memset(&s->dir[s->dirs], 0, sizeof *d);
}

static bool is_dir(const struct linear_state *s, uint16_t object) {
    for (uint32_t i = 0; i < s->dirs; i++)
        if (s->dir[i].id == object) return true;
    return false;
}

static bool is_empty(const struct linear_state *s, uint16_t dir) {
    for (uint32_t i = 0; i < s->dirs; i++)
        for (uint32_t n = 0; n < LINEAR_NAMES && s->dir[i].id == dir; n++)
            if (s->dir[i].at[n]) return false;
    return true;
}

static uint32_t names_of(const struct linear_state *s, uint16_t object) {
    uint32_t names = 0;
    for (uint32_t i = 0; i < s->dirs; i++)
        for (uint32_t n = 0; n < LINEAR_NAMES; n++) names += s->dir[i].at[n] == object;
    return names;
}

uint32_t linear_links(const struct linear_state *s, uint16_t object) {
    uint32_t below = 2;
    if (!is_dir(s, object)) return names_of(s, object);
    for (uint32_t i = 0; i < s->dirs; i++) below += s->dir[i].parent == object;
    return below;
}

static bool is_above(struct linear_state *s, uint16_t dir, uint16_t of) { // or the same
    for (struct linear_dir *d = linear_dir_of(s, of); d; d = linear_dir_of(s, d->parent))
        if (d->id == dir) return true;
    return false;
}

// ---- reasons
static uint64_t rename_reasons(struct linear_state *s, const struct linear_op *o, uint16_t from, uint16_t to) {
    uint64_t why = 0;
    bool from_dir = is_dir(s, from), to_dir = is_dir(s, to), swap = o->how == LINEAR_EXCHANGE;
    if (!from || (!to && swap)) return REASON(ERR_NOENT);
    if (to && o->how == LINEAR_NOREPLACE) why |= REASON(ERR_EXIST);
    if (to && !swap && from_dir && !to_dir) why |= REASON(ERR_NOTDIR);
    if (to && !swap && !from_dir && to_dir) why |= REASON(ERR_ISDIR);
    if (from == to) return why;
    if (to_dir && !swap && !is_empty(s, to)) why |= REASON(ERR_NOTEMPTY);
    if (from_dir && is_above(s, from, o->to_dir)) why |= REASON(ERR_INVAL);
    if (to_dir && swap && is_above(s, to, o->dir)) why |= REASON(ERR_INVAL);
    return why;
}

static uint64_t link_reasons(struct linear_state *s, const struct linear_op *o, uint16_t at) {
    uint64_t why = at ? REASON(ERR_EXIST) : 0;
    if (is_dir(s, o->object)) why |= REASON(ERR_PERM);
    else if (names_of(s, o->object) == 0) why |= REASON(ERR_STALE);
    return why;
}

static uint64_t reasons(struct linear_state *s, const struct linear_op *o) {
    struct linear_dir *d = linear_dir_of(s, o->dir), *to = linear_dir_of(s, o->to_dir);
    uint16_t at = d ? d->at[o->name] : 0;
    uint64_t why = d || o->kind == LINEAR_LINKS ? 0 : NO_DIRECTORY;
    switch (o->kind) {
    case LINEAR_MAKE: return why | (at ? REASON(ERR_EXIST) : 0);
    case LINEAR_LINK: return why | link_reasons(s, o, at);
    case LINEAR_UNLINK: return why | (!at ? REASON(ERR_NOENT) : is_dir(s, at) ? REASON(ERR_ISDIR) : 0);
    case LINEAR_RMDIR:
        if (!at) return why | REASON(ERR_NOENT);
        return !is_dir(s, at) ? REASON(ERR_NOTDIR) : is_empty(s, at) ? 0 : REASON(ERR_NOTEMPTY);
    case LINEAR_RENAME:
        if (!d || !to) return NO_DIRECTORY | (d && !at ? REASON(ERR_NOENT) : 0);
        return rename_reasons(s, o, at, to->at[o->to_name]);
    case LINEAR_LOOKUP: return why | (!at ? REASON(ERR_NOENT) : 0);
    case LINEAR_LINKS: return linear_links(s, o->object) == 0 ? REASON(ERR_STALE) : 0;
    case LINEAR_PARENT:
    case LINEAR_LIST: return why;
    }
    return why;
}

// ---- what is done
static void rename_done(struct linear_state *s, const struct linear_op *o) {
    struct linear_dir *d = linear_dir_of(s, o->dir), *to = linear_dir_of(s, o->to_dir);
    uint16_t moved = d->at[o->name], was = to->at[o->to_name];
    if (moved == was) return; // two names of one object
    d->at[o->name] = o->how == LINEAR_EXCHANGE ? was : 0;
    to->at[o->to_name] = moved;
    struct linear_dir *m = linear_dir_of(s, moved), *w = linear_dir_of(s, was);
    if (m) m->parent = o->to_dir;
    if (w && o->how == LINEAR_EXCHANGE) w->parent = o->dir;
    if (w && o->how != LINEAR_EXCHANGE) dir_remove(s, w);
}

static bool make_done(struct linear_state *s, const struct linear_op *o) {
    if (is_dir(s, o->found) || names_of(s, o->found)) return false; // a new object is none that there was
    linear_dir_of(s, o->dir)->at[o->name] = o->found;
    if (o->makes_dir) linear_dir_add(s, o->found, o->dir);
    return true;
}

// What was found is what somebody made whose making was lost.
static bool claim(struct linear_state *s, const struct linear_op *o, uint16_t nobodys) {
    bool dir = is_dir(s, nobodys);
    if (!o->claims || nobodys < LINEAR_NOBODYS || dir != o->found_dir) return false;
    if (is_dir(s, o->found) || names_of(s, o->found)) return false;
    for (uint32_t i = 0; i < s->dirs; i++) {
        if (s->dir[i].parent == nobodys) s->dir[i].parent = o->found;
        for (uint32_t n = 0; n < LINEAR_NAMES; n++)
            if (s->dir[i].at[n] == nobodys) s->dir[i].at[n] = o->found;
    }
    struct linear_dir *d = linear_dir_of(s, nobodys);
    if (!d) return true;
    struct linear_dir was = *d;
    dir_remove(s, d);
    d = linear_dir_add(s, o->found, was.parent);
    memcpy(d->at, was.at, sizeof d->at);
    return true;
}

static bool done(struct linear_state *s, const struct linear_op *o) {
    struct linear_dir *d = linear_dir_of(s, o->dir);
    switch (o->kind) {
    case LINEAR_MAKE: return make_done(s, o);
    case LINEAR_LINK: d->at[o->name] = o->object; return true;
    case LINEAR_UNLINK: d->at[o->name] = 0; return true;
    case LINEAR_RMDIR: {
        struct linear_dir *gone = linear_dir_of(s, d->at[o->name]);
        d->at[o->name] = 0;
        dir_remove(s, gone);
        return true;
    }
    case LINEAR_RENAME: rename_done(s, o); return true;
    case LINEAR_LOOKUP: return d->at[o->name] == o->found || claim(s, o, d->at[o->name]);
    case LINEAR_PARENT: return d->parent == o->found;
    case LINEAR_LINKS: return linear_links(s, o->object) == o->links;
    case LINEAR_LIST: return true;
    }
    return false;
}

bool linear_step(struct linear_state *s, const struct linear_op *o) {
    uint64_t why = reasons(s, o);
    if (o->e != OK) return why >> o->e & 1;
    if (o->kind == LINEAR_LINKS && why) return o->links == 0; // without a name, but somebody has it open
    return !why && done(s, o);
}

bool linear_looks(const struct linear_op *o) { // one that claims what it found does more
    return o->e != OK || o->kind == LINEAR_PARENT || o->kind == LINEAR_LINKS || o->kind == LINEAR_LIST ||
           (o->kind == LINEAR_LOOKUP && !o->claims);
}

// ---- in words
static const char *const kinds[] = {"a create", "a link", "an unlink", "an rmdir", "a rename", "a lookup", "a lookup of ..", "a getattr", "a readdir"};
static const char *const hows[] = {"", " (no replacing)", " (exchange)"};

static size_t tell_what(const struct linear_op *o, char *out, size_t cap) {
    const char *what = o->kind == LINEAR_MAKE && o->makes_dir ? "a mkdir" : kinds[o->kind];
    switch (o->kind) {
    case LINEAR_RENAME:
        return (size_t)snprintf(out, cap, "%s%s of %u/%c to %u/%c", what, hows[o->how], o->dir, 'a' + o->name, o->to_dir, 'a' + o->to_name);
    case LINEAR_LINK: return (size_t)snprintf(out, cap, "%s of object %u at %u/%c", what, o->object, o->dir, 'a' + o->name);
    case LINEAR_LINKS: return (size_t)snprintf(out, cap, "%s of object %u", what, o->object);
    case LINEAR_PARENT:
    case LINEAR_LIST: return (size_t)snprintf(out, cap, "%s of %u", what, o->dir);
    default: return (size_t)snprintf(out, cap, "%s of %u/%c", what, o->dir, 'a' + o->name);
    }
}

void linear_tell(const struct linear_op *o, char *out, size_t cap) {
    size_t n = MIN(tell_what(o, out, cap), cap - 1);
    if (o->lost) snprintf(out + n, cap - n, ", lost");
    else if (o->e) snprintf(out + n, cap - n, ": %s", err_text(o->e));
    else if (o->kind == LINEAR_LINKS) snprintf(out + n, cap - n, ": %u links", o->links);
    else if (o->found) snprintf(out + n, cap - n, ": object %u", o->found);
}
