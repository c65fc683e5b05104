// Hazards, from their decision to what they excuse; see hazards.h.
//
// Bad blocks are chosen from the atlas: settled blocks of rows of which every block is good, whether an update of the row is in flight or not. Not the new blocks of
// an update: until it is settled its block may be the only copy, when the other's memory went with a crash; so that would be a second failure. `bad` keeps which they
// are, by what they are (object, segment, row, member), for recovery may note a block as lost at another place; one is forgotten when the atlas says that all is
// good there again. So no row has two, and whatever is told of them is judged by the atlas, not by what was done.
#include "sim/hazards.h"

#include "base/sum.h"
#include "iom/iom_inside.h"
#include "sim/atlas.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const hazard_name[HAZARDS] = {"rot", "eio", "slow", "hang", "delay", "full", "clock"};

// The IOMs put a block together from its row in service, so EIO of a bad block is a fault. (False where they did not: then data went bad in files only that
// nobody cuts, for the edge of a cut in a bad block has no end without it.)
static const bool row_repair_in_service = true;

#define BAD_MAX 24u
#define SLOW_LEAST 10u
#define SLOW_MOST 50u
#define HANG_MAX_NS SEC(6)  // longer than it takes to declare a failure, shorter than a connection's patience
#define DELAY_MAX_NS SEC(4) // likewise
#define JUMP_MAX_NS SEC(3)  // far below a session's lease: a client that is there is not given up
#define RATE_PPM 300
// How far two clocks may run apart is what a lease bears: 1000 ms by the slowest clock end before 1500 ms by the fastest. 10 % each way are within that.
#define RATE_WILD_PPM 100000
#define NEAR_FULL_BLOCKS 128u // what writes under way may have promised in one store
#define EACH_MOST 40u         // of a kind in a run
#define SUSPICIONS_MAX 64u    // at one instant

struct bad {
    struct handle h;
    uint64_t seg, off, at;
    uint8_t row, iom;
    bool refused;       // by the disk, until it is written over
    bool before, named; // bad when the audit began; it told of it
};
struct suspicion { // that EIO was not called for
    struct hazards *z;
    bool waits;
    struct handle h;
    uint64_t off, len;
};
struct tick {
    struct hazards *z;
    enum hazard kind;
    uint32_t left;
};
struct mend { // what ends by itself
    struct hazards *z;
    uint8_t iom;
    struct node *a, *b;
    bool fast, hangs, link;
};
struct hazards {
    uint32_t mask;
    uint64_t rng;
    struct array *array;
    struct oracle *oracle;
    struct tick tick[HAZARDS];
    struct mend mend[HAZARDS * EACH_MOST];
    uint32_t mends;
    struct suspicion suspicion[SUSPICIONS_MAX];
    struct bad bad[BAD_MAX];
    uint32_t bads;
    uint32_t slow[ARRAY_IOMS_MAX], hung[ARRAY_IOMS_MAX]; // how many slownesses, hangings there are now
    bool (*uncut)(void *ctx, struct handle f);
    void *uncut_ctx;
    uint64_t near_full_ns; // a store was near its end then
    bool near_full, over;
    struct hazard_counts counts;
};

// ---- the decision
bool hazards_of(const char *list, uint32_t *mask) {
    *mask = 0;
    if (!strcmp(list, "none")) return true;
    if (!strcmp(list, "seed")) *mask = HAZARDS_BY_SEED;
    if (!strcmp(list, "all")) *mask = HAZARD_BIT(HAZARDS) - 1;
    while (!*mask || *list) {
        if (*mask == HAZARDS_BY_SEED || *mask == HAZARD_BIT(HAZARDS) - 1) return true;
        size_t len = strcspn(list, ",");
        uint32_t i = 0;
        while (i < HAZARDS && (strlen(hazard_name[i]) != len || strncmp(hazard_name[i], list, len) != 0)) i++;
        if (i == HAZARDS) return false;
        *mask |= HAZARD_BIT(i);
        list += len + (list[len] == ',');
    }
    return true;
}

