// What the actors of scripts do, and what is found afterwards; see script.h.
#include "sim/script.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

// An object that is being made: nobody knows its handle yet.
static const struct handle ANY = {.index = HANDLE_INDEX_END - 1};

static struct env *actor_env(struct actor *a) {
    return node_env(a->node);
}

void co_pause(struct actor *a, uint64_t ns) {
    co_sleep_until(actor_env(a), env_now_ns(actor_env(a)) + ns, "script: a pause");
}

static void co_step(struct actor *a) {
    struct stage *s = a->stage;
    s->progress++;
    if (s->on_step && s->on_step(s->ctx)) co_pause(a, 1); // who died of it does nothing more
}

static void co_must(struct actor *a, const char *what, err e) {
    if (e) oracle_fault(a->stage->oracle, "client %u: %s failed: %s", a->n, what, err_text(e));
    co_step(a);
}

// ---- files
static err co_open(struct actor *a, uint32_t file) {
    struct mx_op op = {0};
    struct attr at;
    return a->open[file] ? OK : co_mx_open(a->mx, &op, a->stage->file[file].h, 0, &a->open[file], &at);
}

static void watch(struct stage *s, uint32_t file) { // what is written there
    char label[16];
    snprintf(label, sizeof label, "file %u", file);
    s->file[file].of = ofile_new(s->oracle, label);
}

void co_file_make(struct actor *a, uint32_t file, uint8_t dir, const char *name) {
    struct mx_op op = {0}, sync = {0};
    struct attr at;
    watch(a->stage, file);
    err e = co_mx_create(a->mx, &op, a->stage->dir[dir], name, S_IFREG | 0644, MX_O_CREATE, &a->open[file], &at);
    if (!e) a->stage->file[file].h = at.handle;
    if (!e) e = co_mx_fsyncdir(a->mx, &sync, a->stage->dir[dir]);
    co_must(a, "a create", e);
}

static void co_policy(struct actor *a, struct handle h, const char *what, const char *value) {
    struct mx_op op = {0};
    char name[64];
    snprintf(name, sizeof name, "user.mendfs.%s", what);
    co_must(a, "setting a policy", co_mx_setxattr(a->mx, &op, h, name, value, (uint32_t)strlen(value), 0));
}

void co_file_policy(struct actor *a, uint32_t file, const char *what, const char *value) {
    co_policy(a, a->stage->file[file].h, what, value);
    if (!strcmp(what, "toughness")) a->stage->file[file].tough = !strcmp(value, "2");
}

void co_dir_policy(struct actor *a, uint8_t dir, const char *what, const char *value) {
    co_policy(a, a->stage->dir[dir], what, value);
}

static void fill_thin(uint8_t *p, uint64_t off, uint32_t len, uint8_t byte) {
    for (uint32_t i = 0; i < len; i++) {
        uint32_t in = (uint32_t)((off + i) % BLOCK_BYTES);
        p[i] = in < 8 || in >= BLOCK_BYTES - 8 ? byte : 0;
    }
}

void co_file_write(struct actor *a, uint32_t file, uint64_t off, uint32_t len, uint8_t byte) {
    struct ofile *of = a->stage->file[file].of;
    struct mx_op op = {0};
    err e = co_open(a, file);
    struct buf *b = buf_new(actor_env(a)->mem, len);
    fill_thin(b->data, off, len, byte);
    struct owrite w = {.off = off, .len = len, .data = b->data};
    co_step(a);
    ofile_write_begin(of, &w);
    if (!e) e = co_mx_write(a->mx, &op, a->open[file], off, (struct slice){b, 0, len});
    ofile_write_end(of, &w, e == OK);
    if (!e && a->stage->file[file].tough && w.crash == oracle_crashes(a->stage->oracle))
        ofile_fsync_end(of, ofile_fsync_begin(of), true);
    co_must(a, "a write", e);
    buf_unref(b);
}

void co_file_sync(struct actor *a, uint32_t file) {
    struct ofile *of = a->stage->file[file].of;
    struct mx_op op = {0};
    err e = co_open(a, file);
    struct ofsync *s = ofile_fsync_begin(of);
    co_step(a);
    if (!e) e = co_mx_fsync(a->mx, &op, a->open[file], false);
    ofile_fsync_end(of, s, e == OK);
    co_must(a, "an fsync", e == ERR_IO && oracle_may_tell_eio(a->stage->oracle) ? OK : e);
}

void co_file_cut(struct actor *a, uint32_t file, uint64_t size) {
    struct mx_setattr set = {.valid = SETATTR_SIZE, .size = size};
    struct ofile *of = a->stage->file[file].of;
    struct mx_op op = {0};
    struct attr at;
    co_step(a);
    ofile_truncate_begin(of, size);
    err e = co_mx_setattr(a->mx, &op, a->stage->file[file].h, &set, &at);
    ofile_truncate_end(of, size, e == OK);
    co_must(a, "a truncate", e);
}

void co_file_close(struct actor *a, uint32_t file) {
    struct mx_op op = {0};
    if (!a->open[file]) return;
    err e = co_mx_flush(a->mx, &op, a->open[file]);
    co_mx_release(a->mx, a->open[file]);
    a->open[file] = NULL;
    co_must(a, "a close", e);
}

// ---- names. After a crash a client of names stops: what it did before may be undone, and the next step would stand on
// that.
static bool crashed(struct actor *a) {
    return oracle_crashes(a->stage->oracle) > 0;
}

uint32_t stage_place(struct stage *s, uint8_t dir, const char *name) {
    ASSERT(s->places < SCRIPT_PLACES);
    s->place[s->places].dir = dir;
    s->place[s->places].name = name;
    return s->places++;
}

static struct names_state *state_next(struct stage *s) { // a copy of the last to be changed
    ASSERT(s->states < ARRAY_LEN(s->state));
    s->state[s->states] = s->state[s->states - 1];
    return &s->state[s->states++];
}

static struct handle place_dir(const struct stage *s, uint32_t p) {
    return s->dir[s->place[p].dir];
}

static void co_made(struct actor *a, uint32_t place, err e, struct handle h) {
    if (!e) a->stage->state[a->stage->states - 1].at[place] = h;
    co_must(a, "making a name", e);
}

void co_name_dir(struct actor *a, uint8_t dir, uint32_t place) {
    struct mx_op op = {0};
    struct attr at = {0};
    if (crashed(a)) return;
    co_step(a);
    state_next(a->stage)->at[place] = ANY;
    err e = co_mx_mkdir(a->mx, &op, place_dir(a->stage, place), a->stage->place[place].name, S_IFDIR | 0755, &at);
    a->stage->dir[dir] = at.handle;
    co_made(a, place, e, at.handle);
}

void co_name_file(struct actor *a, uint32_t file, uint32_t place) {
    struct stage *s = a->stage;
    struct mx_op op = {0};
    struct attr at = {0};
    bool link = s->file[file].h.index != 0;
    if (crashed(a)) return;
    co_step(a);
    state_next(s)->at[place] = link ? s->file[file].h : ANY;
    err e = link ? co_mx_link(a->mx, &op, s->file[file].h, place_dir(s, place), s->place[place].name, &at)
                 : co_mx_create(a->mx, &op, place_dir(s, place), s->place[place].name, S_IFREG | 0644, MX_O_CREATE,
                                &a->open[file], &at);
    if (!e) s->file[file].h = at.handle;
    if (!s->file[file].of) watch(s, file);
    co_made(a, place, e, at.handle);
}

void co_name_move(struct actor *a, uint32_t from, uint32_t to) {
    struct stage *s = a->stage;
    struct mx_op op = {0};
    if (crashed(a)) return;
    co_step(a);
    struct names_state *n = state_next(s);
    n->at[to] = n->at[from];
    n->at[from] = (struct handle){0};
    co_must(a, "a rename",
            co_mx_rename(a->mx, &op, place_dir(s, from), s->place[from].name, place_dir(s, to), s->place[to].name, 0));
}