uint32_t hazards_decide(uint64_t seed, uint32_t asked, bool iom_stops) {
    uint64_t dice = hash64(&seed, sizeof seed, 0x68617a61);
    if (asked != HAZARDS_BY_SEED) return asked;
    if (dice % 4) return 0;
    uint32_t mask = HAZARD_BIT(dice / 4 % HAZARDS) | (dice / 64 % 2 ? HAZARD_BIT(dice / 128 % HAZARDS) : 0);
    bool stops = iom_stops || (mask & (HAZARD_BIT(HAZARD_SLOW) | HAZARD_BIT(HAZARD_HANG) | HAZARD_BIT(HAZARD_DELAY) | HAZARD_BIT(HAZARD_CLOCK)));
    return stops ? mask & ~HAZARD_BIT(HAZARD_FULL) : mask;
}

static bool has(const struct hazards *z, enum hazard k) { return z->mask & HAZARD_BIT(k); }
static uint64_t below(struct hazards *z, uint64_t n) { // a splitmix64 of its own
    uint64_t x = z->rng += 0x9E3779B97F4A7C15u;
    return (uint64_t)((unsigned __int128)hash64(&x, sizeof x, 0x72697363) * n >> 64);
}
static uint64_t now_ns(const struct hazards *z) { return world_now_ns(z->array->world); }

void hazards_to_array(uint32_t mask, struct array_options *a) {
    if (mask & (HAZARD_BIT(HAZARD_ROT) | HAZARD_BIT(HAZARD_EIO))) a->rows.cache_bytes = KIB(256); // what lies in memory is not read
    a->disk_errors = UINT32_MAX; // blocks go bad, not devices: tests/unit/mend_stories.c has those
    if (!(mask & HAZARD_BIT(HAZARD_FULL))) return;
    a->store_bytes = STORE_BYTES_MIN;
    a->store.journal_bytes = a->store.cache_bytes = MIB(1);
}

void hazards_to_work(uint32_t mask, const struct array_options *a, struct workload_options *w) {
    uint32_t late = HAZARD_BIT(HAZARD_SLOW) | HAZARD_BIT(HAZARD_HANG) | HAZARD_BIT(HAZARD_DELAY) | HAZARD_BIT(HAZARD_CLOCK);
    if (mask & HAZARD_BIT(HAZARD_FULL)) w->fillers = a->ioms - 1u;
    w->late = mask & late;
}

struct hazards *hazards_create(uint64_t seed, uint32_t mask, struct array *a, struct oracle *o) {
    struct hazards *z = calloc(1, sizeof *z);
    ASSERT(z);
    *z = (struct hazards){.mask = mask, .rng = hash64(&seed, sizeof seed, 0x64616e67), .array = a, .oracle = o};
    if (!mask) return z;
    a->known = hazards_known;
    a->known_ctx = z;
    return z;
}

void hazards_destroy(struct hazards *z) { free(z); }

void hazards_uncut(struct hazards *z, bool (*uncut)(void *ctx, struct handle f), void *ctx) {
    z->uncut = uncut;
    z->uncut_ctx = ctx;
}

bool hazards_may_stop(const struct hazards *z) { return has(z, HAZARD_SLOW) || has(z, HAZARD_HANG) || has(z, HAZARD_DELAY) || has(z, HAZARD_CLOCK); }

struct hazard_counts hazards_counts(const struct hazards *z) { return z->counts; }

static void PRINTF_LIKE(2, 3) tell(struct hazards *z, const char *fmt, ...) {
    const struct world_options *x = world_options(z->array->world);
    char text[160];
    int n = snprintf(text, sizeof text, "%14.9f ---- ", (double)now_ns(z) / 1e9);
    va_list ap;
    if (!x->trace) return;
    va_start(ap, fmt);
    vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    x->trace(x->trace_ctx, text);
}

// ---- bad blocks
static bool refuses(void *ctx, uint8_t iom, uint64_t at) {
    struct hazards *z = ctx;
    for (uint32_t i = 0; i < z->bads; i++)
        if (z->bad[i].refused && z->bad[i].iom == iom && z->bad[i].at == at) return true;
    return false;
}