void co_name_drop(struct actor *a, uint32_t place) {
    struct stage *s = a->stage;
    struct mx_op op = {0}, op2 = {0};
    bool dir = false;
    if (crashed(a)) return;
    co_step(a);
    for (uint32_t d = 1; d < SCRIPT_DIRS; d++) dir |= handle_eq(s->dir[d], s->state[s->states - 1].at[place]);
    state_next(s)->at[place] = (struct handle){0};
    co_must(a, "removing a name",
            dir ? co_mx_rmdir(a->mx, &op, place_dir(s, place), s->place[place].name)
                : co_mx_unlink(a->mx, &op2, place_dir(s, place), s->place[place].name));
}

void co_places_sync(struct actor *a) {
    struct stage *s = a->stage;
    uint32_t upto = s->states - 1;
    err e = OK;
    if (crashed(a)) return;
    co_step(a);
    for (uint32_t d = 0; d < SCRIPT_DIRS && !e; d++) {
        struct mx_op op = {0};
        if (s->dir[d].index) e = co_mx_fsyncdir(a->mx, &op, s->dir[d]);
        if (e == ERR_STALE) e = OK; // it was removed
    }
    if (!e && !crashed(a)) s->durable = upto;
    co_must(a, "an fsync of directories", e);
}

// ---- looking
static bool same_place(struct handle seen, struct handle expected) {
    return handle_eq(expected, ANY) ? seen.index != 0 : handle_eq(seen, expected);
}

static bool names_possible(const struct stage *s, const struct names_state *seen) {
    uint32_t from = oracle_crashes(s->oracle) ? s->durable : s->states - 1;
    for (uint32_t i = from; i < s->states; i++) {
        bool all = true;
        for (uint32_t p = 0; p < s->places; p++) all &= same_place(seen->at[p], s->state[i].at[p]);
        if (all) return true;
    }
    return false;
}

static void co_look_at_names(struct actor *a, struct names_state *seen) {
    struct stage *s = a->stage;
    char told[256] = "";
    for (uint32_t p = 0; p < s->places; p++) {
        struct mx_op op = {0};
        struct attr at;
        err e = s->dir[s->place[p].dir].index ? co_mx_lookup(a->mx, &op, place_dir(s, p), s->place[p].name, &at)
                                              : ERR_NOENT;
        if (e && e != ERR_NOENT && e != ERR_STALE) co_must(a, "a lookup", e); // stale: its directory is gone
        if (!e) seen->at[p] = at.handle;
        size_t n = strlen(told);
        snprintf(told + n, sizeof told - n, " %s=%u/%llx", s->place[p].name, seen->at[p].starter,
                 (unsigned long long)seen->at[p].index);
    }
    if (!names_possible(s, seen))
        oracle_fault(s->oracle, "the names are in none of the %u states they could be in:%s", s->states - s->durable,
                     told);
}

static bool file_is_named(const struct stage *s, const struct names_state *seen, struct handle h) {
    bool by_a_place = false, now = false;
    for (uint32_t i = 0; i < s->states; i++)
        for (uint32_t p = 0; p < s->places; p++) by_a_place |= handle_eq(s->state[i].at[p], h);
    for (uint32_t p = 0; p < s->places; p++) now |= handle_eq(seen->at[p], h);
    return now || !by_a_place;
}

static void co_look_at_file(struct actor *a, uint32_t file) {
    struct ofile *of = a->stage->file[file].of;
    struct mx_op op = {0};
    struct attr at = {0};
    err e = co_mx_getattr(a->mx, &op, a->stage->file[file].h, &at);
    if (!e) ofile_stat(of, at.size);
    if (!e) e = co_open(a, file);
    uint32_t len = KIB(64);
    uint8_t *p = mem_alloc(actor_env(a)->mem, len);
    for (uint64_t off = 0; !e && off < at.size + BLOCK_BYTES; off += len) {
        uint32_t got = 0;
        struct mx_op read = {0};
        e = co_mx_read(a->mx, &read, a->open[file], off, len, p, &got);
        if (!e) ofile_read(of, off, len, got, p);
    }
    mem_free(actor_env(a)->mem, p);
    co_must(a, "reading a file at the end", e);
}