static void look(struct hazards *z, struct atlas *t) {
    atlas_take(t, z->array, (struct atlas_refused){refuses, z});
    if (t->fault[0]) oracle_fault(z->oracle, "%s", t->fault);
}

static bool is_place(const struct bad *b, const struct atlas_place *p) { return handle_eq(b->h, p->h) && b->seg == p->seg && b->row == p->row && b->iom == p->iom; }

static bool still_bad(const struct bad *b, const struct atlas *t) {
    for (uint32_t i = 0; i < t->len; i++)
        if (t->place[i].bad && is_place(b, &t->place[i])) return true;
    return false;
}

static void disk_mends(struct hazards *z, struct bad *b) {
    if (b->refused) world_disk_mend_range(world_disk_find(z->array->world, z->array->iom[b->iom].disk), b->at * BLOCK_BYTES, BLOCK_BYTES);
    b->refused = false;
}

static void forget_the_good(struct hazards *z, const struct atlas *t) {
    uint32_t left = 0;
    for (uint32_t i = 0; i < z->bads; i++) {
        if (still_bad(&z->bad[i], t)) z->bad[left++] = z->bad[i];
        else disk_mends(z, &z->bad[i]);
    }
    z->bads = left;
}

static bool row_is_good(const struct hazards *z, const struct atlas *t, uint32_t first, uint32_t end) {
    for (uint32_t i = first; i < end; i++)
        if (t->place[i].bad) return false;
    for (uint32_t i = 0; i < z->bads; i++)
        if (handle_eq(z->bad[i].h, t->place[first].h) && z->bad[i].seg == t->place[first].seg && z->bad[i].row == t->place[first].row) return false;
    return true;
}

static bool may_spoil(const struct hazards *z, const struct atlas_place *p) {
    if (p->update) return false;
    return p->role == ROW_PARITY || row_repair_in_service || (z->uncut && z->uncut(z->uncut_ctx, p->h));
}

static void make_bad(struct hazards *z, const struct atlas_place *p, enum hazard how) {
    struct world_disk *d = world_disk_find(z->array->world, z->array->iom[p->iom].disk);
    z->bad[z->bads++] = (struct bad){.h = p->h, .seg = p->seg, .off = p->off, .at = p->at, .row = p->row, .iom = p->iom, .refused = how == HAZARD_EIO};
    z->counts.injected[how]++;
    if (how == HAZARD_EIO) world_disk_break(d, p->at * BLOCK_BYTES, BLOCK_BYTES, DISK_READ);
    else world_disk_flip(d, p->at * BLOCK_BYTES + below(z, BLOCK_BYTES), (unsigned)below(z, 8));
    tell(z, "%s: block %llu of IOM %u, %s of object %u/%llx segment %llu row %u", hazard_name[how], (unsigned long long)p->at, p->iom,
         p->role == ROW_DATA ? "data" : "parity", p->h.starter, (unsigned long long)p->h.index, (unsigned long long)p->seg, p->row);
}

// One block, of a row that is wholly good. Nothing if the first rows that chance points at are not.
static void spoil(struct hazards *z, enum hazard how) {
    struct atlas t;
    look(z, &t);
    if (!t.fault[0]) forget_the_good(z, &t);
    for (uint32_t tries = 0; tries < 50 && t.len && z->bads < BAD_MAX; tries++) {
        uint32_t at = (uint32_t)below(z, t.len), first = at, end = at + 1;
        while (first > 0 && atlas_same_row(&t.place[first - 1], &t.place[at])) first--;
        while (end < t.len && atlas_same_row(&t.place[end], &t.place[at])) end++;
        if (!may_spoil(z, &t.place[at]) || !row_is_good(z, &t, first, end)) continue;
        make_bad(z, &t.place[at], how);
        break;
    }
    atlas_free(&t);
}

void hazards_on_io(struct hazards *z, const struct world_io *io) {
    for (uint32_t i = 0; io->op == DISK_WRITE && io->moment == WORLD_IO_COMPLETED && i < z->bads; i++) {
        struct bad *b = &z->bad[i];
        uint64_t at = b->at * BLOCK_BYTES;
        if (b->refused && !strcmp(world_disk_name(io->disk), z->array->iom[b->iom].disk) && io->off_bytes <= at && at < io->off_bytes + io->len_bytes) disk_mends(z, b);
    }
    if (!has(z, HAZARD_FULL)) return;
    z->near_full = false;
    for (uint8_t n = 0; n < z->array->ioms; n++) {
        const struct sim_iom *i = &z->array->iom[n];
        if (node_running(i->node) && i->start.iom && i->start.iom->store && store_blocks_free(i->start.iom->store) < NEAR_FULL_BLOCKS) z->near_full = true;
    }
    if (z->near_full) z->near_full_ns = now_ns(z);
}

// ---- what may be told
static bool covers(const struct bad *b, struct handle h, uint64_t off, uint64_t len) {
    return (!h.index || handle_eq(b->h, h)) && b->off != ATLAS_NO_OFF && b->off < off + len && off < b->off + BLOCK_BYTES;
}

static void judge(void *arg) {
    struct suspicion *s = arg;
    struct atlas t;
    bool right = false;
    look(s->z, &t);
    for (uint32_t i = 0; i < t.len; i++) {
        const struct atlas_place *p = &t.place[i];
        right |= p->bad && (!s->h.index || handle_eq(p->h, s->h)) && p->off != ATLAS_NO_OFF && p->off < s->off + s->len && s->off < p->off + BLOCK_BYTES;
    }
    if (!right && !t.fault[0])
        oracle_fault(s->z->oracle, "EIO of [%llu, +%llu) of object %u/%llx, where no block is bad on its disk", (unsigned long long)s->off, (unsigned long long)s->len, s->h.starter,
                     (unsigned long long)s->h.index);
    atlas_free(&t);
    s->waits = false;
}

bool hazards_excuse(void *ctx, err e, struct handle h, uint64_t off, uint64_t len, uint64_t since_ns) {
    struct hazards *z = ctx;
    bool made_bad = false;
    if (e == ERR_NOSPC && has(z, HAZARD_FULL) && (z->near_full || z->near_full_ns >= since_ns)) {
        z->counts.told_nospc++;
        return true;
    }
    for (uint32_t i = 0; i < z->bads; i++) made_bad |= covers(&z->bad[i], h, off, len);
    if (e != ERR_IO || !made_bad || row_repair_in_service) return false;
    struct suspicion *s = z->suspicion;
    while (s->waits) ASSERT(++s < z->suspicion + SUSPICIONS_MAX);
    *s = (struct suspicion){z, true, h, off, len};
    z->counts.told_eio++;
    world_at(z->array->world, now_ns(z), judge, s);
    return true;
}

// ---- audits
bool hazards_known(void *ctx, const char *sentence) {
    struct hazards *z = ctx;
    unsigned starter, row, iom = NO_IOM;
    unsigned long long index, seg;
    if (sscanf(sentence, "object %u/%llx segment %llu row %u:", &starter, &index, &seg, &row) != 4 &&
        sscanf(sentence, "object %u/%llx segment %llu: row %u:", &starter, &index, &seg, &row) != 4)
        return false;
    const char *said = strstr(sentence, "match"), *who = strstr(sentence, "IOM ");
    if (who) sscanf(who, "IOM %u", &iom);
    for (uint32_t i = 0; i < z->bads; i++) {
        struct bad *b = &z->bad[i];
        if (b->h.starter != starter || b->h.index != index || b->seg != seg || b->row != row) continue;
        if (!said) return strstr(sentence, "not the xor of the data") != NULL; // what follows from the bad block
        if (b->iom != iom) return false;
        return b->named = true;
    }
    return false;
}

void hazards_before_audit(struct hazards *z) {
    struct atlas t;
    if (!z->bads) return;
    look(z, &t);
    if (!t.fault[0]) forget_the_good(z, &t);
    for (uint32_t i = 0; i < z->bads; i++) z->bad[i].named = false;
    atlas_free(&t);
}