static void co_look(struct actor *a) {
    struct stage *s = a->stage;
    struct names_state seen = {0};
    co_look_at_names(a, &seen);
    for (uint32_t f = 0; f < SCRIPT_FILES; f++)
        if (s->file[f].of && file_is_named(s, &seen, s->file[f].h)) co_look_at_file(a, f);
}

// ---- the stage
static void co_start_mx(struct actor *a) {
    struct mx_config c = array_mx_config(a->stage->array);
    struct mx_op op = {0};
    a->mx = mx_create(actor_env(a), &c);
    co_must(a, "starting its MX", co_mx_start(a->mx, &op));
}

static void prepare_main(void *arg) {
    struct actor *a = arg;
    co_start_mx(a);
    if (a->n == 0) a->stage->script->co_prepare(a);
    a->busy = false;
}

static void act_main(void *arg) {
    struct actor *a = arg;
    a->stage->script->co_act[a->n](a);
    a->busy = false;
}

static void look_main(void *arg) {
    struct actor *a = arg;
    co_start_mx(a);
    if (!oracle_faults(a->stage->oracle)) co_look(a);
    a->busy = false;
}

static void actor_add(struct stage *s, struct actor *a, uint32_t n, const char *name) {
    *a = (struct actor){.stage = s, .n = n, .node = node_add(s->array->world, name)};
}

void stage_create(struct stage *s, struct array *a, struct oracle *o, const struct script *script) {
    *s = (struct stage){.array = a, .oracle = o, .script = script, .states = 1, .dir[0] = handle_root()};
    actor_add(s, &s->actor[0], 0, "mx0");
    actor_add(s, &s->actor[1], 1, "mx1");
    actor_add(s, &s->looker, 9, "looker");
}

static void actor_start(struct actor *a, void (*fn)(void *arg)) {
    a->busy = true;
    node_start(a->node, fn, a);
}

void stage_prepare(struct stage *s) {
    for (uint32_t i = 0; i < SCRIPT_ACTORS; i++)
        if (s->script->co_act[i]) actor_start(&s->actor[i], prepare_main);
}

void stage_act(struct stage *s) {
    s->durable = s->states - 1; // co_prepare has it on disk
    for (uint32_t i = 0; i < SCRIPT_ACTORS; i++) {
        if (!s->script->co_act[i]) continue;
        s->actor[i].busy = true;
        env_spawn(node_env(s->actor[i].node), "script", act_main, &s->actor[i]);
    }
}

void stage_look(struct stage *s) {
    actor_start(&s->looker, look_main);
}

void stage_end_actors(struct stage *s) {
    for (uint32_t i = 0; i < SCRIPT_ACTORS; i++) {
        node_crash(s->actor[i].node);
        s->actor[i].busy = false;
    }
}

bool stage_busy(const struct stage *s) {
    bool busy = s->looker.busy;
    for (uint32_t i = 0; i < SCRIPT_ACTORS; i++) busy |= s->actor[i].busy;
    return busy;
}

static void dump_line(void *ctx, const char *text) {
    fprintf(stderr, "  %s\n", text);
}

static void dump_node(struct node *n) {
    if (!node_running(n)) return;
    fprintf(stderr, "%s waits for:\n", node_name(n));
    env_dump(node_env(n), dump_line, NULL);
}

void stage_dump(const struct stage *s) {
    for (uint8_t n = 0; n < s->array->ioms; n++) dump_node(s->array->iom[n].node);
    for (uint32_t i = 0; i < SCRIPT_ACTORS; i++) dump_node(s->actor[i].node);
    dump_node(s->looker.node);
}