// What is bad before and after it has been so all the time.
void hazards_after_audit(struct hazards *z, const char *which) {
    struct atlas t;
    if (!z->bads) return;
    look(z, &t);
    if (!t.fault[0]) forget_the_good(z, &t);
    for (uint32_t i = 0; i < z->bads; i++)
        if (!z->bad[i].named)
            oracle_fault(z->oracle, "%s does not name a bad block: IOM %u, object %u/%llx segment %llu row %u", which, z->bad[i].iom, z->bad[i].h.starter,
                         (unsigned long long)z->bad[i].h.index, (unsigned long long)z->bad[i].seg, z->bad[i].row);
    atlas_free(&t);
}

// ---- slow and hung disks, slow and late links
static struct world_disk *disk_of(struct hazards *z, const char *name) { return name[0] ? world_disk_find(z->array->world, name) : NULL; }

static void set_slow(struct hazards *z, uint8_t iom, uint32_t disk, uint32_t links) {
    const struct sim_iom *i = &z->array->iom[iom];
    world_disk_slow(disk_of(z, i->disk), disk);
    if (i->journal[0]) world_disk_slow(disk_of(z, i->journal), disk);
    node_slow_links(i->node, links);
}

static void set_hung(struct hazards *z, uint8_t iom, bool store, bool journal) {
    const struct sim_iom *i = &z->array->iom[iom];
    world_disk_hang(disk_of(z, i->disk), store);
    if (i->journal[0]) world_disk_hang(disk_of(z, i->journal), journal);
}

static void mends(void *arg) {
    struct mend *m = arg;
    struct hazards *z = m->z;
    if (m->fast && --z->slow[m->iom] == 0) set_slow(z, m->iom, 1, 1);
    if (m->hangs && --z->hung[m->iom] == 0) set_hung(z, m->iom, false, false);
    if (m->link) world_heal_link(m->a, m->b);
}

static void mend_later(struct hazards *z, struct mend what, uint64_t after_ns) {
    ASSERT(z->mends < ARRAY_LEN(z->mend));
    struct mend *m = &z->mend[z->mends++];
    *m = what;
    m->z = z;
    world_at(z->array->world, now_ns(z) + after_ns, mends, m);
}

static void one_is_slow(struct hazards *z) {
    uint8_t n = (uint8_t)below(z, z->array->ioms);
    uint32_t times = SLOW_LEAST + (uint32_t)below(z, SLOW_MOST - SLOW_LEAST + 1), what = 1 + (uint32_t)below(z, 3);
    z->slow[n]++;
    set_slow(z, n, what & 1 ? times : 1, what & 2 ? times : 1);
    tell(z, "slow: %s%s of IOM %u, %u times", what & 1 ? "disks" : "", what & 2 ? " links" : "", n, times);
    mend_later(z, (struct mend){.iom = n, .fast = true}, MSEC(50) + below(z, SEC(2)));
}

static void one_hangs(struct hazards *z) {
    uint8_t n = (uint8_t)below(z, z->array->ioms);
    uint64_t for_ns = below(z, 2) ? below(z, MSEC(500)) : below(z, HANG_MAX_NS), what = 1 + below(z, 3);
    z->hung[n]++;
    set_hung(z, n, what & 1, what & 2 || !(what & 1));
    tell(z, "hang: IOM %u, for %llu ms", n, (unsigned long long)(for_ns / MSEC(1)));
    mend_later(z, (struct mend){.iom = n, .hangs = true}, for_ns);
}

static struct node *any_node(struct hazards *z) { // an IOM or an MX
    char name[16];
    snprintf(name, sizeof name, "mx%llu", (unsigned long long)below(z, ARRAY_MX_MAX));
    struct node *mx = below(z, 4) ? NULL : node_find(z->array->world, name);
    return mx ? mx : z->array->iom[below(z, z->array->ioms)].node;
}

static void link_is_late(struct hazards *z) {
    struct node *a = z->array->iom[below(z, z->array->ioms)].node, *b = any_node(z);
    uint64_t for_ns = below(z, 2) ? below(z, MSEC(500)) : below(z, DELAY_MAX_NS);
    if (a == b) return;
    world_cut_link(a, b, below(z, 2));
    z->counts.injected[HAZARD_DELAY]++;
    tell(z, "delay: from %s to %s, %llu ms", node_name(a), node_name(b), (unsigned long long)(for_ns / MSEC(1)));
    mend_later(z, (struct mend){.a = a, .b = b, .link = true}, for_ns);
}

// ---- clocks
static int32_t any_rate(struct hazards *z) {
    int32_t most = below(z, 3) ? RATE_PPM : RATE_WILD_PPM;
    return (int32_t)below(z, 2u * (uint32_t)most + 1) - most;
}

static void clocks_run_apart(struct hazards *z) {
    struct world *w = z->array->world;
    char name[16];
    for (uint8_t n = 0; n < z->array->ioms; n++) {
        node_clock(z->array->iom[n].node, 0, any_rate(z));
        node_wall_clock(z->array->iom[n].node, (int64_t)below(z, SEC(86400)) - (int64_t)SEC(43200));
    }
    for (uint8_t n = 0; n < ARRAY_MX_MAX; n++) {
        snprintf(name, sizeof name, "mx%u", n);
        if (node_find(w, name)) node_clock(node_find(w, name), 0, any_rate(z));
    }
}

static void one_jumps(struct hazards *z) {
    struct node *n = any_node(z);
    uint64_t jump_ns = below(z, below(z, 2) ? MSEC(300) : JUMP_MAX_NS);
    tell(z, "clock: of %s, %llu ms forward", node_name(n), (unsigned long long)(jump_ns / MSEC(1)));
    node_clock(n, (int64_t)jump_ns, any_rate(z));
}

// ---- when
static void next(struct tick *t, uint64_t within_ns);

static void happen(struct hazards *z, enum hazard kind) {
    switch (kind) {
    case HAZARD_ROT: case HAZARD_EIO: spoil(z, kind); return;
    case HAZARD_SLOW: one_is_slow(z); break;
    case HAZARD_HANG: one_hangs(z); break;
    case HAZARD_DELAY: link_is_late(z); return;
    case HAZARD_CLOCK: one_jumps(z); break;
    case HAZARD_FULL: case HAZARDS: return;
    }
    z->counts.injected[kind]++;
}

static void tick_fires(void *arg) {
    struct tick *t = arg;
    if (t->z->over || !t->left) return;
    t->left--;
    happen(t->z, t->kind);
    next(t, t->kind == HAZARD_ROT || t->kind == HAZARD_EIO ? MSEC(30) : MSEC(300));
}

static void next(struct tick *t, uint64_t within_ns) { world_at(t->z->array->world, now_ns(t->z) + below(t->z, within_ns), tick_fires, t); }

void hazards_begin(struct hazards *z) {
    if (has(z, HAZARD_CLOCK)) clocks_run_apart(z);
    for (uint32_t k = 0; k < HAZARDS; k++) {
        if (!has(z, k) || k == HAZARD_FULL) continue;
        z->tick[k] = (struct tick){z, (enum hazard)k, EACH_MOST};
        next(&z->tick[k], MSEC(100));
    }
}

void hazards_at_rest(struct hazards *z) {
    for (uint32_t k = HAZARD_ROT; k <= HAZARD_EIO; k++)
        for (uint64_t n = has(z, k) && !z->over ? below(z, 3) : 0; n > 0; n--) spoil(z, (enum hazard)k);
}

void hazards_end(struct hazards *z) {
    z->over = true;
    for (uint8_t n = 0; n < z->array->ioms; n++) {
        if (has(z, HAZARD_SLOW)) set_slow(z, n, 1, 1);
        if (has(z, HAZARD_HANG)) set_hung(z, n, false, false);
    }
    if (has(z, HAZARD_DELAY)) world_heal_all(z->array->world);
    z->counts.injected[HAZARD_FULL] = z->counts.told_nospc;
}
